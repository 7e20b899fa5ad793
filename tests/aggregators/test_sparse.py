# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""SparseAggregator: numbers by hand, and WeightedAggregator over densified updates as the reference."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from custom.aggregators import sparse
from custom.aggregators.sparse import SparseAggregator
from custom.aggregators.weighted import WeightedAggregator, weighted_mean
from custom.compression import wire
from custom.errors import BundleError
from custom.keys import POSITIONS, TAKEN_ROUND
from tests.filters.flare_contexts import Server, submission

A, B = [10, 5, 1, 0.1], [0.1, 1, 5, 10]
VECTOR = {"w": np.zeros(4, np.float32)}


def payload(
    site: str, kept: dict[str, list[int]], weight: float = 1, current_round: int = 0, **update: Any
) -> Shareable:
    """What a site sends of an update: the entries `kept`."""
    arrays = {name: np.array(value, np.float32) for name, value in update.items()}
    indices = {name: np.array(kept[name], np.int32) for name in arrays}
    return packed(site, arrays, indices, weight, current_round)


def packed(site: str, update: dict, indices: dict, weight: float, current_round: int = 0) -> Shareable:
    values, positions = wire.encode(update, indices)
    result = submission(site, current_round, values, weight)
    from_shareable(result).set_meta_prop(POSITIONS, positions)
    return result


def half(absent: str, weights: tuple[float, float] = (1, 1)) -> list[float]:
    server, aggregator = Server(VECTOR), SparseAggregator(absent)
    send(aggregator, server, payload("site-1", {"w": [0, 1]}, weights[0], w=A))
    send(aggregator, server, payload("site-2", {"w": [2, 3]}, weights[1], w=B))
    return mean(aggregator, server)["w"].tolist()


def send(aggregator: Any, server: Server, result: Shareable) -> bool:
    site = result.get_peer_prop(ReservedKey.IDENTITY_NAME, "")
    return aggregator.accept(result, server.context(site))


def mean(aggregator: Any, server: Server) -> dict[str, np.ndarray]:
    return from_shareable(aggregator.aggregate(server.context())).data


def test_what_is_absent_is_zero_or_not_counted():
    """Half of each is kept: [10, 5, ., .] and [., ., 5, 10]. Weights 1 and 3: (1 * 10 + 3 * 0) / 4 = 2.5 and so on."""
    assert half("zero_update") == [5, 2.5, 2.5, 5]
    assert half("not_counted") == [10, 5, 5, 10]
    assert half("zero_update", (1, 3)) == [2.5, 1.25, 3.75, 7.5]
    assert half("not_counted", (1, 3)) == [10, 5, 5, 10]


@pytest.mark.parametrize(
    ("absent", "w", "b"), [("zero_update", [2.5, 0, 0.75, 4], 1.75), ("not_counted", [2.5, 0, 3, 16 / 3], 7)]
)
def test_where_sites_overlap(absent, w, b):
    """site-1 (weight 1) sends w0 = 1 and w3 = 4, site-2 (1) w0 = 9, w2 = 3 and b = 7, site-3 (2) w0 = 0 and w3 = 6.

    zero_update: w0 (1 + 9 + 0) / 4, w2 3 / 4, w3 (4 + 12) / 4, b 7 / 4. not_counted: w2 3, w3 (4 + 12) / 3, b 7.
    """
    server = Server(VECTOR | {"b": np.zeros((), np.float32), "count": np.array(3)})
    aggregator = SparseAggregator(absent)
    assert send(aggregator, server, payload("site-1", {"w": [0, 3]}, w=[1, 0, 0, 4]))
    assert send(aggregator, server, payload("site-2", {"w": [0, 2], "b": [0]}, w=[9, 0, 3, 0], b=7))
    assert send(aggregator, server, payload("site-3", {"w": [0, 3]}, 2, w=[0, 0, 0, 6]))
    assert send(aggregator, server, submission("site-4", 0, {}, 0))
    result = mean(aggregator, server)
    assert result.keys() == {"w", "b"}
    assert result["w"].tolist() == np.array(w, np.float32).tolist()
    assert (result["b"].tolist(), result["b"].shape, result["b"].dtype) == (b, (), np.float32)


