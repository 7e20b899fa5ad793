# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""RobustAggregator as FLARE calls it; numbers by hand."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants

from custom.aggregators.robust import RobustAggregator
from custom.aggregators.weighted import WeightedAggregator
from custom.compression import wire
from custom.errors import BundleError
from custom.keys import POSITIONS
from custom.learning.coordinate_wise import Median, TrimmedMean
from custom.learning.geometric_median import GeometricMedian
from custom.learning.krum import Krum
from custom.progress import FILE_NAME
from tests.filters.flare_contexts import Server, submission

MODEL = {"w": np.zeros(2, np.float32), "count": np.array(3)}
HOSTILE = (1e30, -1e30)


class Federation(Server):
    """Five sites, and a run folder; its server is in round 7."""

    def __init__(self, folder: Path, sites: int = 5) -> None:
        super().__init__(MODEL, current_round=6)
        self.folder = folder
        self.engine.get_clients = lambda: [SimpleNamespace(name=f"site-{k}") for k in range(1, sites + 1)]  # type: ignore[attr-defined]
        self.engine.get_workspace = lambda: SimpleNamespace(get_run_dir=lambda job_id: str(folder))  # type: ignore[attr-defined]

    def send(self, aggregator: Any, number: int, *values: float, weight: float = 1, **more: Any) -> bool:
        site = f"site-{number}"
        result = submission(site, 6, {"w": np.array(values, np.float32)} | more, weight)
        return self.accept(aggregator, site, result)

    def accept(self, aggregator: Any, site: str, result: Shareable) -> bool:
        return bool(aggregator.accept(result, self.context(site)))

    def mean(self, aggregator: Any) -> dict[str, Any]:
        data = from_shareable(aggregator.aggregate(self.context())).data
        return {name: value.tolist() for name, value in data.items()}

    def fatal(self) -> str:
        return str(dict(self.engine.events).get(EventType.FATAL_SYSTEM_ERROR, ""))

    def warnings(self) -> list[str]:
        path = self.folder / FILE_NAME
        return [json.loads(line)["reason"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Median(), [3, 2]),
        (TrimmedMean(1), [3, 2]),
        (Krum(1), [2, 2]),
        (Krum(1, 3), [2, 2]),
        (GeometricMedian(), [3, 2]),
    ],
)
def test_a_hostile_site_is_borne(rule, expected, federation):
    """The others send (1, 2), (2, 2), (3, 2) and (4, 2): median of entry 0 is 3, and so is the mean of 2, 3 and 4.

    Krum: the others' two nearest are 1 and 2, 1 and 1, 1 and 1, 1 and 2 away: site-2 (2) first, then site-4 (3), then
    site-1 (1) before site-5 (4), so the mean of three is 2. Geometric median: at (3, 2) the others pull by (-1 - 1 + 1,
    0) and site-3 by (1, -1) / sqrt 2, in all less than the 1 with which the point itself holds it.
    """
    aggregator = RobustAggregator(rule)
    for number, value in ((1, 1), (2, 2), (4, 3), (5, 4)):
        assert federation.send(aggregator, number, value, 2, weight=number)
    assert federation.send(aggregator, 3, *HOSTILE, weight=1e6)
    assert federation.mean(aggregator)["w"] == pytest.approx(expected, abs=0.05)


def test_the_mean_is_not(federation):
    aggregator = WeightedAggregator(max_norm_ratio=None)
    for number in (1, 2, 4, 5):
        assert federation.send(aggregator, number, 1, 2)
    assert federation.send(aggregator, 3, *HOSTILE)
    assert abs(federation.mean(aggregator)["w"][0]) > 1e29


STATISTICS = {"bn.running_mean": np.zeros(1, np.float32), "bn.running_var": np.ones(1, np.float32)}


def statistics(mean: float, variance: float) -> dict[str, Any]:
    return {"bn.running_mean": np.array([mean], np.float32), "bn.running_var": np.array([variance], np.float32)}


