# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor

from controllers.fine_tune import FineTune, summarise
from custom import progress
from custom.keys import ROUNDS
from tests.support import Engine, arrays, run_controller


def scores(before: float, after: float, test: int = 100) -> Shareable:
    data = {
        "global": {"val_accuracy": before, "test_accuracy": before},
        "personal": {"val_accuracy": after, "test_accuracy": after},
    }
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 10, "test_samples": test}
    return DXO(DataKind.METRICS, data=data, meta=meta).to_shareable()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = Engine(tmp_path, {"persistor": PTFileModelPersistor()}, ["site-1", "site-2"])
    with engine.new_context() as fl_ctx:
        engine.fire_event(EventType.START_RUN, fl_ctx)
        model = make_model_learnable(arrays(w=[1.0]), {})
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=True)
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, 2, private=True, sticky=True)
    return engine


def set_global(engine: Engine, value: float) -> None:
    with engine.new_context() as fl_ctx:
        model = make_model_learnable(arrays(w=[value]), {})
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=True)


def save_best(engine: Engine, value: float) -> None:
    """The best model, with the global one as it was before."""
    set_global(engine, value)
    with engine.new_context() as fl_ctx:
        engine.fire_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)
    set_global(engine, 1.0)


@pytest.mark.parametrize(
    ("start_from", "expected", "best_rounds", "rounds"),
    [("final", 1.0, [1], 3), ("best", 5.0, [1, 2], 2), ("best", 5.0, [], None)],
)
def test_it_sends_the_model_that_was_asked_for(
    engine: Engine, start_from: str, expected: float, best_rounds: list[int], rounds: int | None
) -> None:
    """With the number of rounds that it has behind it: the best one, those up to the last that was the best."""
    save_best(engine, 5.0)
    for number in best_rounds:
        progress.append(engine.run_dir, "best", round=number, metric="val_accuracy", value=0.5)
    sent = []

    def answer(site: str, task: str, data: Shareable) -> Shareable:
        sent.append((task, data.get_header(ROUNDS), from_shareable(data).data["w"].tolist()))
        return scores(0.5, 0.75)

    run_controller(engine, FineTune(start_from=start_from), answer)
    assert sent == [("fine_tune", rounds, [expected])] * 2
    result = json.loads((engine.run_dir / "fine_tune.json").read_text())
    assert result["summary"]["personal"] == {"mean": 0.75, "std": 0.0, "worst": 0.75, "worst_site": "site-1"}
    rows = list(csv.reader((engine.run_dir / "fine_tune.csv").open()))
    assert result["rounds"] == rounds
    assert rows[0] == ["site", "model", "metric", "value"]
    assert ["site-2", "personal", "test_accuracy", "0.75"] in rows
    event = json.loads((engine.run_dir / "progress.jsonl").read_text().splitlines()[-1])
    assert event["event"] == "fine_tuned"
    assert event["sites"] == result["sites"]


def test_a_site_that_fails_does_not_stop_the_others(engine: Engine) -> None:
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "train_only: no match"})
    controller = FineTune(start_from="final")
    run_controller(engine, controller, lambda site, task, data: failed if site == "site-1" else scores(0.5, 0.6))
    result = json.loads((engine.run_dir / "fine_tune.json").read_text())
    assert result["failed"] == {"site-1": "train_only: no match"}
    assert list(result["sites"]) == ["site-2"]
    assert engine.panic() == ""


GOOD = {"val_accuracy": 0.5, "test_accuracy": 0.5}


def malformed(test_samples: float = 100, samples: Any = 9, **data: Any) -> Shareable:
    data = {"global": GOOD, "personal": GOOD} | data
    meta = {"test_samples": test_samples, MetaKey.NUM_STEPS_CURRENT_ROUND: samples}
    return DXO(DataKind.METRICS, data=data, meta=meta).to_shareable()


@pytest.mark.parametrize(
    "odd",
    [
        malformed(**{"global": None}),
        malformed(personal={"test_accuracy": 1.0}),
        malformed(personal=GOOD | {"test_accuracy": 1000.0}),
        malformed(personal=GOOD | {1: 0.5}),
        malformed(local_only={}),
        malformed(epochs="many"),
        malformed(more=b"1"),
        malformed(test_samples=0),
        malformed(test_samples=-9),
        malformed(samples={9}),
    ],
)
def test_a_malformed_reply_is_a_failure_of_its_site_alone(engine: Engine, odd: Shareable) -> None:
    answer_of_one(engine, odd, "[update-")


