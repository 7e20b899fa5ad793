# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Packing and unpacking, and the refusal of everything else; expected values are computed by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nvflare.app_common.decomposers import common_decomposers
from nvflare.fuel.utils import fobs

from custom.checks.update import Origin, UpdateRejected
from custom.compression import wire
from custom.compression.wire import Entries, PayloadRejected
from custom.errors import BundleError

HERE = Origin("site-2", 7)
MODEL = {
    "conv.weight": np.zeros((4, 5, 5), np.float32),
    "head": np.zeros((2, 3), np.float32),
    "scale": np.zeros((), np.float32),
    "bn.num_batches_tracked": np.array(4),
}
KEPT = {"conv.weight": np.array([3, 50, 52, 99], np.int32), "head": np.array([0, 1, 2, 4, 5], np.int32)}
KEPT["scale"] = np.array([0], np.int32)
UPDATE = {name: np.arange(1, MODEL[name].size + 1, dtype=np.float32).reshape(MODEL[name].shape) for name in KEPT}

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
# Up to float16's largest value, which hypothesis likes to draw.
elements = st.floats(-65504, 65504, width=32)


@st.composite
def choices(draw):
    """An update, and indices of any density into it."""
    update, indices = {}, {}
    for name in draw(st.lists(st.text(max_size=5), unique=True, max_size=4)):
        update[name] = draw(hnp.arrays(np.float32, draw(shapes), elements=elements))
        density, size = draw(st.sampled_from([0.0, 0.05, 0.5, 0.9, 1.0])), update[name].size
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        indices[name] = np.flatnonzero(rng.random(size) < density).astype(np.int32)
    return update, indices


@settings(deadline=None)
@given(choices(), st.sampled_from(wire.VALUE_TYPES))
def test_there_and_back(choice, value_type):
    update, indices = choice
    payload = wire.encode(update, indices, value_type)
    got = wire.decode(*payload, update, HERE)
    assert got.keys() == {name for name, kept in indices.items() if kept.size}  # what is not sent is not mentioned
    dense = 0
    for name, entries in got.items():
        assert entries.indices.tolist() == indices[name].tolist()
        assert (entries.indices.dtype, entries.values.dtype) == (np.int32, np.float32)
        expected = update[name].ravel()[indices[name]].astype(value_type).astype(np.float32)
        assert entries.values.tobytes() == expected.tobytes()
        dense += update[name].size * np.dtype(value_type).itemsize + 4 * update[name].ndim + 4
    assert wire.nbytes(payload) <= dense


def test_what_travels_is_float_arrays_by_tensor_and_plain_types_beside_them():
    common_decomposers.register()
    values, positions = wire.encode(UPDATE, KEPT)
    assert {name: array.tolist() for name, array in values.items()} == {
        "conv.weight": [4, 51, 53, 100],
        "head": [1, 2, 3, 5, 6],
        "scale": [1],
    }
    # Gaps 3, 46, 1, 46 with 4 low bits: 1 001 1 001, then bits 1010, 1101, 0101, 0101. In head 3 is left out: 1, 1, 1.
    assert positions == {
        "version": 1,
        "tensors": {
            "conv.weight": ["kept", 4, b"\x99\xad\x55", [4, 5, 5]],
            "head": ["left_out", 2, b"\x80\xc0", [2, 3]],
            "scale": ["all", 0, b"", []],
        },
    }
    assert wire.nbytes(wire.Payload(values, positions)) == 4 * 10 + (3 + 2) + 4 * (3 + 2) + 2 * 3
    received = fobs.loads(fobs.dumps([values, positions]))
    assert wire.decode(*received, MODEL, HERE).keys() == KEPT.keys()


