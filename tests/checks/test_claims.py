# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Every number that a site reports, in every message: those it cannot be are refused, and the site is named."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable

from controllers import fine_tune, personalize
from custom.checks.agreement import check_facts, check_remarks, check_samples
from custom.checks.claims import HELD_OUT, TRAINING, check_scores, check_writers, told
from custom.checks.update import Origin, UpdateRejected
from custom.errors import BundleError
from custom.filters.check_scores import CheckScores
from custom.filters.check_update import CheckUpdate
from custom.keys import EVALUATED, SAMPLES, TRAIN_METRICS
from tests.filters.flare_contexts import Server, submission
from tests.hostile import EVIL, LONG

SITE = "site-2"
HERE = Origin(SITE)
FACTS = {SITE: {"train": 100, "validation": 20, "test": 30, TRAINING: 8, HELD_OUT: 3}, "site-1": {"train": 500}}
NUMBERS = [math.nan, math.inf, -1, 1e308, -1e308, 10**400, True, None, "0.5", [], {}, b"1", np.float32("nan")]


def trained(**changes: Any) -> None:
    """A training result, through the filter."""
    server = Server({"w": np.zeros(2, np.float32)})
    server.set(SAMPLES, FACTS)
    meta = {
        "weight": 100,
        MetaKey.INITIAL_METRICS: {"val_accuracy": 0.5, "val_loss": 1.0, "val_auc": 0.5},
        TRAIN_METRICS: {"train_loss": 1.0, "writers": 8.0, "dropped_writers": 0.0},
        EVALUATED: {"writers": 3.0, "initial_accuracy": 0.1, "personalized_accuracy": 0.9, "initial_loss": 2.0},
    } | changes
    update = {"w": np.ones(2, np.float32)}
    dxo = from_shareable(submission(SITE, 0, update, meta.pop("weight"), meta.pop(MetaKey.INITIAL_METRICS)))
    dxo.meta.update(meta)
    result = dxo.update_shareable(submission(SITE, 0, update))
    through(CheckUpdate(), result, server)


def scored(**changes: Any) -> None:
    """A reply to `validate`, through the filter."""
    content = {"samples": 100, "metrics": {"test_accuracy": 0.5, "test_loss": 1.0}} | changes
    server = Server({})
    server.set(SAMPLES, FACTS)
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: content["samples"]}
    result = DXO(DataKind.METRICS, data=content["metrics"], meta=meta).to_shareable()
    through(CheckScores(), result, server)


def through(check: Any, result: Shareable, server: Server) -> None:
    reply = check.process(result, server.context(SITE))
    if reply.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR:
        raise BundleError(reply.get_header(ReservedHeaderKey.ERROR), code="update-metrics", site=SITE)


def closing(**changes: Any) -> None:
    content = {"samples": 100, "metrics": {"val_accuracy": 0.5, "val_loss": 1.0}} | changes
    check_scores(content["metrics"], content["samples"], HERE, FACTS)


def fine_tuned(**changes: Any) -> None:
    score = {"val_accuracy": 0.5, "test_accuracy": 0.5, "test_loss": 1.0}
    content = {"local_only": score, "global": score, "personal": score, "best_epoch": 1, "epochs": 2} | changes
    samples, test_samples = content.pop("samples", 100), content.pop("test_samples", 30)
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: samples, "test_samples": test_samples}
    fine_tune.check_reply(HERE, DXO(DataKind.METRICS, data=content, meta=meta), FACTS)


def personalized(**changes: Any) -> None:
    counts = {"support": [5, 6], "query": [3, 4], "unseen": [0, 1], "dropped": 0}
    scores = {name: [0.5, 0.6] for name in personalize.SCORES}
    personalize.check_reply(HERE, DXO(DataKind.METRICS, data={**counts, **scores, **changes}), FACTS)


def described(**changes: Any) -> None:
    content = {
        "samples": {"train": 10, "validation": 5},
        "weight": 10,
        "left_out": {"files": 3},
        "facts": {"dataset": "digits", "embedded": True, "num_classes": 10, "input_shape": [1, 8, 8]},
    } | changes
    check_samples(SITE, content["samples"], content["weight"])
    check_remarks(SITE, content["left_out"], [], [])
    check_facts(SITE, content["facts"])


