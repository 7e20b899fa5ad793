# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.widgets.intime_model_selector import IntimeModelSelector

from controllers.closing_validation import ClosingValidation
from custom.keys import SPLIT
from custom.metrics import TRIMMED_MEAN
from custom.widgets.model_selector import ModelSelector
from custom.widgets.progress_log import ProgressLog
from tests.support import Engine, arrays, run_controller


def score(value: Any, samples: int) -> Shareable:
    return DXO(
        DataKind.METRICS, data={"val_accuracy": value}, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: samples}
    ).to_shareable()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = Engine(tmp_path, {"model_selector": IntimeModelSelector()}, ["site-1", "site-2"])
    with engine.new_context() as fl_ctx:
        model = make_model_learnable(arrays(w=[1]), {})
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=True)
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, 4, private=True, sticky=True)
    return engine


def best_fired(engine: Engine) -> bool:
    return AppEventType.GLOBAL_BEST_MODEL_AVAILABLE in [event for event, _ in engine.events]


@pytest.mark.parametrize(("best_so_far", "expected"), [(0.75, True), (0.85, False)])
def test_the_last_model_becomes_the_best_if_it_is(engine: Engine, best_so_far: float, expected: bool) -> None:
    engine.components["model_selector"].best_val_metric = best_so_far
    replies = {"site-1": score(0.9, 1), "site-2": score(0.75, 2)}  # weighted mean 0.8
    splits = []

    def answer(site: str, task: str, data: Shareable) -> Shareable:
        splits.append(data.get_header(SPLIT))
        return replies[site]

    run_controller(engine, ClosingValidation(), answer)
    assert best_fired(engine) is expected
    assert splits == ["validation", "validation"]
    event = json.loads((engine.run_dir / "progress.jsonl").read_text().splitlines()[-1])
    assert event["round"] == 5
    assert event["sites"] == {"site-1": {"val_accuracy": 0.9}, "site-2": {"val_accuracy": 0.75}}


def test_numbers_of_numpy_are_written_as_plain_ones(engine: Engine) -> None:
    run_controller(engine, ClosingValidation(), lambda site, task, data: score(np.float32(0.5), 1))
    assert engine.panic() == ""
    event = json.loads((engine.run_dir / "progress.jsonl").read_text().splitlines()[-1])
    assert event["sites"] == {"site-1": {"val_accuracy": 0.5}, "site-2": {"val_accuracy": 0.5}}


def test_a_score_that_lacks_a_site_is_shown_but_selects_nothing(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "no data"})
    run_controller(engine, ClosingValidation(), lambda site, task, data: score(0.5, 1) if site == "site-1" else failed)
    event = json.loads((engine.run_dir / "progress.jsonl").read_text().splitlines()[-1])
    assert list(event["sites"]) == ["site-1"]
    assert not best_fired(engine)
    assert "site-2 could not score the last model: no data" in caplog.text


UNNAMED = DXO(DataKind.METRICS, data={"val_accuracy": 0.9, 1: 0.5}, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 1})


@pytest.mark.parametrize(
    "bad",
    [score(float("nan"), 1), score(0.9, -1), score(0.9, "many"), UNNAMED.to_shareable()],  # type: ignore[arg-type]
)
def test_scores_that_are_no_finite_numbers_select_nothing(engine: Engine, bad: Shareable) -> None:
    run_controller(engine, ClosingValidation(), lambda site, task, data: score(0.9, 1) if site == "site-1" else bad)
    event = json.loads((engine.run_dir / "progress.jsonl").read_text().splitlines()[-1])
    assert list(event["sites"]) == ["site-1"]
    assert not best_fired(engine)


def test_silent_sites_do_not_hold_up_the_job(engine: Engine) -> None:
    run_controller(engine, ClosingValidation(timeout_s=1), lambda site, task, data: None)
    assert not best_fired(engine)
    assert engine.panic() == ""


def test_before_training_there_is_nothing_to_score(tmp_path: Path) -> None:
    engine = Engine(tmp_path, {"model_selector": IntimeModelSelector()}, ["site-1"])
    run_controller(engine, ClosingValidation(), lambda site, task, data: None)
    assert "no global model yet" in engine.panic()


