# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Sparsify as FLARE calls it, with the server's end behind it; a new filter, as in a new process, in every round."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nvflare.apis.dxo import DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.filters.exclude_vars import ExcludeVars
from nvflare.app_common.filters.percentile_privacy import PercentilePrivacy

from custom.checks.update import Origin
from custom.compression import wire
from custom.compression.criteria import FinalMagnitude, Random
from custom.errors import BundleError
from custom.filters.sparsify import Sparsify
from custom.keys import POSITIONS, TAKEN_ROUND, TRAIN_METRICS
from custom.widgets.traffic import payload_bytes
from tests.filters.flare_contexts import submission
from tests.filters.sparse_federation import Federation
from tests.support import arrays


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, arrays(w=[0, 0, 0, 0]))


def sent(result: Shareable, model: dict[str, np.ndarray]) -> dict[str, list]:
    """What travelled, as lists; 0 elsewhere."""
    dxo = from_shareable(result)
    whole = {name: np.zeros_like(value) for name, value in model.items()}
    for name, entries in wire.decode(dxo.data, dxo.get_meta_prop(POSITIONS), model, Origin("?")).items():
        whole[name].flat[entries.indices] = entries.values
    return {name: value.tolist() for name, value in whole.items()}


def reason(reply: Shareable) -> str:
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    return reply.get_header(ReservedHeaderKey.ERROR)


@pytest.mark.parametrize(("absent", "expected"), [("zero_update", [5, 2.5, 2.5, 5]), ("not_counted", [10, 5, 5, 10])])
def test_a_round_from_end_to_end(tmp_path, absent, expected):
    federation = Federation(tmp_path, arrays(w=[1, 1, 1, 1]), absent)
    for site, update in {"site-2": [0.1, 1, 5, 10], "site-1": [10, 5, 1, 0.1]}.items():
        federation.deliver(site, federation.train(site, arrays(w=update)))
    assert federation.end_round()["w"].tolist() == expected
    assert federation.model["w"].tolist() == [value + 1 for value in expected]


def test_only_the_data_change_and_only_in_a_new_message(federation):
    update = arrays(w=[4, -1, 2, 8])
    result = submission("site-1", 0, update, 30, {"val_accuracy": 0.5})
    from_shareable(result).set_meta_prop(TRAIN_METRICS, {"train_loss": 1.5})
    result.set_header("telemetry", [1])
    reply = federation.train("site-1", result)
    dxo = from_shareable(reply)
    assert (dxo.data_kind, dxo.data["w"].tolist()) == (DataKind.WEIGHT_DIFF, [4, 8])
    assert (dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND), reply.get_header("telemetry")) == (30, [1])
    assert dxo.get_meta_prop(MetaKey.INITIAL_METRICS) == {"val_accuracy": 0.5}
    assert dxo.get_meta_prop(TRAIN_METRICS) == {"train_loss": 1.5}
    original = from_shareable(result)
    assert (original.data["w"] is update["w"], update["w"].tolist()) == (True, [4, -1, 2, 8])
    assert original.get_meta_prop(POSITIONS) is None


def test_what_the_server_took_is_dropped_and_what_it_refused_comes_back(federation):
    """By hand; keeps 2 of 4."""
    step = arrays(w=[1, 1, 1, 1])
    first = federation.train("site-1", arrays(w=[4, -1, 2, 8]))
    assert sent(first, federation.model)["w"] == [4, 0, 0, 8]  # held back: [., -1, 2, .]
    federation.deliver("site-1", first)
    federation.end_round()
    second = federation.train("site-1", step)
    assert sent(second, federation.model)["w"] == [1, 0, 3, 0]  # of [1, 0, 3, 1], ties to the lower; held: w3 = 1
    from_shareable(second).data["w"][0] = math.nan  # damaged on the way
    federation.deliver("site-1", second)
    assert federation.check.counts == {"not_finite": 1}
    federation.end_round()
    third = federation.train("site-1", step)
    assert sent(third, federation.model)["w"] == [2, 0, 4, 0]  # of [2, 1, 4, 2], all of it