def in_dictionary(good: dict[str, Any], values: list[Any]) -> Iterator[dict[str, Any]]:
    """Each entry with each bad value, and each bad name."""
    for name in good:
        yield from ({**good, name: value} for value in values)
    yield from ({**good, name: 0.5} for name in (5, None, "", "x" * 101, LONG, EVIL))
    yield {**good, **{f"m{number}": 0.5 for number in range(101)}}


SHARE = {"val_accuracy": 0.5, "test_accuracy": 0.5}
METRICS = list(in_dictionary({**SHARE, "val_loss": 1.0}, NUMBERS)) + [
    {**SHARE, "val_accuracy": v} for v in (3.0, 1.001)
]
WEIGHTS = [*NUMBERS, 101, 1e9]  # more than the 100 that it told
LISTS = [[value, 0.6] for value in [*NUMBERS, 3.0]]
KINDS: dict[str, tuple[Callable[..., None], dict[str, list[Any]]]] = {
    "train": (
        trained,
        {
            MetaKey.INITIAL_METRICS: [*METRICS, math.nan, [0.5], "0.5\n"],
            TRAIN_METRICS: [*METRICS, {"writers": 9.0}, {"writers": 4.0, "dropped_writers": 5.0}],
            EVALUATED: [*METRICS, {"writers": 4.0}],
            "weight": [*WEIGHTS, "many"],
        },
    ),
    "validate": (scored, {"metrics": METRICS, "samples": WEIGHTS}),
    "closing validation": (closing, {"metrics": METRICS, "samples": WEIGHTS}),
    "fine_tune": (
        fine_tuned,
        {
            **{kind: [*METRICS, None, 0.5, {}, {"val_accuracy": 0.5}] for kind in ("local_only", "global", "personal")},
            **{name: [*NUMBERS, 0.5, 10**9] for name in ("best_epoch", "epochs")},
            "samples": WEIGHTS,
            "test_samples": [*NUMBERS, 0, 31],
            "extra": [1],
        },
    ),
    "personalize": (
        personalized,
        {
            **{name: [*LISTS, [0.5], None] for name in personalize.SCORES if "accuracy" in name},
            **{name: [[v, 0.6] for v in NUMBERS] for name in personalize.SCORES if "loss" in name},
            **{name: [[v, 4] for v in [*NUMBERS, 0, 1.5, 10**10]] for name in personalize.COUNTS},
            "unseen": [[v, 1] for v in [*NUMBERS, 4, 1.5]],
            "dropped": [*NUMBERS, 2],
            "extra": [1],
        },
    ),
    "get_weights": (
        described,
        {
            "samples": [{"train": v} for v in [*NUMBERS, 1.5, 10**10]]
            + [{name: 1} for name in (5, EVIL, LONG)]
            + [None],
            "weight": [*NUMBERS, 10**10],
            "left_out": [{"files": v} for v in [*NUMBERS, 10**10]],
            "facts": [
                *({"dataset": v} for v in (EVIL, LONG, None, 5)),
                *(
                    {"dataset": "digits", "more": v}
                    for v in (EVIL, LONG, math.nan, 10**400, {"a": {}}, {5: 1}, [[1]], [1] * 10_001)
                ),
                *({"dataset": "digits", name: 1} for name in (EVIL, LONG, 5)),
                None,
            ],
        },
    ),
}
CASES = [
    pytest.param(check, field, value, id=f"{kind}-{field}-{number}")
    for kind, (check, fields) in KINDS.items()
    for field, values in fields.items()
    for number, value in enumerate(values)
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_honest_site_sends_is_taken(kind: str) -> None:
    KINDS[kind][0]()


@pytest.mark.parametrize(("check", "field", "value"), CASES)
def test_what_cannot_be_is_refused_with_the_site_and_in_one_short_line(
    check: Callable[..., None], field: str, value: Any
) -> None:
    with pytest.raises(BundleError) as error:
        check(**{field: copy.deepcopy(value)})
    assert error.value.site == SITE
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1500


def test_a_count_that_was_told_is_the_sites_own_or_else_the_largest() -> None:
    assert told(FACTS, SITE, "train", 7) == 100
    assert told(FACTS, "site-3", "train", 7) == 500
    assert told(FACTS, "site-3", "unheard", 7) == told(None, SITE, "train", 7) == 7
    with pytest.raises(UpdateRejected):
        check_writers({"writers": 4}, HELD_OUT, HERE, FACTS)
    check_writers({"writers": 4}, HELD_OUT, HERE, None)
