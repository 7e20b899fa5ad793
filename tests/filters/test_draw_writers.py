# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which writers train in a round."""

from __future__ import annotations

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from custom.errors import BundleError
from custom.filters.draw_writers import DrawWriters, draw
from custom.keys import SAMPLES, WRITERS
from custom.learning.seed import Seed
from tests.support import Engine

COUNTS = {"site-1": 30, "site-2": 0, "site-3": 12}


def union(drawn, counts):
    """Places in the list of all writers."""
    first, found = 0, []
    for site in sorted(counts):
        found += [first + place for place in drawn[site]]
        first += counts[site]
    return found


def test_the_same_writers_however_they_are_spread():
    spread = union(draw(COUNTS, 20, seed=7), COUNTS)
    assert spread == draw({"only": 42}, 20, seed=7)["only"]
    assert len(set(spread)) == 20


def test_places_are_the_sites_own():
    drawn = draw(COUNTS, 42, seed=0)
    assert drawn == {"site-1": list(range(30)), "site-2": [], "site-3": list(range(12))}


def test_every_writer_has_the_same_chance():
    """10 of 40 in 2,000 draws: 500 times each, with a standard deviation of 19."""
    times = [0] * 40
    for seed in range(2000):
        for place in draw({"a": 40}, 10, seed)["a"]:
            times[place] += 1
    assert min(times) > 400
    assert max(times) < 600


def test_more_than_there_are():
    with pytest.raises(
        BundleError, match=r"writers_per_round: expected at most the 42 training writers of the 3 sites"
    ):
        draw(COUNTS, 43, seed=0)


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path, {"seed": Seed(5)}, sorted(COUNTS))
    with engine.new_context() as fl_ctx:
        facts = {site: {"training_writers": count} for site, count in COUNTS.items()}
        fl_ctx.set_prop(SAMPLES, facts, private=True, sticky=True)
    return engine


def process(engine, site, round_index, task="train", number=20):
    shared = Shareable()
    shared.set_header(AppConstants.CURRENT_ROUND, round_index)
    with engine.new_context() as fl_ctx:
        fl_ctx.set_peer_context(Engine(engine.run_dir / site, {}, [site], site).new_context())
        fl_ctx.set_prop(FLContextKey.TASK_NAME, task)
        result = DrawWriters(number).process(shared, fl_ctx)
    assert shared.get_header(WRITERS) is None, "all sites share this one"
    assert result.get_header(AppConstants.CURRENT_ROUND) == round_index
    return result.get_header(WRITERS)


def test_a_site_is_told_its_own_writers(engine):
    drawn = {site: process(engine, site, 3) for site in (*COUNTS, "site-9")}
    assert len(drawn["site-1"]) + len(drawn["site-3"]) == 20
    assert drawn["site-2"] == []
    assert drawn["site-9"] == [], "a site that did not say what it has"


def test_draws_differ_by_round_and_task_and_not_by_run(engine):
    first = process(engine, "site-1", 0)
    assert process(engine, "site-1", 0) == first
    assert process(engine, "site-1", 1) != first
    assert process(engine, "site-1", 0, task="meta_train") != first


def start_round(engine, number):
    component = DrawWriters(number)
    engine.components["draw"] = component
    with engine.new_context() as fl_ctx:
        engine.fire_event(AppEventType.ROUND_STARTED, fl_ctx)
    return engine.panic()


def test_the_job_ends_before_training_if_there_are_too_few(engine):
    assert "at most the 42 training writers of the 3 sites, got 43" in start_round(engine, 43)


def test_the_job_goes_on_if_there_are_enough(engine):
    assert start_round(engine, 42) == ""
    assert EventType.FATAL_SYSTEM_ERROR not in [kind for kind, _ in engine.events]


def test_a_wrong_order_of_workflows_is_named(tmp_path):
    assert "InitializeGlobalWeights before" in start_round(Engine(tmp_path, {"seed": Seed()}, ["a"]), 1)


def test_a_missing_seed_is_named(engine):
    del engine.components["seed"]
    assert "a component seed" in start_round(engine, 1)
