# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""CheckUpdate with real Shareables, contexts and FLARE's own `apply_filters`; expected values by hand."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.utils.task_utils import apply_filters
from nvflare.app_common.app_constant import AppConstants
from nvflare.private.privacy_manager import Scope

from custom.aggregators.weighted import WeightedAggregator
from custom.compression import wire
from custom.errors import BundleError
from custom.filters.check_update import CheckUpdate
from custom.keys import POSITIONS, SAMPLES, WRITERS
from tests.filters.flare_contexts import Server, submission

MODEL = {"w": np.zeros(2, np.float32), "b": np.zeros(1, np.float32), "count": np.array(3, np.int64)}
BIAS = {"b": np.zeros(1, np.float32)}
SITES = ("site-1", "site-2", "site-3")


def diff(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array(values, np.float32)} | BIAS


def send(
    check: CheckUpdate, server: Server, result: Shareable, task_id: str = "", task_name: str = "train"
) -> Shareable:
    """Through the filter, the way ServerRunner calls it."""
    fl_ctx = server.context(result.get_peer_prop(ReservedKey.IDENTITY_NAME, "?"), task_id, task_name)
    return apply_filters(Scope.TASK_RESULT_FILTERS_NAME, result, fl_ctx, {"train/in": [check]}, "train", "in")


def send_round(check: CheckUpdate, server: Server, current_round: int, *norms: float, sites=SITES) -> list[str]:
    """One update of each norm from each site in turn; returns the return codes."""
    updates = [submission(site, current_round, diff(0, norm)) for site, norm in zip(sites, norms, strict=True)]
    return [send(check, server, update).get_return_code() for update in updates]


def error(reply: Shareable) -> str:
    assert reply.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    with pytest.raises(ValueError, match="not a valid DXO"):
        from_shareable(reply)
    return reply.get_header(ReservedHeaderKey.ERROR)


def test_a_good_update_passes_unchanged():
    check = CheckUpdate()
    for metrics in ({"val_accuracy": 0.5}, 0.5, None):
        result = submission("site-1", 0, diff(3, 4), 10, metrics)
        assert send(check, Server(MODEL, workflow=str(metrics)), result) is result
        assert result.get_return_code() == ReturnCode.OK
    assert check.counts == {}


def test_no_weight_above_what_was_reported_at_the_start():
    """Of a site that reported nothing: above the largest that any did."""
    server, check = Server(MODEL), CheckUpdate()
    server.set(SAMPLES, {"site-1": {"train": 30}, "site-2": {"train": 20}, "site-4": {}})
    for site, most in (("site-1", 30), ("site-2", 20), ("site-3", 30), ("site-4", 30)):
        assert "weight" in error(send(check, server, submission(site, 0, diff(1, 1), most + 1)))
        assert send(check, server, submission(site, 0, diff(1, 1), most)).get_return_code() == ReturnCode.OK


def draw(check: CheckUpdate, server: Server, site: str, current_round: int, places: list[int] | None) -> None:
    """The event with which ServerRunner says that the filters are through with the task that it sends to a site."""
    task = Shareable()
    task.add_cookie(AppConstants.CONTRIBUTION_ROUND, current_round)
    if places is not None:
        task.set_header(WRITERS, places)
    fl_ctx = server.context(site)
    fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
    check.handle_event(EventType.AFTER_TASK_DATA_FILTER, fl_ctx)


@pytest.mark.parametrize(
    ("task", "site", "places", "most"),
    [
        ("train", "site-1", [3, 4], 14),  # 2 writers of at most 7 samples
        ("train", "site-2", [0, 1, 2], 20),  # 3 of at most 9, who have 20 in all
        ("train", "site-3", [0], 9),  # who said nothing: the largest that is known
        ("meta_train", "site-1", [3, 4], 2),
        ("train", "site-1", [], 0),
        ("meta_train", "site-1", [], 0),
        ("train", "site-1", None, 30),  # the task names no writers: all samples of the site
    ],
)
def test_no_weight_above_that_of_the_writers_drawn(task, site, places, most):
    server, check = Server(MODEL), CheckUpdate(writers_weigh_one=["meta_train"])
    server.set(SAMPLES, {"site-1": {"train": 30, "largest_writer": 7}, "site-2": {"train": 20, "largest_writer": 9}})
    draw(check, server, site, 0, places)
    assert f"a number from 0 to {most}" in error(
        send(check, server, submission(site, 0, diff(1, 1), most + 1), task_name=task)
    )
    good = submission(site, 0, diff(1, 1) if most else {}, most)
    assert send(check, server, good, task_name=task).get_return_code() == ReturnCode.OK