@pytest.mark.parametrize(("absent", "w", "b"), [("zero_update", [5, 0.25], 3), ("not_counted", [5, 2], 7)])
def test_sites_that_do_not_sparsify(absent, w, b):
    """site-1 (weight 1) sends w = [2, 2] densely and no b, site-2 (3) w0 = 10 and b = 7, site-3 (4) w0 = 2.

    w0 (2 + 30 + 8) / 8; w1 2 / 8, or 2 / 1. What a dense update leaves out is not counted: b 21 / (3 + 4), or 21 / 3.
    """
    server = Server({"w": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)})
    aggregator = SparseAggregator(absent, max_norm_ratio=None)
    assert send(aggregator, server, submission("site-1", 0, {"w": np.array([2, 2], np.float32)}, 1))
    assert send(aggregator, server, payload("site-2", {"w": [0], "b": [0]}, 3, w=[10, 0], b=[7]))
    assert send(aggregator, server, payload("site-3", {"w": [0]}, 4, w=[2, 0]))
    result = mean(aggregator, server)
    assert (result["w"].tolist(), result["b"].tolist()) == (w, [b])


def random_updates(dtype: Any = np.float32) -> dict[str, tuple[dict[str, np.ndarray], float]]:
    """Of several shapes, with zeros of both signs."""
    rng = np.random.default_rng(0)
    shapes = {"w": (7, 11), "scale": (), "none": (0, 3), "v": (16,)}
    updates = {}
    for site, weight in (("site-1", 7), ("site-10", 3001), ("site-2", 0.3)):
        update = {name: np.asarray(rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}
        update["w"][:3], update["w"][0, :5] = 0, -0.0
        updates[site] = (update, weight)
    return updates


@pytest.mark.parametrize("piece", [4, 11, 1 << 17])
@pytest.mark.parametrize("absent", sparse.ABSENT)
@pytest.mark.parametrize("form", ["dense", "all kept", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_where_everything_is_sent_the_mean_is_the_dense_one_bit_for_bit(form, absent, piece, dtype, monkeypatch):
    monkeypatch.setattr(sparse, "PIECE", piece)
    updates = random_updates(dtype)
    server = Server({name: np.zeros_like(value) for name, value in updates["site-1"][0].items()})
    ours, reference = SparseAggregator(absent), WeightedAggregator()
    for site, (update, weight) in updates.items():
        assert send(reference, server, submission(site, 0, update, weight))
        if form == "dense" or (form == "both" and site == "site-10"):
            assert send(ours, server, submission(site, 0, update, weight))
        else:
            everything = {name: np.arange(value.size) for name, value in update.items()}
            assert send(ours, server, packed(site, update, everything, weight))
    got, expected = (aggregator.aggregate(server.context()) for aggregator in (ours, reference))
    got, expected = from_shareable(got), from_shareable(expected)
    assert got.meta == expected.meta
    for name in expected.data if form == "dense" else expected.data.keys() - {"none"}:  # nothing of it can be sent
        assert got.data[name].tobytes() == expected.data[name].tobytes()
        assert (got.data[name].shape, got.data[name].dtype) == (expected.data[name].shape, dtype)


@pytest.mark.parametrize("piece", [5, 1 << 17])
@pytest.mark.parametrize("absent", sparse.ABSENT)
def test_agrees_with_densified_updates_whatever_the_order_of_arrival(absent, piece, monkeypatch):
    monkeypatch.setattr(sparse, "PIECE", piece)
    rng, results, dense, sent = np.random.default_rng(1), {}, {}, {}
    for site, (update, weight) in random_updates().items():
        kept = {name: np.flatnonzero(rng.random(value.size) < 0.3).tolist() for name, value in update.items()}
        results[site] = payload(site, kept, weight, **update)
        dense[site] = {name: np.zeros_like(value) for name, value in update.items()}
        sent[site] = {name: np.zeros_like(value) for name, value in update.items()}
        for name, indices in kept.items():
            dense[site][name].flat[indices] = update[name].flat[indices]
            sent[site][name].flat[indices] = 1
    weights = {site: weight for site, (_, weight) in random_updates().items()}
    expected = weighted_mean((weights[site], dense[site]) for site in sorted(dense))
    share = weighted_mean((weights[site], {n: s.astype(float) for n, s in sent[site].items()}) for site in sorted(sent))
    server, seen = Server({name: np.zeros_like(value) for name, value in dense["site-1"].items()}), set()
    for order in itertools.permutations(results):
        aggregator = SparseAggregator(absent)
        for site in order:
            assert send(aggregator, server, results[site])
        got = mean(aggregator, server)
        seen.add(b"".join(got[name].tobytes() for name in sorted(got)))
    assert len(seen) == 1
    for name, value in got.items():
        if absent == "zero_update":
            assert np.array_equal(value, expected[name])
        else:
            with np.errstate(invalid="ignore"):
                np.testing.assert_allclose(value, np.nan_to_num(expected[name] / share[name]), rtol=1e-5)


def flip(values: dict, sent: dict) -> None:
    """One of the two ones in the bitmap goes: two values for one position."""
    coding, parameter, stream, shape = sent["tensors"]["w"]
    sent["tensors"]["w"] = [coding, parameter, bytes([stream[0] & (stream[0] - 1)]) + stream[1:], shape]


BAD = {
    "version": ("payload", lambda values, sent: sent.update(version=2)),
    "extra_key": (
        "v",
        lambda values, sent: (values.update(v=values["w"]), sent["tensors"].update(v=sent["tensors"]["w"])),
    ),
    "shape": ("w", lambda values, sent: sent["tensors"]["w"].__setitem__(3, [2, 2])),
    "positions": ("w", flip),
    "format": ("w", lambda values, sent: sent["tensors"].update(w=["kept", 99, b"", [4]])),
    "not_finite": ("w", lambda values, sent: values["w"].__setitem__(0, np.nan)),
    "count": ("w", lambda values, sent: values.update(w=np.ones(5, np.float32))),
    "unpaired": ("w", lambda values, sent: values.clear() or values.update(b=np.ones(1, np.float32))),
    "dtype": ("w", lambda values, sent: values.update(w=values["w"].astype(float))),
    "no_data": ("", lambda values, sent: (values.clear(), sent["tensors"].clear())),
}


@pytest.mark.parametrize("reason", [*BAD, "truncated"])
def test_a_damaged_payload_changes_nothing_and_the_round_goes_on(reason, caplog):
    server, aggregator = Server(VECTOR, current_round=6), SparseAggregator()
    assert send(aggregator, server, payload("site-1", {"w": [0, 1]}, current_round=6, w=A))
    damaged = payload("site-2", {"w": [2, 3]}, current_round=6, w=B)
    key, damage = BAD.get(reason, ("w", lambda values, sent: sent["tensors"]["w"].__setitem__(2, b"")))
    dxo = from_shareable(damaged)
    damage(dxo.data, dxo.get_meta_prop(POSITIONS))
    assert not send(aggregator, server, damaged)
    reason = "positions" if reason == "truncated" else reason
    assert f"update not aggregated ({reason}): site-2 round 7" in caplog.text
    assert key in caplog.text
    assert send(aggregator, server, payload("site-3", {"w": [2, 3]}, current_round=6, w=B))
    assert mean(aggregator, server)["w"].tolist() == [5, 2.5, 2.5, 5]


def test_a_dense_update_is_checked_too(caplog):
    server, aggregator = Server(VECTOR), SparseAggregator()
    assert not send(aggregator, server, submission("site-1", 0, {"w": np.ones(3, np.float32)}))
    assert "(shape): site-1 round 1 w: expected (4,), got (3,)" in caplog.text


def test_a_dense_aggregator_refuses_sparse_updates(caplog):
    """Added up entry by entry, values of different places would make a model of the right shape."""
    aggregator = WeightedAggregator()
    assert not send(aggregator, Server(VECTOR), payload("site-1", {"w": [0, 1]}, w=A))
    assert "(kind): site-1 round 1: expected a dense update" in caplog.text
    assert "name custom.aggregators.sparse.SparseAggregator" in caplog.text


def told(aggregator: SparseAggregator, server: Server, site: str, cookie: int | None = 0) -> Any:
    task = DXO("WEIGHTS", data=dict(VECTOR)).to_shareable()
    if cookie is not None:
        task.add_cookie(AppConstants.CONTRIBUTION_ROUND, cookie)
    fl_ctx = server.context(site)
    fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
    aggregator.handle_event(EventType.BEFORE_TASK_DATA_FILTER, fl_ctx)
    return task.get_header(TAKEN_ROUND)


def test_each_site_is_told_of_its_own_last_update_in_a_mean():
    """site-1 is in the mean of rounds 0 and 2, site-2 in that of 0, site-3 has nothing to contribute."""
    server, aggregator = Server(VECTOR), SparseAggregator()
    sites = ("site-1", "site-2", "site-3")
    for current_round, senders in enumerate([sites[:2], (), sites[:1]]):
        server.enter(current_round)
        for site in senders:
            assert send(aggregator, server, payload(site, {"w": [0]}, 1, current_round, w=A))
        assert send(aggregator, server, submission("site-3", current_round, {}, 0))
        aggregator.aggregate(server.context())
    assert send(aggregator, server, payload("site-2", {"w": [0]}, 1, 2, w=A))  # too late: the round has its mean
    aggregator.reset(server.context())
    assert [told(aggregator, server, site) for site in sites] == [2, 0, -1]
    assert told(aggregator, server, "site-1", cookie=None) is None  # no training task
    server.enter(0, "another workflow")
    assert [told(aggregator, server, site) for site in sites] == [-1, -1, -1]
    server.enter(0)
    aggregator.handle_event(EventType.START_RUN, server.context())
    assert told(aggregator, server, "site-1") == -1


def test_what_a_failed_round_held_is_not_taken():
    server, aggregator = Server(VECTOR), SparseAggregator(min_contributions=2)
    assert send(aggregator, server, payload("site-1", {"w": [0]}, w=A))
    assert mean(aggregator, server) == {}
    assert told(aggregator, server, "site-1") == -1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"absent": "zero"}, "SparseAggregator absent: expected zero_update or not_counted, got zero"),
        ({"min_contributions": 0}, "SparseAggregator min_contributions: expected a whole number"),
    ],
)
def test_bad_arguments(arguments, message):
    aggregator, server = SparseAggregator(**arguments), Server(VECTOR)
    with pytest.raises(BundleError, match=message):
        aggregator.check()
    aggregator.handle_event(EventType.START_RUN, server.context())
    assert message in dict(server.engine.events)[EventType.FATAL_SYSTEM_ERROR]