def test_a_site_that_skips_a_round(federation):
    """site-2 gets no task in round 1; in round 2 it hears that its update of round 0 was taken. Weights 1, 1 and 2."""
    weights = {"site-1": 1, "site-2": 1, "site-3": 2}
    means = []
    for here in (("site-1", "site-2", "site-3"), ("site-1", "site-3"), ("site-1", "site-2", "site-3")):
        for site in here:
            update = arrays(w=[8, 0, 0, 4]) if site == "site-2" else arrays(w=[0, 0, 0, 0])
            federation.deliver(site, federation.train(site, update, weights[site], keep_fraction=0.25))
        means.append(federation.end_round()["w"].tolist())
    # Round 0: w0 = 8 / 4. Round 1: nothing. Round 2: site-2 has [8, 0, 0, 4 + 4] to send, of which w0 comes first.
    assert means == [[2, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]]
    assert federation.train("site-2", arrays(w=[0, 0, 0, 0]), keep_fraction=0.25).get_return_code() == ReturnCode.OK
    last = federation.train("site-2", arrays(w=[0, 0, 0, 0]), keep_fraction=0.25)
    assert sent(last, federation.model)["w"] == [0, 0, 0, 8]


def test_what_a_privacy_filter_lets_through_is_what_is_sent_and_held_back(federation):
    federation.scope.add_task_result_filter(ExcludeVars(["secret"]), "out")
    for w in ([4, 0, 0, 8], [0, -1, 2, 0]):  # secret is neither sent nor held back
        reply = federation.train("site-1", arrays(w=[4, -1, 2, 8] if w[0] else [0, 0, 0, 0], secret=[99]))
        assert sent(reply, federation.model) == {"w": w}
        federation.deliver("site-1", reply)
        federation.end_round()


def test_of_entries_that_a_privacy_filter_limited_to_one_size_exactly_k_are_sent(federation):
    """Limited to 1, three entries of four are of one size, and half of four is two: the first two of the three."""
    federation.scope.add_task_result_filter(PercentilePrivacy(percentile=0, gamma=1, data_kinds=["WEIGHT_DIFF"]), "out")
    for w in ([0, -1, 1, 0], [0.5, 0, 0, 1]):
        reply = federation.train("site-1", arrays(w=[0.5, -2, 3, 4] if w[1] else [0, 0, 0, 0]))
        assert sent(reply, federation.model) == {"w": w}
        federation.deliver("site-1", reply)
        federation.end_round()


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_over_many_rounds_what_was_taken_and_what_is_left_are_all_updates(tmp_path_factory, data):
    """Whole numbers add up exactly; a result may be lost, refused or taken, and a site may miss a round."""
    federation = Federation(tmp_path_factory.mktemp("run"), arrays(w=[0] * 12))
    total, taken = np.zeros(12), np.zeros(12)
    for _ in range(data.draw(st.integers(1, 5))):
        fate = data.draw(st.sampled_from(["taken", "refused", "lost", "missed"]))
        if fate != "missed":
            step = data.draw(hnp.arrays(np.float32, 12, elements=st.integers(-1000, 1000)))
            total += step
            value_type = data.draw(st.sampled_from(wire.VALUE_TYPES))
            result = federation.train("site-1", {"w": step}, keep_fraction=0.25, value_type=value_type)
            if fate == "refused":
                from_shareable(result).get_meta_prop(POSITIONS)["version"] = 0
                assert federation.deliver("site-1", result).get_return_code() != ReturnCode.OK
            elif fate == "taken":
                federation.deliver("site-1", result)
        taken += federation.end_round().get("w", 0)
    left = federation.train("site-1", {"w": np.zeros(12, np.float32)}, keep_fraction=1.0)
    assert (taken + sent(left, federation.model)["w"]).tolist() == total.tolist()


def test_a_task_that_comes_again_is_answered_again_and_not_twice(federation):
    """The result was lost on the way; a second training of the same round counts once, with what was sent."""
    task = federation.task("site-1")
    first, second = (federation.train("site-1", arrays(w=[4, -1, 2, 8]), task=task) for _ in range(2))
    assert sent(first, federation.model)["w"] == sent(second, federation.model)["w"] == [4, 0, 0, 8]
    federation.deliver("site-1", second)
    federation.end_round()
    assert sent(federation.train("site-1", arrays(w=[0, 0, 0, 0])), federation.model)["w"] == [0, -1, 2, 0]


def test_each_workflow_has_its_own_residual(federation):
    federation.train("site-1", arrays(w=[4, -1, 2, 8]))
    federation.server.enter(0, "../another")
    assert sent(federation.train("site-1", arrays(w=[0, 0, 0, 1])), federation.model)["w"] == [0, 0, 0, 1]
    files = [path.name for path in federation.engines["site-1"].run_dir.iterdir()]
    assert len([name for name in files if name.startswith("residual_")]) == 2