def test_a_draw_counts_for_its_own_round_site_and_workflow():
    server, check = Server(MODEL, workflow="fed_avg"), CheckUpdate()
    server.set(SAMPLES, {site: {"train": 30, "largest_writer": 7} for site in SITES})
    draw(check, server, "site-1", 0, [0])
    for site, current_round, workflow in (("site-2", 0, "fed_avg"), ("site-1", 0, "other"), ("site-1", 1, "fed_avg")):
        server.enter(current_round, workflow)
        good = submission(site, current_round, diff(1, 1), 30)
        assert send(check, server, good).get_return_code() == ReturnCode.OK


BAD = {
    "kind": {"diff": diff(1, 1), "data_kind": DataKind.WEIGHTS},
    "weight": {"diff": diff(1, 1), "weight": math.nan},
    "no_data": {"diff": {}, "weight": 5},
    "missing_key": {"diff": BIAS},
    "extra_key": {"diff": diff(1, 1) | {"count": np.array(1, np.int64)}},
    "dtype": {"diff": BIAS | {"w": np.ones(2)}},
    "shape": {"diff": diff(1, 1, 1)},
    "not_finite": {"diff": diff(1, math.nan)},
    "metrics": {"diff": diff(1, 1), "metrics": {"val_loss": math.inf}},
    "stale_round": {"diff": diff(1, 1), "current_round": 0},
}


@pytest.mark.parametrize("reason", sorted(BAD))
def test_every_refusal_is_typed_logged_once_and_counted(reason, caplog):
    """In round 2 (FLARE's 1)."""
    server, check = Server(MODEL), CheckUpdate()
    send_round(check, server, 0, 1, 1, 1)
    server.enter(1)
    result = submission(**{"site": "site-2", "current_round": 1} | BAD[reason])
    result.set_header(AppConstants.JOB_STATS_CLIENT_TELEMETRY, {"update_size_mb": 1.5})
    with caplog.at_level(logging.INFO):
        reply = send(check, server, result)
    assert error(reply).startswith("site-2 round 2")
    assert check.counts == {reason: 1}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"update refused ({reason}): site-2 round 2" in caplog.text
    assert reply.get_cookie(AppConstants.CONTRIBUTION_ROUND) == result.get_cookie(AppConstants.CONTRIBUTION_ROUND)
    assert reply.get_peer_prop(ReservedKey.IDENTITY_NAME, None) == "site-2"
    assert reply.get_header(AppConstants.JOB_STATS_CLIENT_TELEMETRY) == {"update_size_mb": 1.5}
    # A refused update leaves no trace: the site may still send a good one.
    assert send(check, server, submission("site-2", 1, diff(1, 1))).get_return_code() == ReturnCode.OK


def test_what_is_not_a_dxo_is_refused():
    result = Shareable({"weights": 1})
    result.add_cookie(AppConstants.CONTRIBUTION_ROUND, 0)
    assert "expected WEIGHT_DIFF" in error(send(CheckUpdate(), Server(MODEL), result))


def test_a_second_update_of_a_round_is_a_duplicate_but_a_repetition_is_no_fault(caplog):
    server, check = Server(MODEL), CheckUpdate()
    assert send(check, server, submission("site-1", 0, diff(1, 1)), "task").get_return_code() == ReturnCode.OK
    with caplog.at_level(logging.INFO):
        assert "again" in error(send(check, server, submission("site-1", 0, diff(1, 1)), "task"))
        assert "accepted before" in error(send(check, server, submission("site-1", 0, {}, 0), "other task"))
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert check.counts == {"resent": 1, "duplicate": 1}
    assert send(check, server, submission("site-2", 0, diff(1, 1))).get_return_code() == ReturnCode.OK


