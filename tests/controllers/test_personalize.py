# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Personalize: what it makes of the sites' scores."""

from __future__ import annotations

import csv
import json

import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, make_reply
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from controllers.personalize import Personalize, summarise
from custom.errors import BundleError
from custom.keys import ROUNDS_BEFORE
from tests.support import Engine, arrays, run_controller

SITE_1 = {
    "dropped": 1,
    "support": [5, 6],
    "query": [5, 7],
    "unseen": [1, 0],
    "initial_loss": [1.0, 2.0],
    "initial_accuracy": [0.6, 0.8],
    "personalized_loss": [0.5, 1.5],
    "personalized_accuracy": [0.9, 0.7],
}
SITE_2 = {"dropped": 0} | {name: values[:1] for name, values in SITE_1.items() if name != "dropped"}
EMPTY = {"dropped": 0} | {name: [] for name in SITE_1 if name != "dropped"}


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path, {}, ["site-1", "site-2"])
    with engine.new_context() as fl_ctx:
        model = make_model_learnable(arrays(w=[1.0]), {})
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=True)
    return engine


def run(engine, replies, controller=None):
    run_controller(engine, controller or Personalize(timeout_s=2), lambda site, task, data: replies[site])


def metrics(data):
    return DXO(DataKind.METRICS, data=data).to_shareable()


def result(engine):
    return json.loads((engine.run_dir / "personalize.json").read_text())


def test_summary_by_hand():
    """Accuracy 0.6, 0.8, 0.6 -> 0.9, 0.7, 0.9: gains 0.3, -0.1, 0.3."""
    summary = summarise({"site-1": SITE_1, "site-2": SITE_2})
    assert (summary["writers"], summary["dropped"]) == (3, 1)
    assert summary["initial"]["accuracy"]["mean"] == pytest.approx(2 / 3)
    assert summary["initial"]["accuracy"]["std"] == pytest.approx((0.04 / 3) ** 0.5)  # (1 + 1 + 4) / 9 / 100 * 4 / 2
    assert summary["initial"]["accuracy"]["p90"] == pytest.approx(0.76)  # 0.6 + 0.8 * (0.8 - 0.6)
    assert summary["personalized"]["loss"]["mean"] == pytest.approx(2.5 / 3)
    assert summary["gain"]["mean"] == pytest.approx(0.5 / 3)
    assert summary["gain"]["std"] == pytest.approx((0.16 / 3) ** 0.5)
    assert summary["gain"]["standard_error"] == pytest.approx(0.4 / 3)
    assert summary["harmed"] == pytest.approx(1 / 3)
    assert (summary["query_samples"], summary["unseen_query_samples"]) == (17, 2)  # 5 + 7 + 5, 1 + 0 + 1
    assert summary["unseen_query_share"] == pytest.approx(2 / 17)


def test_files_and_event(engine):
    controller = Personalize(timeout_s=2, target_accuracy=0.9)
    for workflow in ("fed_avg", "fed_avg", "meta_train"):
        with engine.new_context() as fl_ctx:
            fl_ctx.set_prop(FLContextKey.WORKFLOW, workflow)
            controller.handle_event(AppEventType.ROUND_DONE, fl_ctx)
    run(engine, {"site-1": metrics(SITE_1), "site-2": metrics(SITE_2)}, controller)
    written = result(engine)
    assert written["sites"] == {"site-1": SITE_1, "site-2": SITE_2}
    assert written["rounds"] == {"fed_avg": 2, "meta_train": 1}
    assert written["target_accuracy"] == 0.9
    assert written["failed"] == {}
    (event,) = [json.loads(line) for line in (engine.run_dir / "progress.jsonl").read_text().splitlines()]
    assert event["event"] == "personalized"
    assert written.items() <= event.items()
    rows = list(csv.DictReader((engine.run_dir / "personalize.csv").open()))
    assert [(row["site"], row["writer"], row["query"]) for row in rows] == [
        ("site-1", "0", "5"),
        ("site-1", "1", "7"),
        ("site-2", "0", "5"),
    ]
    assert float(rows[1]["personalized_accuracy"]) == 0.7
    assert engine.panic() == ""


def test_the_rounds_of_a_continued_job_count(engine):
    controller = Personalize(timeout_s=2)
    with engine.new_context() as fl_ctx:
        fl_ctx.set_prop(ROUNDS_BEFORE, {"fed_avg": 20, "meta_train": 2}, private=True, sticky=True)
        fl_ctx.set_prop(FLContextKey.WORKFLOW, "meta_train")
        controller.handle_event(AppEventType.ROUND_DONE, fl_ctx)
    run(engine, {"site-1": metrics(SITE_1), "site-2": metrics(SITE_2)}, controller)
    assert result(engine)["rounds"] == {"fed_avg": 20, "meta_train": 3}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({**SITE_2, "query": [5, 7]}, "lists of one length"),
        ({**SITE_2, "initial_loss": [float("nan")]}, "metric initial_loss"),
        ({**SITE_2, "initial_loss": ["low"]}, "metric initial_loss"),
        ({**SITE_2, "personalized_accuracy": [1e9]}, "metric personalized_accuracy"),
        ({**SITE_2, "query": [0]}, "numbers of query samples"),
        ({**SITE_2, "unseen": [6]}, "of unseen classes"),
        ({**SITE_2, "unseen": [0.5]}, "numbers of unseen samples"),
        ({**SITE_2, "names": ["f0001_41"]}, "expected dropped, and lists named support, query"),
        ({"initial_loss": [1.0]}, "expected dropped, and lists named"),
        ({**SITE_2, "query": 5}, "expected dropped, and lists named"),
        ({**SITE_2, "dropped": -1}, "number of dropped writers"),
    ],
)
def test_a_reply_that_is_not_scores_is_refused_and_the_others_count(engine, data, reason):
    run(engine, {"site-1": metrics(SITE_1), "site-2": metrics(data)})
    told = result(engine)["failed"]["site-2"]
    assert reason in told
    assert told.endswith("[update-metrics]")
    assert result(engine)["summary"]["writers"] == 2
    assert engine.panic() == ""


def test_a_site_that_fails_or_never_answers_is_named(engine):
    error = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "no disk"})
    run(engine, {"site-1": error, "site-2": None}, Personalize(timeout_s=1))
    assert result(engine)["failed"] == {"site-1": "no disk", "site-2": "no reply to personalize within 1 s"}
    assert "no held-out writer was scored (site-1: no disk; site-2: no reply" in engine.panic()


def test_a_site_without_held_out_writers_is_no_failure(engine):
    run(engine, {"site-1": metrics(SITE_1), "site-2": metrics(EMPTY)})
    assert result(engine)["failed"] == {}
    assert engine.panic() == ""


def test_no_writer_anywhere_ends_the_job(engine):
    run(engine, {"site-1": metrics(EMPTY), "site-2": metrics(EMPTY)})
    assert "no site has any" in engine.panic()


def test_without_a_model_the_job_ends_at_once(tmp_path):
    engine = Engine(tmp_path, {}, ["site-1"])
    run(engine, {})
    assert "put this workflow after training" in engine.panic()


@pytest.mark.parametrize("settings", [{"timeout_s": 0}, {"target_accuracy": 1.5}, {"target_accuracy": "high"}])
def test_bad_settings_are_named(settings):
    with pytest.raises(BundleError, match=next(iter(settings))):
        Personalize(**settings).check()