@pytest.mark.parametrize(
    "aggregator",
    [
        RobustAggregator(Median()),
        RobustAggregator(TrimmedMean()),
        RobustAggregator(Krum()),
        RobustAggregator(GeometricMedian()),
        RobustAggregator(max_norm=1.0),
        RobustAggregator(Krum(), max_norm=1.0),
    ],
    ids=["median", "trimmed", "krum", "geometric", "clip", "krum and clip"],
)
@pytest.mark.parametrize("poison", [(1e30, 1e30), (-1e30, -1e30), (0, -5)])
def test_poisoned_statistics_alone_do_no_harm(aggregator, poison, federation):
    """The others change the mean by 1 to 4, and a variance of 1 by 0.1 to 0.4; all send the same weights, of norm 5."""
    federation.set(AppConstants.GLOBAL_MODEL, make_model_learnable(MODEL | STATISTICS, {}))
    for number in (1, 2, 4, 5):
        value = number if number < 3 else number - 1
        assert federation.send(aggregator, number, 3, 4, **statistics(value, value / 10))
    assert federation.send(aggregator, 3, 3, 4, **statistics(*poison))
    mean = federation.mean(aggregator)
    assert mean["w"] == pytest.approx([0.6, 0.8] if aggregator.max_norm else [3, 4])
    assert 1 <= mean["bn.running_mean"][0] <= 4
    assert 0.1 - 1e-6 <= mean["bn.running_var"][0] <= 0.4 + 1e-6


def test_large_statistics_are_no_reason_to_clip(federation, caplog):
    federation.set(AppConstants.GLOBAL_MODEL, make_model_learnable(MODEL | STATISTICS, {}))
    aggregator = RobustAggregator(max_norm=5.0)
    with caplog.at_level(logging.INFO):
        for number in (1, 2, 3):
            assert federation.send(aggregator, number, 3, 4, **statistics(1000, 1000))
    assert "clipped" not in caplog.text
    assert federation.mean(aggregator) == {"w": [3, 4], "bn.running_mean": [1000], "bn.running_var": [1000]}


def test_the_order_of_arrival_does_not_change_a_bit(federation):
    rng = np.random.default_rng(0)
    sent = {number: rng.normal(size=2) for number in range(1, 6)}
    for rule in (Median(), TrimmedMean(), Krum(), GeometricMedian()):
        seen = set()
        for order in itertools.islice(itertools.permutations(sent), 0, 120, 17):
            aggregator = RobustAggregator(rule, max_norm=1)
            for number in order:
                assert federation.send(aggregator, number, *sent[number], weight=number)
            seen.add(str(federation.mean(aggregator)))
        assert len(seen) == 1


def test_clipping_alone_by_hand(federation):
    """Sun et al.: (3, 4) of norm 5 becomes (0.6, 0.8); (0, 0.5) stays. Weights 1 and 3: (0.6, 0.8 + 1.5) / 4."""
    aggregator = RobustAggregator(max_norm=1)
    assert federation.send(aggregator, 1, 3, 4, weight=1)
    assert federation.send(aggregator, 2, 0, 0.5, weight=3)
    assert federation.mean(aggregator)["w"] == pytest.approx([0.15, 0.575])


def test_clipping_comes_before_the_rule(federation, caplog):
    """(3, 4) becomes (0.6, 0.8), (30, 40) too, and (0, 0) stays: the means are 1.2 / 3 and 1.6 / 3."""
    aggregator = RobustAggregator(Average(), max_norm=1)
    with caplog.at_level(logging.INFO):
        for number, values in ((1, (3, 4)), (2, (30, 40)), (3, (0, 0))):
            assert federation.send(aggregator, number, *values)
    assert federation.mean(aggregator)["w"] == pytest.approx([0.4, 1.6 / 3])
    assert "round 7: update of site-2 clipped from norm 50 to 1" in caplog.text
    assert "site-3 clipped" not in caplog.text


class Average:
    """A user's own rule."""

    min_updates = 1

    def check(self) -> None:
        pass

    def __call__(self, updates: Any, weights: Any) -> dict[str, np.ndarray]:
        return {name: np.mean([update[name] for update in updates], axis=0) for name in updates[0]}