def test_without_error_feedback_nothing_is_kept_and_nothing_is_asked(federation):
    task = federation.task("site-1")
    task[ReservedHeaderKey.HEADERS].pop(TAKEN_ROUND)
    for _ in range(2):
        reply = federation.train("site-1", arrays(w=[4, -1, 2, 8]), task=task, error_feedback=False)
        assert sent(reply, federation.model)["w"] == [4, 0, 0, 8]
    assert list(federation.engines["site-1"].run_dir.iterdir()) == []
    assert "name custom.aggregators.sparse.SparseAggregator" in reason(
        federation.train("site-1", arrays(w=[4, -1, 2, 8]), task=task)
    )


def test_statistics_and_what_is_excluded_go_whole_and_never_twice(tmp_path):
    """A lost difference of running_var, added to the next one, would leave the server's variance below zero."""
    model = arrays(w=[0, 0, 0, 0], bn__running_var=[1, 1], bn__running_mean=[0, 0], head=[0, 0])
    federation = Federation(tmp_path, model)
    update = arrays(w=[4, -1, 2, 8], bn__running_var=[-0.9, 0], bn__running_mean=[1 / 3, 0], head=[0.1, 0])
    settings = {"exclude": ["head"], "value_type": "float16"}
    first = federation.train("site-1", update | {"bn.num_batches_tracked": np.array(3)}, **settings)
    federation.round = 1
    second = federation.train("site-1", update, **settings)
    for reply, w in ((first, [4, 0, 0, 8]), (second, [8, 0, 0, 16])):
        got = sent(reply, model)
        assert got == {name: update[name].tolist() for name in update} | {"w": w}
        values = from_shareable(reply).data
        assert (values["w"].dtype, values["head"].dtype) == (np.float16, np.float32)


def test_keeping_everything_is_dense_exchange(tmp_path):
    model = arrays(w=[[0, 0], [0, 0]], s=0)
    federation, update = Federation(tmp_path, model), arrays(w=[[4, -1], [2, 8]], s=3)
    for _ in range(2):
        federation.deliver("site-1", federation.train("site-1", update, keep_fraction=1.0))
        mean = federation.end_round()
        assert {name: value.tolist() for name, value in mean.items()} == {"w": [[4, -1], [2, 8]], "s": 3}


def test_warm_up_falls_geometrically(federation):
    """Of 4 entries: 4, 4 * 0.25 ** 0.5 = 2, then 1."""
    counts = []
    for _ in range(4):
        reply = federation.train("site-1", arrays(w=[4, -1, 2, 8]), keep_fraction=0.25, warmup_rounds=2)
        counts.append(from_shareable(reply).data["w"].size)
        federation.deliver("site-1", reply)
        federation.end_round()
    assert counts == [4, 2, 1, 1]


def test_scope_is_of_the_model_or_of_each_tensor(tmp_path):
    federation, update = Federation(tmp_path, arrays(v=[0, 0], w=[0, 0])), arrays(v=[9, 8], w=[1, 2])
    assert sent(federation.train("a", update), federation.model) == {"v": [9, 8], "w": [0, 0]}
    assert sent(federation.train("b", update, scope="tensor"), federation.model) == {"v": [9, 0], "w": [0, 2]}


def test_criteria_see_the_received_model_and_may_be_your_own(tmp_path):
    federation, update = Federation(tmp_path, arrays(w=[0, 9, 0, -5])), arrays(w=[4, -1, 2, 5])
    by = {"final": FinalMagnitude(), "own": lambda start, update, rng: -start}
    assert sent(federation.train("a", update, criterion=by["final"]), federation.model)["w"] == [4, -1, 0, 0]
    assert sent(federation.train("b", update, criterion=by["own"]), federation.model)["w"] == [4, 0, 0, 5]
    wrong = federation.train("c", update, criterion=lambda *_: 1 / 0)
    assert "ZeroDivisionError" in reason(wrong)


def test_chance_differs_by_site_and_round(tmp_path):
    federation = Federation(tmp_path, arrays(w=[0] * 100))
    seen = []
    for _ in range(2):
        for site in ("site-1", "site-2"):
            reply = federation.train(site, arrays(w=[1] * 100), criterion=Random(), error_feedback=False)
            seen.append(tuple(sent(reply, federation.model)["w"]))
        federation.round += 1
    assert len(set(seen)) == 4


def test_bytes_are_values_and_positions(federation):
    """10 of 1,000 float16 values; their positions take at most log2 C(1000, 10) + 0.12 * 10 bits and two paddings."""
    federation = Federation(federation.root / "large", arrays(w=[0] * 1000))
    update = {"w": np.random.default_rng(0).normal(size=1000).astype(np.float32)}
    reply = federation.train("site-1", update, keep_fraction=0.01, value_type="float16")
    stream = from_shareable(reply).get_meta_prop(POSITIONS)["tensors"]["w"][2]
    assert payload_bytes(reply) == 10 * 2 + len(stream)
    assert len(stream) <= (math.log2(math.comb(1000, 10)) + 1.2) / 8 + 2