def test_the_last_model_is_compared_by_the_mean_that_the_selector_takes(engine: Engine) -> None:
    """By samples (0.9 + 2 * 0.6) / 3 = 0.7; weighted by pairs, as AUC is shown, it would be 0.87."""
    engine.components["model_selector"] = IntimeModelSelector(key_metric="val_auc")
    engine.components["model_selector"].best_val_metric = 0.75

    def answer(site: str, task: str, data: Shareable) -> Shareable:
        auc, pairs, samples = (0.9, 9.0, 1) if site == "site-1" else (0.6, 1.0, 2)
        metrics = {"val_auc": auc, "val_positives": 1.0, "val_negatives": pairs}
        return DXO(DataKind.METRICS, data=metrics, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: samples}).to_shareable()

    run_controller(engine, ClosingValidation(), answer)
    assert not best_fired(engine)


def test_the_bundles_selector_compares_what_the_report_shows(engine: Engine) -> None:
    """As above: weighted by pairs, 0.87 is above 0.75."""
    engine.components["model_selector"] = ModelSelector(key_metric="val_auc")
    engine.components["model_selector"].best_val_metric = 0.75
    site_1 = {"val_auc": 0.9, "val_positives": 1.0, "val_negatives": 9.0}
    site_2 = {"val_auc": 0.6, "val_positives": 1.0, "val_negatives": 1.0}

    def answer(site: str, task: str, data: Shareable) -> Shareable:
        metrics, samples = (site_1, 1) if site == "site-1" else (site_2, 2)
        return DXO(DataKind.METRICS, data=metrics, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: samples}).to_shareable()

    run_controller(engine, ClosingValidation(), answer)
    assert best_fired(engine)


@pytest.mark.parametrize(("best_so_far", "expected"), [(-0.3, True), (-0.1, False)])
def test_a_low_loss_is_good(engine: Engine, best_so_far: float, expected: bool) -> None:
    """0.2 at both sites, against 0.3 and 0.1 before."""
    engine.components["model_selector"] = ModelSelector(key_metric="val_loss")
    engine.components["model_selector"].best_val_metric = best_so_far
    reply = DXO(DataKind.METRICS, data={"val_loss": 0.2}, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 1}).to_shareable()
    run_controller(engine, ClosingValidation(), lambda site, task, data: reply)
    assert best_fired(engine) is expected


@pytest.mark.parametrize(
    ("metric", "negate", "ends"),
    [
        ("val_loss", False, True),
        ("val_loss", True, False),
        ("val_accuracy", True, True),
        ("val_accuracy", False, False),
        ("val_mystery", False, False),
    ],
)
def test_flares_selector_in_the_wrong_direction_ends_the_job_at_its_start(
    engine: Engine, metric: str, negate: bool, ends: bool
) -> None:
    engine.components["model_selector"] = IntimeModelSelector(key_metric=metric, negate_key_metric=negate)
    with engine.new_context() as fl_ctx:
        ClosingValidation().handle_event(EventType.START_RUN, fl_ctx)
    assert ("[setting-value]" in engine.panic()) is ends


def test_of_three_sites_the_last_model_is_scored_by_their_trimmed_mean(engine: Engine) -> None:
    """0.5, where the weighted mean would be above 0.9; the event says by what it was chosen."""
    engine.sites = ["site-1", "site-2", "site-3"]
    engine.components = {"model_selector": ModelSelector(), "progress": ProgressLog()}
    engine.components["progress"]._run_dir = engine.run_dir
    engine.components["model_selector"].best_val_metric = 0.4
    replies = {"site-1": score(0.5, 10), "site-2": score(0.4, 10), "site-3": score(1.0, 10_000)}
    run_controller(engine, ClosingValidation(), lambda site, task, data: replies[site])
    events = [json.loads(line) for line in (engine.run_dir / "progress.jsonl").read_text().splitlines()]
    best = next(event for event in events if event["event"] == "best")
    assert (best["round"], best["value"], best["rule"]) == (5, 0.5, TRIMMED_MEAN)


def test_a_score_that_cannot_be_is_an_error_of_its_site(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    run_controller(engine, ClosingValidation(), lambda site, task, data: score(0.9 if site == "site-1" else 3.0, 1))
    event = json.loads((engine.run_dir / "progress.jsonl").read_text().splitlines()[-1])
    assert list(event["sites"]) == ["site-1"]
    assert "site-2 metric val_accuracy" in caplog.text
    assert "[update-metrics]" in caplog.text