def test_nothing_to_contribute_is_accepted():
    server, check = Server(MODEL), CheckUpdate()
    assert send(check, server, submission("site-1", 0, {}, 0)).get_return_code() == ReturnCode.OK
    assert send_round(check, server, 0, 0, sites=("site-2",)) == [ReturnCode.OK]


def test_no_norm_is_too_large_by_itself_as_long_as_it_is_a_number():
    """How it stands among the others is for the aggregator to see; 1e200 squared is beyond float64."""
    server, check = Server({"w": np.zeros(2)}), CheckUpdate()
    for site, value, code in (("site-1", 1e150, ReturnCode.OK), ("site-2", 1e200, ReturnCode.TASK_RESULT_FILTER_ERROR)):
        result = submission(site, 0, {"w": np.array([value, 0])})
        assert send(check, server, result).get_return_code() == code
    assert check.counts == {"norm": 1}


def test_workflows_that_follow_one_another_have_their_own_rounds():
    server, check = Server(MODEL), CheckUpdate()
    for current_round, workflow in ((0, "train_1"), (0, "train_2"), (5, "train_3")):
        server.enter(current_round, workflow)
        assert send_round(check, server, current_round, 1, 500, 1) == [ReturnCode.OK] * 3
    assert send_round(check, server, 5, 1, sites=("site-1",)) == [ReturnCode.TASK_RESULT_FILTER_ERROR]


def test_a_failed_site_passes_unchanged():
    result = make_reply(ReturnCode.EXECUTION_EXCEPTION, {ReservedHeaderKey.ERROR: "round 1: out of memory"})
    result.set_peer_props({ReservedKey.IDENTITY_NAME: "site-3"})
    check = CheckUpdate()
    assert send(check, Server(MODEL), result) is result
    assert check.counts == {}


@pytest.mark.parametrize("key", [AppConstants.GLOBAL_MODEL, AppConstants.CURRENT_ROUND])
def test_without_a_global_model_nothing_is_accepted(key):
    server, check = Server(MODEL), CheckUpdate()
    server.set(key, None)
    assert "bind CheckUpdate to the training task" in error(send(check, server, submission("site-1", 0, diff(1, 1))))
    assert check.counts == {"no_model": 1}


def test_partial_updates_where_a_job_allows_them():
    server, check = Server(MODEL), CheckUpdate(allow_partial=True)
    assert send(check, server, submission("site-1", 0, BIAS)).get_return_code() == ReturnCode.OK


def sparse(site: str, current_round: int, *values: float, kept=(1,), weight: float = 1) -> Shareable:
    payload = wire.encode(diff(*values), {"w": np.array(kept, np.int32)})
    result = submission(site, current_round, payload.values, weight)
    from_shareable(result).set_meta_prop(POSITIONS, payload.positions)
    return result


def test_a_sparse_update_is_checked_as_a_dense_one():
    """b is not sent, and not missing."""
    server, check = Server(MODEL), CheckUpdate()
    for site in SITES:
        result = sparse(site, 0, 50, 1)
        assert send(check, server, result) is result
    server.enter(1)
    assert send(check, server, sparse("site-1", 1, 50, 9)).get_return_code() == ReturnCode.OK
    assert "accepted before" in error(send(check, server, sparse("site-1", 1, 50, 9)))
    assert "weight 0, but" in error(send(check, server, sparse("site-2", 1, 50, 1, weight=0)))
    assert "an empty update" in error(send(check, server, sparse("site-2", 1, 50, 1, kept=())))
    assert "trained on: expected round 2" in error(send(check, server, sparse("site-2", 0, 50, 1)))
    assert sorted(check.counts) == ["duplicate", "no_data", "stale_round", "weight"]


def test_a_damaged_sparse_update_is_refused():
    server, check = Server(MODEL), CheckUpdate()
    damaged = sparse("site-2", 0, 50, 1)
    from_shareable(damaged).get_meta_prop(POSITIONS)["tensors"]["w"][2] = b""
    assert error(send(check, server, damaged)).startswith("site-2 round 1 w: a stream of 0 bytes")
    not_finite = sparse("site-2", 0, 50, 1)
    from_shareable(not_finite).data["w"][0] = math.nan
    assert "w: 1 of 1 values are NaN" in error(send(check, server, not_finite))
    assert check.counts == {"positions": 1, "not_finite": 1}
    assert send(check, server, sparse("site-2", 0, 50, 1)).get_return_code() == ReturnCode.OK