def test_a_damaged_residual_is_lost_and_said_and_training_goes_on(federation, caplog):
    federation.deliver("site-1", federation.train("site-1", arrays(w=[4, -1, 2, 8])))  # holds back -1 and 2
    federation.end_round()
    (file,) = federation.engines["site-1"].run_dir.glob("residual_*")
    file.write_bytes(file.read_bytes()[:100])
    second = federation.train("site-1", arrays(w=[0, 1, 3, 0]))
    assert sent(second, federation.model)["w"] == [0, 1, 3, 0]
    assert "what this site had held back is lost" in caplog.text
    federation.deliver("site-1", second)
    federation.end_round()
    assert sent(federation.train("site-1", arrays(w=[5, 0, 0, 6])), federation.model)["w"] == [5, 0, 0, 6]


def test_what_is_nothing_or_an_error_passes(federation):
    empty = submission("site-1", 0, {}, 0)
    assert federation.train("site-1", empty) is empty
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION, {ReservedHeaderKey.ERROR: "round 1: out of memory"})
    assert federation.train("site-1", failed) is failed


def test_what_cannot_be_sent_is_an_error_reply_with_its_reason(federation, caplog):
    good, task = arrays(w=[4, -1, 2, 8]), federation.task("site-1")
    weights = submission("site-1", 0, good, data_kind=DataKind.WEIGHTS)
    assert "expected WEIGHT_DIFF, got WEIGHTS; bind Sparsify" in reason(federation.train("site-1", weights))
    assert reason(federation.train("site-1", arrays(w=[1, 2, 3]))).startswith("site-1 w: in the global model, expected")
    assert "in the global model" in reason(federation.train("site-1", arrays(v=[1, 2, 3])))
    assert "NaN" in reason(federation.train("site-1", arrays(w=[4, math.nan, 2, 8])))
    assert "expected WEIGHTS, got none" in reason(federation.train("site-1", good, task=Shareable()))
    torch_update = federation.train("site-1", submission("site-1", 0, {"w": torch.ones(4)}))
    assert "site-1 w: expected a NumPy array, got Tensor" in reason(torch_update)
    assert list(federation.engines["site-1"].run_dir.glob("residual_*")) == []  # a refused update leaves no trace
    assert sent(federation.train("site-1", good, task=task), federation.model)["w"] == [4, 0, 0, 8]
    other = Federation(federation.root, arrays(w=[0, 0]))
    other.round = 1
    assert "w: the residual is of another model" in reason(other.train("site-1", arrays(w=[1, 2])))
    assert "update not sent: site-1 w: the residual is of another model" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep_fraction": 0}, "keep_fraction: expected a number above 0, at most 1, got 0"),
        ({"keep_fraction": 1.5}, "keep_fraction: expected"),
        ({"keep_fraction": "all"}, "keep_fraction: expected"),
        ({"warmup_rounds": -1}, "warmup_rounds: expected a whole number from 0, got -1"),
        ({"warmup_rounds": 1.5}, "warmup_rounds: expected"),
        ({"scope": "layer"}, "scope: expected model or tensor, got layer"),
        ({"value_type": "int8"}, "value_type: expected float32 or float16, got int8"),
        ({"exclude": "head"}, "exclude: expected a list of names or patterns, got head"),
        ({"error_feedback": 1}, "error_feedback: expected true or false"),
        ({"criterion": "largest"}, 'criterion: expected {"path"'),
    ],
)
def test_bad_arguments_are_said_at_the_start_and_in_every_reply(arguments, message, federation, caplog):
    sparsify = Sparsify(**arguments)
    with pytest.raises(BundleError) as raised:
        sparsify.check()
    assert message in str(raised.value)
    sparsify.handle_event(EventType.START_RUN, federation.server.context())
    assert message in caplog.text
    assert message in reason(federation.train("site-1", arrays(w=[4, -1, 2, 8]), **arguments))


def test_a_pattern_that_excludes_nothing_is_a_mistake(federation):
    reply = federation.train("site-1", arrays(w=[4, -1, 2, 8]), exclude=["w", "heads.*"])
    assert "site-1 exclude: expected tensors of this model, such as w, got heads.*" in reason(reply)


def test_export_looks_at_a_criterion_before_flare_has_built_it():
    Sparsify(criterion={"path": "custom.compression.criteria.Random"}).check()  # type: ignore[arg-type]