def spread(update: dict[str, Any], kept: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """What a sparse update stands for."""
    dense = {name: np.zeros_like(value) for name, value in update.items()}
    for name, indices in kept.items():
        dense[name].reshape(-1)[indices] = update[name].reshape(-1)[indices]
    return dense


@pytest.mark.parametrize("rule", ["geometric_median", "multi_krum"])
def test_a_robust_rule_gives_for_sparse_updates_what_it_gives_for_the_dense_ones_that_they_stand_for(rule):
    rng = np.random.default_rng(3)
    model = {
        "w": np.zeros((4, 5), np.float32),
        "v": np.zeros(6, np.float32),
        "bn.running_mean": np.zeros(2, np.float32),
    }
    sparse_server, dense_server = Server(model), Server(model)
    sparse_aggregator, dense_aggregator = SparseAggregator(rule=rule), WeightedAggregator(rule=rule)
    for number in range(1, 7):
        update = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in model.items()}
        if number == 4:
            update = {name: value * np.float32(-1e6) for name, value in update.items()}
        kept = {
            name: sorted(rng.choice(value.size, 4, replace=False).tolist())
            for name, value in model.items()
            if value.size > 2
        }
        kept["bn.running_mean"] = [0, 1]
        indices = {name: np.array(places, np.int32) for name, places in kept.items()}
        site = f"site-{number}"
        assert send(sparse_aggregator, sparse_server, packed(site, update, indices, number))
        assert send(dense_aggregator, dense_server, submission(site, 0, spread(update, kept), number))
    got, expected = mean(sparse_aggregator, sparse_server), mean(dense_aggregator, dense_server)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6)
        assert np.abs(value).max() < 10


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_a_rule_of_single_entries_is_refused_before_the_job_leaves(rule):
    with pytest.raises(BundleError) as caught:
        SparseAggregator(rule=rule).check()
    assert (caught.value.code, caught.value.key) == ("setting-value", "SparseAggregator rule")
    SparseAggregator(rule="geometric_median").check()
