# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Data of one's own that are not as they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from custom.data.inspection import check_description, check_samples
from custom.errors import BundleError

INFO = {"dataset": "mine", "embedded": False, "num_classes": 3, "input_shape": [2]}


class Table:
    """Ten samples in `train`, ten in `validation`, none in `test`; read in batches of four."""

    def __init__(self, change: Callable[[torch.Tensor, torch.Tensor], Any] = lambda x, y: (x, y)) -> None:
        self.change = change
        self.x, self.y = torch.zeros(20, 2), torch.arange(20) % 3

    def describe(self) -> dict[str, Any]:
        return INFO

    def size(self, split: str) -> int:
        return {"train": 10, "validation": 10, "test": 0}[split]

    def batches(self, split: str, batch_size: int, device: Any, generator: Any = None) -> Iterator[Any]:
        assert self.size(split), "the batches of an empty split are not asked for"
        first = 10 * (split == "validation")
        for start in range(first, first + 10, batch_size):
            rows = slice(start, min(start + batch_size, first + 10))
            yield self.change(self.x[rows], self.y[rows])


def problem(table: Table) -> tuple[str, str]:
    with pytest.raises(BundleError) as caught:
        check_samples(table, 4)
    return caught.value.code, caught.value.key


def test_good_data_pass() -> None:
    check_samples(Table(), 4)
    check_samples(Table(lambda x, y: ({"ids": x.long(), "mask": [x, x.double()]}, y)), 4)
    large = Table()
    large.x[:] = 3e38  # whose sum overflows
    check_samples(large, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("row", "key"), [(5, "train row 5"), (9, "train row 9"), (16, "validation row 6")])
def test_an_input_that_is_not_finite_is_named_by_split_and_row(value: float, row: int, key: str) -> None:
    table = Table()
    table.x[row, 1] = value
    assert problem(table) == ("data-not-finite", key)
    table.change = lambda x, y: ({"a": y, "b": [x.double()]}, y)
    assert problem(table) == ("data-not-finite", key)


def test_the_first_row_of_several_is_named() -> None:
    table = Table()
    table.x[6, 0] = table.x[5, 1] = float("nan")
    assert problem(table)[1] == "train row 5"


@pytest.mark.parametrize("label", [3, -1, -100])
@pytest.mark.parametrize(("row", "key"), [(7, "train row 7 label"), (10, "validation row 0 label")])
def test_a_label_out_of_range_is_named_by_split_and_row(label: int, row: int, key: str) -> None:
    table = Table()
    table.y[row] = label
    assert problem(table) == ("data-malformed", key)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda x, y: (x, y.int()), "train row 0 label"),
        (lambda x, y: (x, y.float()), "train row 0 label"),
        (lambda x, y: (x, y[:, None]), "train row 0 label"),
        (lambda x, y: (x, torch.nn.functional.one_hot(y, 3)), "train row 0 label"),
        (lambda x, y: (x, y.numpy()), "train row 0 label"),
        (lambda x, y: (x.numpy(), y), "batches()"),
        (lambda x, y: ({"a": [np.zeros(4)]}, y), "batches()"),
        (lambda x, y: {"x": x, "y": y}, "batches()"),
        (lambda x, y: (x, y, y), "batches()"),
        (lambda x, y: (x[:-1], y[:-1]), "train split"),
        (lambda x, y: x[torch.tensor(range(0))], "train row 0"),
    ],
    ids=[
        "int32",
        "float",
        "column",
        "one-hot",
        "NumPy-labels",
        "NumPy-inputs",
        "NumPy-within",
        "dict",
        "triple",
        "fewer",
        "raises",
    ],
)
def test_batches_of_another_form(change: Callable[..., Any], key: str) -> None:
    assert problem(Table(change)) == ("data-malformed", key)


def test_the_labels_of_finite_inputs_are_enough() -> None:
    class Bytes(Table):
        def labels_of(self, split: str) -> torch.Tensor:
            return {"train": torch.tensor([0, 1, 2]), "validation": torch.tensor([1, 3]), "test": self.y[:0]}[split]

        def batches(self, *_: Any) -> Iterator[Any]:
            raise AssertionError("reads all inputs")

    assert problem(Bytes()) == ("data-malformed", "validation row 1 label")


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"input_shape": [3, None]}, "describe() input_shape"),
        ({"input_shape": 20}, "describe() input_shape"),
        ({"num_classes": "3"}, "describe() num_classes"),
        ({"num_classes": True}, "describe() num_classes"),
        ({"dataset": None}, "describe() dataset"),
        ({"embedded": 0}, "describe() embedded"),
    ],
)
def test_facts_of_another_form(changed: dict[str, Any], key: str) -> None:
    check_description(INFO)
    for info, name in ((INFO | changed, key), (None, "describe()"), ({}, "describe() dataset")):
        with pytest.raises(BundleError) as caught:
            check_description(info)
        assert (caught.value.code, caught.value.key) == ("data-malformed", name)


@pytest.mark.parametrize("value", [{1, 2}, np.zeros(2), float("nan"), np.int64(1), torch.ones(1)])
def test_facts_that_cannot_be_written_down(value: object) -> None:
    """The sites compare what `describe` returns, and the server writes it into progress.jsonl."""
    check_description(INFO | {"mean": [0.5], "classes": ("a", "b"), "more": {"x": None}})
    with pytest.raises(BundleError) as caught:
        check_description(INFO | {"mean": value})
    assert (caught.value.code, caught.value.key) == ("data-malformed", "describe()")


@pytest.mark.parametrize(
    ("shape", "samples"), [([], 2**18), ([20], 13107), ([3, 32, 32], 85), ([3, 224, 224], 13), ([3, 2000, 2000], 1)]
)
def test_what_is_read_at_once_fits_into_a_cache_and_is_never_much(shape: list[int], samples: int) -> None:
    """2**18 values, or 16 samples if these are not above 2**21 values."""
    sizes = []

    class Sized(Table):
        def describe(self) -> dict[str, Any]:
            return INFO | {"input_shape": shape}

        def batches(self, split: str, batch_size: int, *more: Any) -> Iterator[Any]:
            sizes.append(batch_size)
            return super().batches(split, batch_size, *more)

    check_samples(Sized())
    assert sizes == [samples, samples]
