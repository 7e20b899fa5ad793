# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from custom import progress
from custom.keys import EVALUATED, SAMPLES, TRAIN_METRICS
from custom.metrics import weighted_mean
from custom.widgets.progress_log import NOT_AGGREGATED, ProgressLog, numbers
from tests.support import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = Engine(tmp_path, {"progress": ProgressLog()}, ["site-1", "site-2"])
    config = Path(engine.workspace.get_app_config_dir("job"))
    config.mkdir(parents=True)
    (config / "config_fed_server.json").write_text('{"workflows": [{"id": "sag"}]}')
    return engine


def fire(engine: Engine, event: str, site: str = "", **props: Any) -> None:
    with engine.new_context() as fl_ctx:
        for key, value in props.items():
            fl_ctx.set_prop(key, value, private=True, sticky=False)
        if site:
            peer = FLContext()
            peer.set_prop("__identity_name__", site, private=False)
            fl_ctx.set_peer_context(peer)
        engine.fire_event(event, fl_ctx)


def update(accuracy: float, samples: int, **more_meta: Any) -> Shareable:
    meta = {
        MetaKey.NUM_STEPS_CURRENT_ROUND: samples,
        MetaKey.INITIAL_METRICS: {"val_accuracy": accuracy},
        TRAIN_METRICS: {"train_loss": 1.5},
        **more_meta,
    }
    return DXO(DataKind.WEIGHT_DIFF, data={"w": np.zeros(10, np.float32)}, meta=meta).to_shareable()


def contribute(engine: Engine, site: str, result: Shareable, task: str = "train") -> None:
    sent = {FLContextKey.TASK_DATA: update(0, 0), FLContextKey.TASK_NAME: task}
    fire(engine, EventType.AFTER_TASK_DATA_FILTER, site, **sent)
    fire(engine, EventType.BEFORE_TASK_RESULT_FILTER, site, **{FLContextKey.TASK_RESULT: result})
    names = {FLContextKey.TASK_RESULT: result, FLContextKey.TASK_NAME: task}
    fire(engine, EventType.AFTER_TASK_RESULT_FILTER, site, **names)
    if result.get_return_code() == ReturnCode.OK:
        fire(engine, AppEventType.AFTER_CONTRIBUTION_ACCEPT, site, **{AppConstants.TRAINING_RESULT: result})


def events(engine: Engine) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (engine.run_dir / "progress.jsonl").read_text().splitlines()]


def test_a_round_with_one_failed_site(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    rounds = {AppConstants.CURRENT_ROUND: 2, AppConstants.NUM_ROUNDS: 5}
    fire(engine, EventType.START_RUN)
    fire(engine, AppEventType.ROUND_STARTED)
    contribute(engine, "site-1", update(0.25, 30))
    failed = make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR, headers={ReservedHeaderKey.ERROR: "NaN in w"})
    contribute(engine, "site-2", failed)
    with caplog.at_level("INFO"):
        fire(engine, AppEventType.ROUND_DONE, **rounds)

    started, error, done = events(engine)
    assert (started["sites"], started["workflows"], started["job"]) == (["site-1", "site-2"], ["sag"], "test")
    assert (error["event"], error["site"], error["task"], error["reason"]) == (
        "site_error",
        "site-2",
        "train",
        "NaN in w",
    )
    assert (done["round"], done["num_rounds"]) == (3, 5)
    assert (done["upload_bytes"], done["download_bytes"]) == (40, 80)
    counts = {"upload_bytes": 40, "download_bytes": 40, "dense_upload_bytes": 40, "dense_download_bytes": 40}
    assert done["sites"] == {
        "site-1": {"samples": 30, "received": {"val_accuracy": 0.25}, "train": {"train_loss": 1.5}, **counts}
    }
    assert done["uncounted"] == {"site-2": {**counts, "upload_bytes": 0, "dense_upload_bytes": 0}}
    assert done["failed"] == {"site-2": "NaN in w"}
    line = next(record.getMessage() for record in caplog.records if "round 3/5" in record.getMessage())
    assert "received val_accuracy 0.250  1/2 sites" in line
    assert "without site-2" in line


def test_an_update_that_the_aggregator_did_not_take_counts_as_failed(engine: Engine) -> None:
    """Such as a sparse one in a dense job; one more from a site whose update was taken is no failure."""
    fire(engine, EventType.START_RUN)
    fire(engine, AppEventType.ROUND_STARTED)
    contribute(engine, "site-1", update(0.25, 30))
    for site in ("site-1", "site-2"):
        props = {AppConstants.TRAINING_RESULT: update(0.5, 10), AppConstants.AGGREGATION_ACCEPTED: False}
        fire(engine, AppEventType.AFTER_CONTRIBUTION_ACCEPT, site, **props)
    fire(engine, AppEventType.ROUND_DONE, **{AppConstants.CURRENT_ROUND: 0, AppConstants.NUM_ROUNDS: 1})
    done = events(engine)[-1]
    assert list(done["sites"]) == ["site-1"]
    assert done["failed"] == {"site-2": NOT_AGGREGATED}


