# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Nothing is lost, nothing counts twice; expected values are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from custom.compression import residual, topk, wire
from custom.compression.criteria import MagnitudeChange
from custom.compression.residual import State, compensate, hold_back
from custom.compression.wire import Entries
from custom.errors import BundleError

SHAPES = {"conv.weight": (3, 4), "scale": (), "none": (0, 2)}
FORMATS = [(np.float32, "float32"), (np.float32, "float16"), (np.float64, "float32"), (np.float64, "float16")]


def send(update, keep_fraction, value_type="float32", round_number=0):
    """What a site sends in a round, and what it then remembers."""
    indices = topk.select(update, update, MagnitudeChange(), keep_fraction)
    payload = wire.encode(update, indices, value_type)
    sent = {name: Entries(indices[name], values) for name, values in payload.values.items()}
    return sent, hold_back({name: np.array(value) for name, value in update.items()}, sent, round_number)


def zeros(update):
    return {name: np.zeros_like(value) for name, value in update.items()}


def dense(entries, like):
    """Sent entries as whole tensors, in the model's dtype."""
    whole = zeros(like)
    for name, (indices, values) in entries.items():
        whole[name].reshape(-1)[indices] = values
    return whole


def same_bits(one, other):
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


@st.composite
def updates(draw, dtype, largest=65504.0):
    width = 8 * np.dtype(dtype).itemsize
    values = st.floats(-largest, largest, width=width)
    return {name: draw(hnp.arrays(dtype, shape, elements=values)) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(("dtype", "value_type"), FORMATS)
@settings(deadline=None)
@given(st.data(), st.floats(0.01, 1))
def test_sent_and_residual_are_the_update_bit_for_bit(dtype, value_type, data, keep_fraction):
    update = data.draw(updates(dtype))
    sent, state = send(update, keep_fraction, value_type)
    whole = dense(sent, update)
    for name, value in update.items():
        assert (whole[name] + state.residual[name]).tobytes() == (value + 0).tobytes()  # be it for the sign of a zero
        if dtype == np.float32 and value_type == "float32":
            assert not (whole[name].astype(bool) & state.residual[name].astype(bool)).any()  # each is in one of them
    assert same_bits(compensate(zeros(update), state, None), {name: value + 0 for name, value in update.items()})


@settings(deadline=None)
@given(updates(np.float32, float(np.finfo(np.float32).max)), st.sampled_from(wire.VALUE_TYPES))
def test_values_beyond_float16_are_conserved_too(update, value_type):
    _, state = send(update, 0.5, value_type)
    assert same_bits(compensate(zeros(update), state, None), {name: value + 0 for name, value in update.items()})


def test_taken_is_dropped_and_not_taken_comes_back():
    update = {"w": np.array([4.0, -1.0, 2.0, 8.0], np.float32)}
    sent, state = send(update, 0.5, round_number=3)
    assert sent["w"].indices.tolist() == [0, 3]
    assert state.residual["w"].tolist() == [0, -1, 2, 0]
    step = {"w": np.array([1.0, 1.0, 1.0, 1.0], np.float32)}
    assert compensate(step, state, 3)["w"].tolist() == [1, 0, 3, 1]
    for other in (None, 2, 4):
        assert compensate(step, state, other)["w"].tolist() == [5, 0, 3, 9]
    assert compensate(step, None, None)["w"].tolist() == [1, 1, 1, 1]
    assert step["w"].tolist() == [1, 1, 1, 1]  # neither argument is changed
    assert state.residual["w"].tolist() == [0, -1, 2, 0]


def test_rounding_stays_behind():
    # float16 has 11 bits: 2049 is sent as 2048.
    sent, state = send({"w": np.array([2049.0, 3.0], np.float32)}, 0.5, "float16")
    assert (sent["w"].values.tolist(), state.residual["w"].tolist()) == ([2048], [1, 3])
    assert compensate({"w": np.zeros(2, np.float32)}, state, 0)["w"].tolist() == [1, 3]
    assert compensate({"w": np.zeros(2, np.float32)}, state, None)["w"].tolist() == [2049, 3]


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_over_many_rounds_what_arrived_and_what_is_left_are_all_updates(tmp_path_factory, data):
    """Whole numbers below 2^24 add up exactly in float32; a file and, as it were, a new process a round."""
    path = tmp_path_factory.mktemp("site") / "residual.pt"
    path.unlink(missing_ok=True)
    whole = hnp.arrays(np.float32, (3, 4), elements=st.integers(-1000, 1000))
    total, arrived, taken_round = np.zeros((3, 4)), np.zeros((3, 4)), None
    for round_number in range(data.draw(st.integers(1, 5))):
        step = {"w": data.draw(whole)}
        total += step["w"]
        update = compensate(step, residual.load(path, step), taken_round)
        sent, state = send(update, 0.25, data.draw(st.sampled_from(wire.VALUE_TYPES)), round_number)
        residual.save(path, state)
        if data.draw(st.booleans()):
            arrived += dense(sent, step)["w"]
            taken_round = round_number
    left = compensate({"w": np.zeros((3, 4), np.float32)}, residual.load(path, step), taken_round)
    assert (arrived + left["w"]).tolist() == total.tolist()


def test_on_disk_and_back(tmp_path):
    path = tmp_path / "new" / "residual.pt"
    update = {"conv.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "scale": np.array(7, np.float32)}
    assert residual.load(path, update) is None
    _, state = send(update, 0.5, "float16", 4)
    residual.save(path, state)
    got = residual.load(path, update)
    assert got is not None
    assert (got.round_number, got.residual.keys(), got.sent.keys()) == (4, state.residual.keys(), state.sent.keys())
    assert same_bits(got.residual, state.residual)
    for name, entries in state.sent.items():
        assert [part.dtype for part in got.sent[name]] == [part.dtype for part in entries] == [np.int32, np.float16]
        assert [part.tolist() for part in got.sent[name]] == [part.tolist() for part in entries]
    assert [file.name for file in path.parent.iterdir()] == ["residual.pt"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": (4, 1)}, r"w: the residual is of another model, expected \(\(4, 1\), 'float32'\), got \(\(2, 2\), "),
        ({"w": (2, 2), "v": ()}, "v: the residual is of another model, .* got no such tensor"),
        ({}, "w: the residual is of another model, expected no such tensor"),
    ],
)
def test_a_residual_of_another_model(tmp_path, other, message):
    _, state = send({"w": np.ones((2, 2), np.float32)}, 0.5)
    residual.save(tmp_path / "residual.pt", state)
    update = {name: np.zeros(shape, np.float32) for name, shape in other.items()}
    with pytest.raises(BundleError, match=message):
        compensate(update, state, None)
    with pytest.raises(BundleError, match=message):
        residual.load(tmp_path / "residual.pt", update)
    with pytest.raises(BundleError, match="float64"):
        compensate({"w": np.zeros((2, 2))}, state, None)


def test_damaged_files(tmp_path):
    path, update = tmp_path / "residual.pt", {"w": np.ones(2, np.float32)}
    residual.save(path, send(update, 0.5)[1])
    whole = path.read_bytes()
    contents = [b"", whole[: len(whole) // 2], b"no zip"]
    for content in [{"residual": {}}, {"residual": 1, "sent": {}, "round_number": 1}, {"residual": print}, [1]]:
        torch.save(content, path)
        contents.append(path.read_bytes())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(residual.Damaged, match=r"residual.pt: cannot be read: it is damaged, or not a residual"):
            residual.load(path, update)


def test_a_crash_while_saving_leaves_the_old_state(tmp_path, monkeypatch):
    path, update = tmp_path / "residual.pt", {"w": np.ones(2, np.float32)}
    residual.save(path, State(1, update, {}))
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        residual.save(path, State(2, update, {}))
    got = residual.load(path, update)
    assert got is not None
    assert got.round_number == 1
    assert [file.name for file in tmp_path.iterdir()] == ["residual.pt"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_is_not_held_back(bad):
    with pytest.raises(BundleError, match="round 3 w: a value is NaN or infinite"):
        hold_back({"w": np.array([1, bad], np.float32)}, {}, 3)


def test_arrays_in_any_order_and_scalars():
    update = {"w": np.arange(6, dtype=np.float32).reshape(3, 2).T, "s": np.float32(3)}
    total = compensate(update, None, None)
    assert total["w"].flags.c_contiguous
    _, state = send(total, 0.4)  # of 7 entries: 5, 4 and the scalar, first by name
    assert state.residual["w"].tolist() == [[0, 2, 0], [1, 3, 0]]
    assert compensate(update, state, 0)["w"].tolist() == [[0, 4, 4], [2, 6, 5]]
