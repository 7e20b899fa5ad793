# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Weights between a model, arrays and files: which types there are, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from custom.errors import BundleError
from custom.learning import weights as module
from custom.learning.weights import (
    as_held,
    get_weights,
    load_weights,
    save_atomically,
    set_weights,
    to_tensors,
    travels_as_float32,
)


class WithState(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 1}


class Odd(nn.Linear):
    """With a buffer of any kind."""

    def __init__(self, buffer: torch.Tensor) -> None:
        super().__init__(2, 2)
        self.register_buffer("odd", buffer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_round_trip_is_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    """float32 has all values of bfloat16; the others are NumPy's own."""
    torch.manual_seed(0)
    model, other = nn.Linear(5, 3).to(dtype), nn.Linear(5, 3).to(dtype)
    arrays = get_weights(model)
    assert arrays["weight"].dtype == {torch.bfloat16: np.float32}.get(dtype, arrays["bias"].dtype)
    assert travels_as_float32(model) == (dtype == torch.bfloat16)
    save_atomically({"model": to_tensors(arrays)}, tmp_path / "m.pt")
    set_weights(other, load_weights(tmp_path / "m.pt"))
    assert other.weight.dtype == dtype
    assert torch.equal(other.weight, model.weight)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    assert np.array_equal(load_weights(tmp_path / "own.pt")["weight"], arrays["weight"])


def test_what_a_bfloat16_model_holds_is_rounded() -> None:
    """1 + 2^-9 lies between 1 and 1 + 2^-7, the next value of bfloat16; ties and less go to 1."""
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    received = {"weight": np.full((1, 1), 1 + 2**-9, np.float32)}
    set_weights(model, received)
    assert as_held(model, received)["weight"].tolist() == [[1.0]]
    same = nn.Linear(1, 1, bias=False)
    assert as_held(same, received) is received


@pytest.mark.parametrize(
    ("model", "key"),
    [
        (nn.LazyLinear(3), "model weight"),
        (WithState(2, 2), "model _extra_state"),
        (nn.Linear(2, 2, device="meta"), "model weight"),
        (Odd(torch.zeros(2, dtype=torch.complex64)), "model odd"),
        (Odd(torch.zeros(2).to(torch.float8_e4m3fn)), "model odd"),
        (Odd(torch.zeros(2, 2).to_sparse()), "model odd"),
        (nn.ReLU(), "model"),
        (nn.Module(), "model"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_model_that_no_arrays_can_hold(model: nn.Module, key: str) -> None:
    with pytest.raises(BundleError) as caught:
        get_weights(model)
    assert (caught.value.code, caught.value.key) == ("model-unfit", key)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model() -> None:
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(BundleError, match="quantise") as caught:
        get_weights(model)
    assert caught.value.code == "model-unfit"


@pytest.mark.parametrize("buffer", [torch.zeros(2, dtype=torch.int64), torch.ones(1, dtype=torch.bool)])
def test_integers_and_booleans_travel(buffer: torch.Tensor) -> None:
    arrays = get_weights(Odd(buffer))
    other = Odd(torch.full_like(buffer, 1))
    set_weights(other, arrays)
    assert torch.equal(other.odd, buffer)


class FullDisk:
    """A file on a disk with no space left."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, data: Any) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EIO, "not-writable")],
)
def test_a_write_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    """torch's own error is about positions in the file."""
    path = tmp_path / "model.pt"
    save_atomically({"w": torch.ones(2)}, path)

    def on_full_disk(handle: int, mode: str) -> FullDisk:
        os.close(handle)
        return FullDisk(number)

    monkeypatch.setattr(module.os, "fdopen", on_full_disk)
    with pytest.raises(BundleError) as caught:
        save_atomically({"w": torch.ones(1_000_000)}, path)
    assert (caught.value.code, caught.value.key) == (code, str(path))
    monkeypatch.undo()
    assert load_weights(path)["w"].tolist() == [1, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError) as caught:
        save_atomically({"w": torch.ones(1)}, tmp_path / "file" / "model.pt")
    assert caught.value.code == "not-writable"
