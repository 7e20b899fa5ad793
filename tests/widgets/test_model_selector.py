# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""ModelSelector with the events of ScatterAndGather; means by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContextManager
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from custom.widgets.model_selector import ModelSelector
from tests.support import Engine, arrays

Metrics = dict[str, Any]


class Rounds:
    """A server with a selector; each call of `round` is one round of training."""

    def __init__(self, folder: Path, selector: ModelSelector) -> None:
        self.selector = selector
        self.engine = Engine(folder, {"selector": selector}, ["site-1", "site-2"])
        self.best: list[tuple[int, float]] = []
        self.fire(EventType.START_RUN)

    def fire(self, event: str, site: str = "", **props: Any) -> None:
        with self.engine.new_context() as fl_ctx:
            if site:
                fl_ctx.set_peer_context(FLContextManager(identity_name=site, job_id="job").new_context())
            for name, value in props.items():
                fl_ctx.set_prop(name, value, private=True, sticky=False)
            self.engine.fire_event(event, fl_ctx)
            if event == AppEventType.BEFORE_AGGREGATION and self.engine.events[-1][0] != event:
                info = fl_ctx.get_prop(AppConstants.METRICS_SELECTION_INFO)
                if info and self.engine.events[-1][0] == AppEventType.GLOBAL_BEST_MODEL_AVAILABLE:
                    self.best.append((info["best_round"], *info["best_metrics"].values()))

    def round(self, number: int, sites: dict[str, Metrics], samples: dict[str, float], refused: str = "") -> None:
        self.fire(AppEventType.ROUND_STARTED)
        for site, metrics in sites.items():
            meta = {MetaKey.INITIAL_METRICS: metrics, MetaKey.NUM_STEPS_CURRENT_ROUND: samples[site]}
            result = DXO(DataKind.WEIGHT_DIFF, data=arrays(w=[1]), meta=meta).to_shareable()
            props = {AppConstants.TRAINING_RESULT: result, AppConstants.AGGREGATION_ACCEPTED: site != refused}
            self.fire(AppEventType.AFTER_CONTRIBUTION_ACCEPT, site, **props)
        self.fire(AppEventType.BEFORE_AGGREGATION, **{AppConstants.CURRENT_ROUND: number})

    def run(self, metric: str, *values: float) -> list[tuple[int, float]]:
        for number, value in enumerate(values):
            self.round(number, {"site-1": {metric: value}}, {"site-1": 1})
        return self.best


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("val_loss", (9.0, 3.0, 1.0, 2.0), [(1, 3.0), (2, 1.0)]),
        ("val_accuracy", (0.9, 0.5, 0.4, 0.7), [(1, 0.5), (3, 0.7)]),
    ],
)
def test_the_best_round_by_direction(tmp_path, metric, values, best):
    """Round 0 scores the initial model, which is never the best."""
    assert Rounds(tmp_path, ModelSelector(metric)).run(metric, *values) == best


def test_an_unknown_metric_has_the_direction_that_is_set(tmp_path):
    assert Rounds(tmp_path, ModelSelector("mystery", True)).run("mystery", 9, 3, 1, 2) == [(1, 3), (2, 1)]


def test_the_mean_is_the_reports(tmp_path):
    """AUC by pairs: (0.9 * 9 + 0.6 * 1) / 10; by samples it would be 0.7."""
    rounds = Rounds(tmp_path, ModelSelector("val_auc"))
    sites = {
        "site-1": {"val_auc": 0.9, "val_positives": 1, "val_negatives": 9},
        "site-2": {"val_auc": 0.6, "val_positives": 1, "val_negatives": 1},
    }
    rounds.round(1, sites, {"site-1": 1, "site-2": 2})
    assert rounds.best == [(1, pytest.approx(0.87))]


def test_a_refused_update_does_not_count(tmp_path):
    rounds = Rounds(tmp_path, ModelSelector())
    scores = {"site-1": {"val_accuracy": 0.5}, "site-2": {"val_accuracy": 0.9}}
    rounds.round(1, scores, {"site-1": 1, "site-2": 1}, refused="site-2")
    assert rounds.best == [(1, 0.5)]


def test_a_metric_that_no_site_reports_ends_the_job_in_its_first_round(tmp_path):
    rounds = Rounds(tmp_path, ModelSelector("val_f1"))
    rounds.round(0, {"site-1": {"val_accuracy": 0.5, "val_positives": 3}}, {"site-1": 1})
    assert "[metric-unknown]" in rounds.engine.panic()
    assert "they report val_accuracy" in rounds.engine.panic()


def test_a_site_without_the_metric_does_not_end_the_job_once_it_was_reported(tmp_path):
    rounds = Rounds(tmp_path, ModelSelector("val_auc"))
    rounds.round(0, {"site-1": {"val_auc": 0.5}}, {"site-1": 1})
    rounds.round(1, {"site-1": {"val_accuracy": 0.5}}, {"site-1": 1})
    assert rounds.engine.panic() == ""
    assert rounds.best == []


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"key_metric": "val_loss", "negate_key_metric": False}, "negate_key_metric"),
        ({"key_metric": "val_accuracy", "negate_key_metric": True}, "negate_key_metric"),
        ({"key_metric": "val_mystery"}, "negate_key_metric"),
        ({"negate_key_metric": "yes"}, "negate_key_metric"),
        ({"weigh_by_local_iter": False}, "weigh_by_local_iter"),
        ({"key_metric": 3}, "key_metric"),
        ({"key_metric": ""}, "key_metric"),
    ],
)
def test_wrong_settings_end_the_job_at_its_start(tmp_path, arguments, key):
    reason = Rounds(tmp_path, ModelSelector(**arguments)).engine.panic()
    assert key in reason
    assert "[setting-value]" in reason


def test_no_site_of_three_chooses_the_best_round(tmp_path):
    """A liar says 1.0 of a poor model and 0 of a good one, with a thousand times its samples."""
    rounds = Rounds(tmp_path, ModelSelector())
    for number, (honest, other, lie) in enumerate(((0.1, 0.1, 0.1), (0.3, 0.2, 1.0), (0.9, 0.8, 0.0)), start=0):
        scores = {f"site-{n}": {"val_accuracy": value} for n, value in enumerate((honest, other, lie), start=1)}
        rounds.round(number, scores, {"site-1": 10, "site-2": 10, "site-3": 10_000})
    assert rounds.best == [(1, 0.3), (2, 0.8)]


def test_of_two_sites_it_is_the_mean_of_the_table(tmp_path):
    """(0.9 + 3 * 0.5) / 4"""
    rounds = Rounds(tmp_path, ModelSelector())
    rounds.round(1, {"site-1": {"val_accuracy": 0.9}, "site-2": {"val_accuracy": 0.5}}, {"site-1": 1, "site-2": 3})
    assert rounds.best == [(1, pytest.approx(0.6))]