def test_the_log_line_shows_the_change_since_the_last_round(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    fire(engine, EventType.START_RUN)
    with caplog.at_level("INFO"):
        for index, (first, second) in enumerate([(0.2, 0.5), (0.4, 0.7)]):
            fire(engine, AppEventType.ROUND_STARTED)
            contribute(engine, "site-1", update(first, 20))
            contribute(engine, "site-2", update(second, 10))
            rounds = {AppConstants.CURRENT_ROUND: index, AppConstants.NUM_ROUNDS: 2}
            fire(engine, AppEventType.ROUND_DONE, **rounds)
    lines = [r.getMessage() for r in caplog.records if "2/2 sites" in r.getMessage()]
    assert "received val_accuracy 0.300  " in lines[0]  # (20 * 0.2 + 10 * 0.5) / 30
    assert "received val_accuracy 0.500 (+0.200)  " in lines[1]


def test_scores_of_held_out_writers_are_written_by_site(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """In the log their mean over writers, whatever the samples: (3 * 0.2 + 1 * 0.6) / 4 and (3 * 0.5 + 1 * 0.9) / 4."""
    first = {"writers": 3, "initial_accuracy": 0.2, "personalized_accuracy": 0.5, "initial_loss": float("nan")}
    second = {"writers": 1, "initial_accuracy": 0.6, "personalized_accuracy": 0.9, "note": "text"}
    fire(engine, EventType.START_RUN)
    fire(engine, AppEventType.ROUND_STARTED)
    contribute(engine, "site-1", update(0.2, 20, **{EVALUATED: first}), "meta_train")
    contribute(engine, "site-2", update(0.2, 0, **{EVALUATED: second}), "meta_train")
    with caplog.at_level("INFO"):
        fire(engine, AppEventType.ROUND_DONE, **{AppConstants.CURRENT_ROUND: 0, AppConstants.NUM_ROUNDS: 1})
    sites = events(engine)[-1]["sites"]
    assert sites["site-1"]["evaluated"] == {"writers": 3, "initial_accuracy": 0.2, "personalized_accuracy": 0.5}
    assert sites["site-2"]["evaluated"] == {"writers": 1, "initial_accuracy": 0.6, "personalized_accuracy": 0.9}
    lines = [record.getMessage() for record in caplog.records if "round 1/1" in record.getMessage()]
    assert "meta_train round 1/1  " in lines[0]
    assert "held-out writers 0.300 -> 0.600  2/2 sites" in lines[0]


@pytest.mark.parametrize("evaluated", [None, np.zeros(2), "text"])
def test_what_are_no_scores_of_writers_is_left_out(engine: Engine, evaluated: object) -> None:
    fire(engine, EventType.START_RUN)
    fire(engine, AppEventType.ROUND_STARTED)
    contribute(engine, "site-1", update(0.2, 20, **{EVALUATED: evaluated}))
    fire(engine, AppEventType.ROUND_DONE, **{AppConstants.CURRENT_ROUND: 0, AppConstants.NUM_ROUNDS: 1})
    assert "evaluated" not in events(engine)[-1]["sites"]["site-1"]


def test_a_round_has_the_name_of_the_task_that_was_sent(engine: Engine) -> None:
    """Two workflows may both have a round 1, and FLARE names no task when a round is done."""
    fire(engine, EventType.START_RUN)
    for task in ("train", "meta_train"):
        fire(engine, AppEventType.ROUND_STARTED)
        contribute(engine, "site-1", update(0.2, 20), task)
        fire(engine, AppEventType.ROUND_DONE, **{AppConstants.CURRENT_ROUND: 0, AppConstants.NUM_ROUNDS: 1})
    assert [(event["task"], event["round"]) for event in events(engine)[1:]] == [("train", 1), ("meta_train", 1)]


def test_best_fatal_and_end_are_written(engine: Engine) -> None:
    fire(engine, EventType.START_RUN)
    selection = {"best_round": 4, "best_metrics": {"val_accuracy": 0.5}}
    fire(engine, AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, **{AppConstants.METRICS_SELECTION_INFO: selection})
    fire(engine, EventType.FATAL_SYSTEM_ERROR, **{FLContextKey.EVENT_DATA: "disk full"})
    fire(engine, EventType.END_RUN)
    best, fatal, end = events(engine)[1:]
    assert (best["event"], best["round"], best["metric"], best["value"]) == ("best", 4, "val_accuracy", 0.5)
    assert (fatal["event"], fatal["reason"]) == ("fatal", "disk full")
    assert end["event"] == "job_ended"


def test_a_workflow_that_an_abort_cuts_short_has_not_finished(engine: Engine) -> None:
    """FLARE fires the same events then as after one that has."""
    abort = Signal()
    fire(engine, EventType.START_RUN)
    for name in ("train", "fine_tune"):
        context = {FLContextKey.WORKFLOW: name, ReservedKey.RUN_ABORT_SIGNAL: abort}
        fire(engine, EventType.START_WORKFLOW, **context)
        if name == "fine_tune":
            abort.trigger(True)
        fire(engine, EventType.END_WORKFLOW, **context)
    fire(engine, EventType.END_RUN)
    seen = [(event["event"], event.get("workflow")) for event in events(engine)[1:]]
    assert seen == [
        ("workflow_started", "train"),
        ("workflow_finished", "train"),
        ("workflow_started", "fine_tune"),
        ("job_ended", None),
    ]


def test_a_failure_after_the_last_round_is_written_too(engine: Engine) -> None:
    fire(engine, EventType.START_RUN)
    fire(engine, AppEventType.ROUND_STARTED)
    contribute(engine, "site-1", update(0.2, 20))
    fire(engine, AppEventType.ROUND_DONE, **{AppConstants.CURRENT_ROUND: 0, AppConstants.NUM_ROUNDS: 1})
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "no test split"})
    names = {FLContextKey.TASK_RESULT: failed, FLContextKey.TASK_NAME: "validate"}
    fire(engine, EventType.AFTER_TASK_RESULT_FILTER, "site-1", **names)
    last = events(engine)[-1]
    assert (last["event"], last["task"], last["reason"]) == ("site_error", "validate", "no test split")