def test_a_reply_of_another_kind_is_one_too(engine: Engine) -> None:
    answer_of_one(engine, DXO(DataKind.WEIGHTS, data=arrays(w=[1.0])).to_shareable(), "expected METRICS, got WEIGHTS")
    unknown = malformed()
    unknown["DXO"]["kind"] = "gossip"
    answer_of_one(engine, unknown, "expected METRICS, got gossip")


def test_what_a_site_says_of_its_failure_is_one_line(engine: Engine) -> None:
    """Of a length that a log bears, and without lines that look like the server's own."""
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "no\nround 9/9 \x1b" * 999})
    answer_of_one(engine, failed, "no round 9/9 ?no round 9/9 ?no")
    result = json.loads((engine.run_dir / "fine_tune.json").read_text())
    assert len(result["failed"]["site-1"]) < 1010


def answer_of_one(engine: Engine, odd: Shareable, reason: str) -> None:
    run_controller(
        engine,
        FineTune(start_from="final"),
        lambda site, task, data: odd if site == "site-1" else scores(0.5, 0.6),
    )
    result = json.loads((engine.run_dir / "fine_tune.json").read_text())
    assert reason in result["failed"]["site-1"]
    assert list(result["sites"]) == ["site-2"]


def test_a_silent_site_is_given_up(engine: Engine) -> None:
    controller = FineTune(start_from="final", timeout_s=2)
    run_controller(engine, controller, lambda site, task, data: None if site == "site-1" else scores(0.5, 0.6))
    result = json.loads((engine.run_dir / "fine_tune.json").read_text())
    assert result["failed"] == {"site-1": "no reply to fine_tune within 2 s"}
    assert engine.panic() == ""


@pytest.mark.parametrize("min_responses", [0, 2])
def test_too_few_sites_end_the_job_with_the_reasons(engine: Engine, min_responses: int) -> None:
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "disk full"})
    replies = {"site-1": failed, "site-2": scores(0.5, 0.6) if min_responses else failed}
    controller = FineTune(start_from="final", min_responses=min_responses)
    run_controller(engine, controller, lambda site, task, data: replies[site])
    assert "site-1: disk full" in engine.panic()


def test_before_training_it_says_where_it_belongs(tmp_path: Path) -> None:
    engine = Engine(tmp_path, {}, ["site-1"])
    run_controller(engine, FineTune(), lambda site, task, data: None)
    assert engine.panic() == (
        "fine_tune: there is no trained model to fine-tune; "
        "put this workflow after ScatterAndGather in config_fed_server.json [nothing-trained]"
    )


def test_without_a_best_model_it_says_so(engine: Engine) -> None:
    run_controller(engine, FineTune(start_from="best"), lambda site, task, data: None)
    assert "start_from best: there is no best model yet" in engine.panic()


@pytest.mark.parametrize(
    "args", [{"start_from": "first"}, {"timeout_s": 0}, {"min_responses": 3}, {"min_responses": -1}]
)
def test_bad_settings(engine: Engine, args: dict[str, Any]) -> None:
    run_controller(engine, FineTune(**args), lambda site, task, data: None)
    assert next(iter(args)) in engine.panic()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"persistor_id": "nothing", "start_from": "best"}, "job-component"),
        ({"min_responses": 3}, "setting-value"),
        ({"start_from": "first"}, "setting-value"),
    ],
)
def test_what_cannot_work_is_found_before_training(engine: Engine, args: dict[str, Any], code: str) -> None:
    with engine.new_context() as fl_ctx:
        FineTune(**args).handle_event(EventType.START_RUN, fl_ctx)
    assert engine.panic().endswith(f"[{code}]")


def test_the_summary_by_hand() -> None:
    sites = {
        "a": from_shareable(scores(0.50, 0.90, test=30)).data | {"test_samples": 30},
        "b": from_shareable(scores(0.80, 0.78, test=10)).data | {"test_samples": 10},
    }
    summary = summarise(sites)
    assert summary["global"]["mean"] == pytest.approx((30 * 0.5 + 10 * 0.8) / 40)
    assert summary["personal"]["mean"] == pytest.approx((30 * 0.9 + 10 * 0.78) / 40)
    assert summary["personal"]["std"] == pytest.approx(0.12 / 2**0.5)
    assert (summary["personal"]["worst"], summary["personal"]["worst_site"]) == (0.78, "b")
    assert (summary["harmed_on_test"], summary["harmed_on_validation"]) == (0.5, 0.5)
    assert "local_only" not in summary
    assert summarise({}) == {}
