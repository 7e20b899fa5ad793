# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A job of two sites that trains on writers, 2 rounds of `train` and 1 of `meta_train`, and personalises. By hand:

train_loss, sites with 300 and 100 samples:  (300 * 2.0 + 100 * 1.0) / 400 = 1.75, then 1.0 of site-1 alone as the
    weight of site-2 is 0, then (300 * 1.0 + 100 * 0.6) / 400 = 0.9

The held-out writers, three at site-1 and one at site-2:

behind   initial                       personalised                  gain
0        (3 * 0    + 0.5)  / 4 = 0.125   (3 * 0.25 + 0.25) / 4 = 0.25    +12.5
2        (3 * 0.25 + 0.75) / 4 = 0.375   (3 * 0.5  + 1.0)  / 4 = 0.625   +25.0
3        (0.5 + 0.5 + 0.75 + 0.5) / 4    (0.75 + 0.5 + 0.5 + 1.0) / 4    (0.25 + 0 - 0.25 + 0.5) / 4
         = 0.5625                        = 0.6875                        = 0.125

Standard deviations in the end: initial sqrt((3 * 0.0625^2 + 0.1875^2) / 3) = 0.125; personalised
sqrt((0.0625^2 + 2 * 0.1875^2 + 0.3125^2) / 3) = 0.239357; gain sqrt((2 * 0.125^2 + 2 * 0.375^2) / 3) = 0.322749, half
of which is the standard error. Percentiles lie at places 0.3 and 2.7 of the sorted four.
"""

from __future__ import annotations

from typing import Any

from tests.bundle.conftest import Event

WORKFLOWS = ["pre_train", "fed_avg", "meta_train", "personalize"]
SITES = {
    "site-1": {
        "dropped": 2,
        "support": [2, 2, 2],
        "query": [4, 4, 4],
        "unseen": [0, 0, 0],
        "initial_loss": [2.0, 1.0, 1.0],
        "initial_accuracy": [0.5, 0.5, 0.75],
        "personalized_loss": [1.0, 1.0, 1.0],
        "personalized_accuracy": [0.75, 0.5, 0.5],
    },
    "site-2": {
        "dropped": 0,
        "support": [2],
        "query": [2],
        "unseen": [0],
        "initial_loss": [2.0],
        "initial_accuracy": [0.5],
        "personalized_loss": [1.0],
        "personalized_accuracy": [1.0],
    },
}
SUMMARY = {
    "writers": 4,
    "dropped": 2,
    "initial": {
        "accuracy": {"mean": 0.5625, "std": 0.125, "p10": 0.5, "p90": 0.675},
        "loss": {"mean": 1.5, "std": 0.57735, "p10": 1.0, "p90": 2.0},
    },
    "personalized": {
        "accuracy": {"mean": 0.6875, "std": 0.239357, "p10": 0.5, "p90": 0.925},
        "loss": {"mean": 1.0, "std": 0.0, "p10": 1.0, "p90": 1.0},
    },
    "gain": {"mean": 0.125, "std": 0.322749, "standard_error": 0.161374, "p10": -0.175, "p90": 0.425},
    "harmed": 0.25,
    "query_samples": 14,
    "unseen_query_samples": 0,
    "unseen_query_share": 0.0,
}


def scored(writers: int, before: float, after: float, **losses: float) -> dict[str, float]:
    """What a site reports of its held-out writers."""
    return {"writers": float(writers), "initial_accuracy": before, "personalized_accuracy": after, **losses}


def training_round(task: str, number: int, num_rounds: int, sites: dict[str, Any], **changes: Any) -> Event:
    event = {"event": "round", "task": task, "round": number, "num_rounds": num_rounds, "seconds": 2.0}
    return event | {"upload_bytes": 2000, "download_bytes": 1000, "sites": sites, "failed": {}} | changes


def site(samples: float, loss: float | None, writers: float, dropped: float = 0.0, **scores: Any) -> dict[str, Any]:
    train = {"writers": writers, "dropped_writers": dropped} | ({} if loss is None else {"train_loss": loss})
    return {"samples": samples, "received": {}, "train": train, **scores}


def rounds() -> list[Event]:
    """The rounds of both tasks; the second of `train` has no scores."""
    losses = {"initial_loss": 2.0, "personalized_loss": 1.0}
    first, second = scored(3, 0.0, 0.25, **losses), scored(1, 0.5, 0.25, **losses | {"initial_loss": 6.0})
    third, fourth = scored(3, 0.25, 0.5, **losses), scored(1, 0.75, 1.0)
    return [
        training_round(
            "train",
            1,
            2,
            {"site-1": site(300, 2.0, 20, evaluated=first), "site-2": site(100, 1.0, 5, evaluated=second)},
        ),
        training_round("train", 2, 2, {"site-1": site(300, 1.0, 20), "site-2": site(0, None, 0, 2)}),
        training_round(
            "meta_train",
            1,
            1,
            {"site-1": site(300, 1.0, 20, evaluated=third), "site-2": site(100, 0.6, 5, evaluated=fourth)},
        ),
    ]


def personalized(**changes: Any) -> Event:
    event = {"event": "personalized", "rounds": {"fed_avg": 2, "meta_train": 1}, "target_accuracy": 0.625}
    return event | {"sites": SITES, "failed": {}, "summary": SUMMARY} | changes


def writers_events(**changes: Any) -> list[Event]:
    """The whole job; `changes` are of its last result."""
    samples = {
        "site-1": {"train": 900, "test": 90, "training_writers": 30, "held_out_writers": 3, "skipped_writers": 7},
        "site-2": {"train": 100, "test": 10, "training_writers": 5, "held_out_writers": 1, "skipped_writers": 7},
    }
    dataset = {"dataset": "FEMNIST", "embedded": False}
    events: list[Event] = [
        {"event": "job_started", "job": "perfedavg", "sites": ["site-1", "site-2"], "workflows": WORKFLOWS},
        {"event": "initialized", "method": "first", "source": "site-1", "dataset": dataset, "samples": samples},
        *rounds(),
        personalized(**changes),
        *({"event": "workflow_finished", "workflow": name} for name in WORKFLOWS),
        {"event": "job_ended"},
    ]
    return [{"time": 10.0 + index} | event for index, event in enumerate(events)]
