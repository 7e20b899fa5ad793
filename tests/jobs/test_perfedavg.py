# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""perfedavg as a user runs it, on the embedded digits: with one site and with three."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from custom.learning.weights import Weights, load_weights
from tests.jobs.flare import bundle, environment, export, progress, simulate

pytestmark = pytest.mark.e2e
ROUNDS = ("fed_avg.num_rounds=2", "meta_train.num_rounds=1", "writers_per_round=4", "eval_every=2")
QUICK = ("dataset=digits", "local_epochs=2", "personalization_epochs=2", *ROUNDS)


def personalized(workspace: Path) -> dict[str, Any]:
    return json.loads((workspace / "server" / "simulate_job" / "personalize.json").read_text())


def model(workspace: Path, name: str) -> Weights:
    return load_weights(workspace / "server" / "simulate_job" / "app_server" / name)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    simulate(export("perfedavg", folder / "job", *QUICK), folder, sites=3, threads=3, data_root=folder)
    return folder / "ws"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """By `bundle run`; its output too."""
    folder = tmp_path_factory.mktemp("one")
    settings = [option for setting in QUICK for option in ("--set", setting)]
    done = bundle(
        "run", "perfedavg", "-n", "1", "-w", str(folder / "ws"), *settings, cwd=folder, env=environment(folder)
    )
    assert done.returncode == 0, done.stdout
    return folder / "ws", done.stdout


def test_one_site_and_three_make_the_same_model(one: tuple[Path, str], three: Path) -> None:
    """To the rounding errors of some thirty steps in float32, which come out otherwise with another number of threads.

    More in the final model: Reptile's Adam makes a whole step of the rounding error of a gradient that is all but zero.
    """
    for name, tolerance in (("fed_avg_model.pt", 2e-4), ("FL_global_model.pt", 2e-3)):
        expected, got = model(one[0], name), model(three, name)
        assert expected.keys() == got.keys()
        for key, value in expected.items():
            assert np.linalg.norm(got[key] - value) <= tolerance * np.linalg.norm(value), (name, key)


def test_both_phases_move_the_model(three: Path) -> None:
    before, after = model(three, "fed_avg_model.pt"), model(three, "FL_global_model.pt")
    assert all(np.abs(after[key] - before[key]).max() > 1e-5 for key in before)


def test_every_held_out_writer_is_scored_once(one: tuple[Path, str], three: Path) -> None:
    """20 of the 100 writers with 50 samples each; the three sites in name order have those of the one site."""
    alone, parts = personalized(one[0]), personalized(three)
    assert alone["summary"]["writers"] == parts["summary"]["writers"] == 20
    assert [len(parts["sites"][site]["query"]) for site in sorted(parts["sites"])] == [7, 7, 6]
    assert set(alone["sites"]["site-1"]["query"]) == {25}
    together = [value for site in sorted(parts["sites"]) for value in parts["sites"][site]["initial_loss"]]
    assert together == pytest.approx(alone["sites"]["site-1"]["initial_loss"], rel=0.02)
    assert parts["summary"]["gain"]["mean"] > 0.1, "after two rounds there is much to win"


def test_each_round_trains_as_many_writers_as_were_asked_for(three: Path) -> None:
    rounds = [event for event in progress(three) if event["event"] == "round"]
    assert [(event["task"], event["round"]) for event in rounds] == [("train", 1), ("train", 2), ("meta_train", 1)]
    for event in rounds:
        assert sum(site["train"]["writers"] for site in event["sites"].values()) == 4
    scored = [[site.get("evaluated", {}).get("writers") for site in event["sites"].values()] for event in rounds]
    assert scored == [[7, 7, 6], [None] * 3, [7, 7, 6]]


def test_the_report_of_bundle_run(one: tuple[Path, str]) -> None:
    assert "status    completed" in one[1]
    for part in ("initial", "personalised", "gain", "harmed", "20 held-out writers"):
        assert part in one[1]