def test_too_few_updates_leave_the_model_and_are_named_in_the_log_and_the_report(federation, caplog):
    aggregator = RobustAggregator(Krum(1))
    for number in (1, 2, 4, 5):
        assert federation.send(aggregator, number, 1, 2)
    assert federation.send(aggregator, 3, weight=0) is False  # tensors with weight 0 are no update
    assert federation.accept(aggregator, "site-3", submission("site-3", 6, {}, 0))
    assert federation.mean(aggregator) == {}
    expected = "round 7 Krum updates a round: expected at least 5, got 4 (site-1, site-2, site-4, site-5)"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert expected in caplog.text
    assert [text.startswith(expected) and text.endswith("stays as it is") for text in federation.warnings()] == [True]
    assert federation.fatal() == ""
    for number in range(1, 6):  # the next round is like any other
        assert federation.send(aggregator, number, 1, 2)
    assert federation.mean(aggregator) == {"w": [1, 2]}


def test_nobody_has_data(federation):
    aggregator = RobustAggregator(Median())
    assert federation.accept(aggregator, "site-1", submission("site-1", 6, {}, 0))
    assert federation.mean(aggregator) == {}
    assert federation.warnings() == []


def test_min_contributions_ends_the_job_as_ever(federation):
    aggregator = RobustAggregator(Median(), min_contributions=3)
    assert federation.send(aggregator, 1, 1, 2)
    assert federation.mean(aggregator) == {}
    assert "but min_contributions is 3" in federation.fatal()


@pytest.mark.parametrize(("sites", "ends"), [(5, False), (4, True)])
def test_a_job_with_too_few_sites_for_the_rule_ends_at_its_start(sites, ends, tmp_path):
    federation = Federation(tmp_path, sites)
    RobustAggregator(Krum(1)).handle_event(EventType.START_RUN, federation.context())
    expected = "Krum updates a round: expected at least 5, got 4 (site-1, site-2, site-3, site-4); a smaller byzantine"
    assert federation.fatal().startswith(expected) is ends


def test_what_it_refuses(federation, caplog):
    """Also where a job has no CheckUpdate."""
    aggregator = RobustAggregator(Median())
    assert not federation.send(aggregator, 1, 1, np.nan)
    assert not federation.send(aggregator, 1, 1, np.inf)
    assert not federation.send(aggregator, 1, 1, 2, 3)
    assert not federation.accept(aggregator, "site-1", submission("site-1", 6, {}, 4))
    assert not federation.send(aggregator, 1, 1, 2, weight=float("nan"))
    assert not federation.send(aggregator, 1, 1, 2, v=np.ones(1, np.float32))
    values, positions = wire.encode({"w": np.array([1, 2], np.float32)}, {"w": np.array([1])})
    sparse = submission("site-1", 6, values, 1)
    from_shareable(sparse).set_meta_prop(POSITIONS, positions)
    assert not federation.accept(aggregator, "site-1", sparse)
    assert federation.send(aggregator, 1, 1, 2)
    assert not federation.send(aggregator, 1, 1, 2)
    reasons = [record.message.split("(")[1].split(")")[0] for record in caplog.records]
    expected = ["not_finite", "not_finite", "shape", "no_data", "weight", "extra_key", "kind", "duplicate"]
    assert reasons == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "RobustAggregator: expected a rule or max_norm, got neither"),
        ({"max_norm": 0}, "RobustAggregator max_norm: expected a number above 0, got 0"),
        ({"max_norm": float("nan")}, "RobustAggregator max_norm: expected a number above 0, got nan"),
        ({"rule": "mode"}, "RobustAggregator rule: expected"),
        ({"rule": {"name": "Median"}}, "RobustAggregator rule: expected"),
        ({"rule": TrimmedMean(0)}, "byzantine: expected an integer of at least 1"),
        ({"rule": Krum(None)}, "byzantine: expected an integer of at least 1"),
        ({"rule": Median(), "min_contributions": 0}, "RobustAggregator min_contributions"),
    ],
)
def test_bad_settings_end_the_job_at_its_start(arguments, message, federation):
    aggregator = RobustAggregator(**arguments)
    with pytest.raises(BundleError, match=message):
        aggregator.check()
    aggregator.handle_event(EventType.START_RUN, federation.context())
    assert message in federation.fatal()


def test_a_rule_that_flare_has_not_built_yet_passes():
    """`bundle export` looks at settings before FLARE makes a component of the JSON; the rule is looked at by itself."""
    RobustAggregator({"path": "custom.learning.krum.Krum", "args": {"byzantine": 1}}).check()  # type: ignore[arg-type]