@pytest.mark.parametrize(("train", "written"), [(0, []), (9, ["site-1"])])
def test_a_site_that_only_scores_has_no_model_and_that_is_no_failure(
    engine: Engine, train: int, written: list[str]
) -> None:
    fire(engine, EventType.START_RUN)
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(SAMPLES, {"site-1": {"train": train}}, private=True, sticky=True)
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "no model"})
    names = {FLContextKey.TASK_RESULT: failed, FLContextKey.TASK_NAME: "submit_model"}
    fire(engine, EventType.AFTER_TASK_RESULT_FILTER, "site-1", **names)
    assert [event["site"] for event in events(engine) if event["event"] == "site_error"] == written


def test_a_result_sent_twice_is_no_failure_and_a_mended_one_none_either(engine: Engine) -> None:
    refused = make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR, headers={ReservedHeaderKey.ERROR: "again"})
    fire(engine, EventType.START_RUN)
    fire(engine, AppEventType.ROUND_STARTED)
    contribute(engine, "site-1", update(0.2, 20))
    contribute(engine, "site-1", refused)
    contribute(engine, "site-2", refused)
    contribute(engine, "site-2", update(0.2, 20))
    fire(engine, AppEventType.ROUND_DONE, **{AppConstants.CURRENT_ROUND: 0, AppConstants.NUM_ROUNDS: 1})
    assert events(engine)[-1]["failed"] == {}
    assert list(events(engine)[-1]["sites"]) == ["site-1", "site-2"]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"val_accuracy": np.float32(0.5), "label": "a", "bad": float("nan"), "flag": True}, {"val_accuracy": 0.5}),
        (0.25, {"metric": 0.25}),
        (None, {}),
    ],
)
def test_only_finite_numbers_are_written(metrics: object, expected: dict[str, float]) -> None:
    assert numbers(metrics) == expected


def test_weighted_mean_by_hand() -> None:
    metrics = {"b": {"x": 4.0}, "a": {"x": 1.0, "y": 2.0}}
    assert weighted_mean(metrics, {"a": 3, "b": 1}) == {"x": 1.75, "y": 2.0}
    assert weighted_mean({"a": {"x": 1.0}}, {"a": 0}) == {"x": 1.0}


def test_an_admin_who_asks_for_stats_gets_the_progress_so_far(engine: Engine) -> None:
    def asked() -> bytes:
        collector = GroupInfoCollector()
        fire(engine, InfoCollector.EVENT_TYPE_GET_STATS, **{InfoCollector.CTX_KEY_STATS_COLLECTOR: collector})
        return progress.unpack(collector.info[progress.STATS][progress.PACKED])

    assert asked() == b""
    fire(engine, EventType.START_RUN)
    assert [json.loads(line)["event"] for line in asked().splitlines()] == ["job_started"]
    fire(engine, EventType.START_WORKFLOW, **{FLContextKey.WORKFLOW: "sag"})
    assert asked() == (engine.run_dir / "progress.jsonl").read_bytes()
    fire(engine, InfoCollector.EVENT_TYPE_GET_STATS)  # nobody collects


def test_the_log_is_not_filled_by_who_asks_for_stats(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    fire(engine, EventType.START_RUN)
    logger = logging.getLogger("nvflare.app_common.workflows.cross_site_model_eval.CrossSiteModelEval")
    logger.warning("[identity=server] - No formatter provided. Validation results can't be printed.")
    logger.warning("something else")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == ["something else"]


def test_a_file_is_not_written_through_a_link_in_its_place(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "results.json"
    victim.write_text("mine")
    path.symlink_to(victim)
    (tmp_path / f".results.json.{os.getpid()}").symlink_to(victim)
    progress.write_atomically(path, "{}")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("mine", "{}", False)