def test_beyond_the_range_of_float16_a_tensor_travels_as_float32():
    update = {"a": np.array([65504, 1], np.float32), "b": np.array([1e5, 1], np.float32)}
    update |= {"half": np.array([1, 2], np.float16), "double": np.array([1e5, 0.1])}
    indices = {name: np.array([0, 1], np.int32) for name in update}
    for value_type, expected in (("float16", [2, 4, 2, 4]), ("float32", [4, 4, 2, 4])):
        payload = wire.encode(update, indices, value_type)
        assert [payload.values[name].itemsize for name in update] == expected
        assert wire.decode(*payload, update, HERE)["b"].values.tolist() == [100_000, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_not_sent(bad):
    update = {"head": np.array([1, bad], np.float32)}
    assert wire.encode(update, {"head": np.array([0])}).values["head"].tolist() == [1]
    for value_type in wire.VALUE_TYPES:
        with pytest.raises(BundleError, match="head: a value to be sent is NaN or infinite"):
            wire.encode(update, {"head": np.array([1])}, value_type)
    with pytest.raises(BundleError, match="value_type: expected float32 or float16, got int8"):
        wire.encode(update, {}, "int8")


def refused(reason: str, values, positions) -> str:
    with pytest.raises(PayloadRejected) as caught:
        wire.decode(values, positions, MODEL, HERE)
    assert isinstance(caught.value, UpdateRejected)
    assert caught.value.reason == reason
    message = str(caught.value)
    assert message.startswith("site-2 round 7 ")
    assert "\n" not in message
    return message


def changed(name="conv.weight", values=None, **parts):
    """A good payload, but for one tensor's values and parts of its description."""
    payload = copy.deepcopy(wire.encode(UPDATE, KEPT))
    if values is not None:
        payload.values[name] = values
    for part, value in parts.items():
        payload.positions["tensors"][name][["coding", "parameter", "stream", "shape"].index(part)] = value
    return payload


NOT_DESCRIPTIONS = [None, [], ["kept", 4, b"\x99\xad\x55"], ["kept", True, b"", [4]], ["kept", 4, "", [4]], "kept"]


@pytest.mark.parametrize("bad", NOT_DESCRIPTIONS)
def test_other_descriptions(bad):
    values, positions = changed()
    positions["tensors"]["head"] = bad
    assert "head: expected coding, parameter, stream and shape" in refused("format", values, positions)


@pytest.mark.parametrize("bad", [{}, {"version": 2}, {"version": True}, {"version": "1"}, {"version": 1.0}])
def test_other_versions(bad):
    message = refused("version", {}, {"tensors": {}} | bad)
    assert "payload: expected version 1" in message
    assert "do server and sites run the same job folder?" in message


@pytest.mark.parametrize(
    ("values", "positions"),
    [
        (None, {}),
        ({}, None),
        ({}, []),
        ({}, {"version": 1, "tensors": []}),
        ({}, {"version": 1, "tensors": {}, "x": 1}),
    ],
)
def test_other_structures(values, positions):
    assert " payload: expected " in refused("format", values, positions)
    entry = (np.ones(1, np.float32), ["all", 0, b"", []])
    refused("format", {3: entry[0]}, {"version": 1, "tensors": {3: entry[1]}})


def test_values_and_positions_come_in_pairs():
    for part, problem in ((0, "positions without values"), (1, "values without positions")):
        values, positions = changed()
        del (values if part == 0 else positions["tensors"])["head"]
        assert f"head: {problem}; has a filter removed tensors?" in refused("unpaired", values, positions)


def test_unknown_tensors():
    for name, problem in (("evil\nname", "no such tensor"), ("bn.num_batches_tracked", "an integer tensor")):
        values, positions = changed()
        values[name], positions["tensors"][name] = values["scale"], positions["tensors"]["scale"]
        assert problem in refused("extra_key", values, positions)


@pytest.mark.parametrize("bad", [[4, 25], [100], [5, 5, 4], [], [4.0, 5, 5], [4, 5, "5"], [np.ones(2)] * 3, [10**400]])
def test_other_shapes(bad):
    assert "conv.weight: expected (4, 5, 5), got (" in refused("shape", *changed(shape=bad))


@pytest.mark.parametrize(
    "bad", [None, [1.0] * 4, 1.0, np.ones(4), np.ones(4, np.int32), np.ones(4, ">f4"), np.ones(4, np.complex64)]
)
def test_other_dtypes(bad):
    values, positions = changed()
    values["conv.weight"] = bad
    assert "conv.weight: expected an array of float32 or float16" in refused("dtype", values, positions)


@pytest.mark.parametrize("bad", [np.ones(0), np.ones((4, 1)), np.ones(()), np.ones(101)])
def test_other_numbers_of_values(bad):
    message = refused("count", *changed(values=bad.astype(np.float32)))
    assert f"conv.weight: expected a vector of 1 to 100 values, got {bad.shape}" in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad):
    values = np.array([1, bad, bad, 2], np.float16)
    assert "conv.weight: 2 of 4 values are NaN or infinite" in refused("not_finite", *changed(values=values))


def test_unknown_codings_and_parameters():
    for parts in ({"coding": "zip"}, {"parameter": -1}, {"parameter": 32}, {"parameter": 10**400}):
        assert "conv.weight: expected all, kept, left_out; 0 to 31" in refused("format", *changed(**parts))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("conv.weight", {"values": np.ones(3, np.float32)}),
        ("conv.weight", {"values": np.ones(5, np.float32)}),
        ("conv.weight", {"values": np.ones(100, np.float32)}),
        ("conv.weight", {"stream": b"\x99\xad"}),
        ("conv.weight", {"stream": b""}),
        ("conv.weight", {"stream": b"\x99\xad\x55\x00"}),
        ("conv.weight", {"stream": b"\x99" + bytes(10**6)}),
        ("conv.weight", {"stream": b"\x99\xff\xff"}),  # 15 + 47 + 15 + 47 + 4 positions
        ("conv.weight", {"coding": "all"}),
        ("conv.weight", {"coding": "left_out"}),
        ("conv.weight", {"parameter": 3}),
        ("head", {"values": np.ones(6, np.float32)}),
        ("head", {"coding": "kept"}),
        ("head", {"stream": b"\x01\xc0"}),  # 6 of 6
        ("head", {"stream": b"\x80\xe0"}),  # padding
        ("scale", {"stream": b"\x80"}),
        ("scale", {"parameter": 1}),
        ("scale", {"coding": "left_out"}),
    ],
)
def test_positions_that_do_not_fit(name, parts):
    assert f"site-2 round 7 {name}: " in refused("positions", *changed(name, **parts))


def test_nothing_is_returned_if_the_last_tensor_is_bad():
    assert "site-2 round 7 scale: " in refused("not_finite", *changed("scale", values=np.array([np.nan], np.float32)))


@settings(deadline=None)
@given(choices(), st.data())
def test_flipped_bits_are_refused_or_give_ascending_indices_in_range(choice, data):
    update, indices = choice
    values, positions = wire.encode(update, indices)
    for description in positions["tensors"].values():
        stream = bytearray(description[2])
        for _ in range(data.draw(st.integers(0, 3)) if stream else 0):
            stream[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        description[2] = bytes(stream[: len(stream) - data.draw(st.sampled_from([0, 0, 0, 1]))])
        description[1] += data.draw(st.sampled_from([0, 0, 0, 1]))
    try:
        got = wire.decode(values, positions, update, HERE)
    except PayloadRejected:
        return
    for name, entries in got.items():
        assert isinstance(entries, Entries)
        assert entries.indices.size == entries.values.size == values[name].size
        assert entries.indices[0] >= 0
        assert entries.indices[-1] < update[name].size
        assert (np.diff(entries.indices) > 0).all()