def test_start_run_forgets_everything():
    server, check = Server(MODEL), CheckUpdate()
    send_round(check, server, 0, 1, math.nan, 1)
    check.handle_event(EventType.START_RUN, server.context())
    assert check.counts == {}
    assert send_round(check, server, 0, 1, 1, 1) == [ReturnCode.OK] * 3


@pytest.mark.parametrize(
    "arguments",
    [{"max_weight": 0}, {"max_weight": math.nan}, {"max_weight": -1}],
)
def test_bad_arguments(arguments):
    with pytest.raises(BundleError, match="expected a number"):
        CheckUpdate(**arguments).check()


def test_tasks_come_as_a_list():
    with pytest.raises(BundleError, match="writers_weigh_one: expected a list of tasks, got 'meta_train'"):
        CheckUpdate(writers_weigh_one="meta_train").check()


FAULTS = st.sampled_from([None, *(reason for reason in sorted(BAD) if reason != "stale_round")])


@settings(max_examples=100, deadline=None)
@given(faults=st.lists(st.tuples(st.sampled_from(SITES), FAULTS), max_size=12))
def test_a_refused_update_never_reaches_the_sum(faults):
    """Site i sends a diff of i with weight i or one of the faults; the mean is over the first good one of each."""
    server, check, aggregator = Server(MODEL), CheckUpdate(), WeightedAggregator()
    send_round(check, server, 0, 1, 1, 1)
    server.enter(1)
    good = set()
    for site, fault in faults:
        number = int(site[-1])
        sent = {"diff": diff(number, 0), "weight": number} | ({} if fault is None else BAD[fault])
        reply = send(check, server, submission(site, 1, **sent))
        if reply.get_return_code() == ReturnCode.OK:
            assert aggregator.accept(reply, server.context(site))
            assert fault is None
            good.add(number)
    assert sum(check.counts.values()) == len(faults) - len(good)
    result = from_shareable(aggregator.aggregate(server.context()))
    if not good:
        assert result.data == {}
    else:
        expected = sum(number * number for number in good) / sum(good)
        np.testing.assert_allclose(result.data["w"], [expected, 0], rtol=1e-6)


NORM = {"bn.running_mean": np.zeros(1, np.float32), "bn.running_var": np.ones(1, np.float32)}


def with_statistics(norm: float, mean: float, variance: float) -> dict[str, np.ndarray]:
    values = {"bn.running_mean": mean, "bn.running_var": variance}
    return diff(0, norm) | {name: np.array([value], np.float32) for name, value in values.items()}


def test_statistics_of_a_sparse_update_are_whole():
    """So that each entry can be compared with the others': Sparsify sends them so."""
    model = {"bn.running_mean": np.zeros(2, np.float32)}
    for kept, code in (([0, 1], ReturnCode.OK), ([1], ReturnCode.TASK_RESULT_FILTER_ERROR)):
        payload = wire.encode({"bn.running_mean": np.ones(2, np.float32)}, {"bn.running_mean": np.array(kept)})
        result = submission("site-1", 0, payload.values)
        from_shareable(result).set_meta_prop(POSITIONS, payload.positions)
        check = CheckUpdate()
        assert send(check, Server(model), result).get_return_code() == code
    assert check.counts == {"statistics": 1}


@pytest.mark.parametrize(("variance", "refused"), [(-1.0, False), (-0.5, False), (-1.001, False), (-1.1, True)])
def test_a_negative_variance_is_refused(variance, refused):
    """The model's is 1: a change of -1 makes 0, and a hundredth below is rounding."""
    check = CheckUpdate()
    reply = send(check, Server(MODEL | NORM), submission("site-1", 0, with_statistics(1, 0, variance)))
    assert (reply.get_return_code() != ReturnCode.OK) is refused
    assert check.counts == ({"statistics": 1} if refused else {})
    if refused:
        assert "[update-statistics]" in error(reply)
