# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Files of weights as people have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from custom.errors import BundleError
from custom.learning.model_file import read_state_dict

W = {"w": torch.tensor([1.0, 2.0])}
LIGHTNING = {
    "epoch": 3,
    "global_step": 12,
    "pytorch-lightning_version": "2.4.0",
    "state_dict": W,
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "a.ckpt"}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
    "lr_schedulers": [],
}
TUTORIAL = {"epoch": 3, "model_state_dict": W, "optimizer_state_dict": {"state": {}, "param_groups": []}, "loss": 0.5}


@pytest.mark.parametrize(
    "content",
    [W, {"model": W}, {"model": W, "train_conf": {"x": 1}}, LIGHTNING, TUTORIAL, {"net": W, "epoch": 1}],
    ids=["plain", "FLARE", "FLARE with train_conf", "Lightning", "tutorial", "another name"],
)
def test_checkpoints_are_read(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pt")
    assert read_state_dict(tmp_path / "m.pt")["w"].tolist() == [1, 2]


def test_the_old_format_of_torch_is_read(tmp_path: Path) -> None:
    torch.save(W, tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    assert read_state_dict(tmp_path / "m.pth")["w"].tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_safetensors_are_read_whatever_the_name(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"w": W["w"].to(dtype)}, tmp_path / "initial_model.pt")
    assert read_state_dict(tmp_path / "initial_model.pt")["w"].tolist() == [1, 2]


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    """Each with words of its own, which are not of torch, whose advice is weights_only=False."""
    model = nn.Linear(2, 2)
    torch.save(W, tmp_path / "whole")
    save_file(W, tmp_path / "safe")
    torch.jit.trace(model, torch.ones(1, 2)).save(tmp_path / "TorchScript")
    np.savez(tmp_path / "archive.npz", w=np.ones(2))
    np.save(tmp_path / "array.npy", np.ones(2))
    torch.save(model, tmp_path / "Python object")
    torch.save({"state_dict": W, "loss": np.float64(0.5)}, tmp_path / "NumPy value")
    torch.save({"epoch": 1}, tmp_path / "no state_dict")
    torch.save([W], tmp_path / "list")
    torch.save({"a": W, "b": W}, tmp_path / "several")
    torch.save({"state_dict": {**W, "_extra_state": {"calls": 1}}}, tmp_path / "_extra_state")
    torch.save({}, tmp_path / "nothing")
    contents = {
        "empty": b"",
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "web page": b"<!DOCTYPE html><html></html>",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(500),
        "cut short": (tmp_path / "whole").read_bytes()[:300],
        "no whole safetensors": (tmp_path / "safe").read_bytes()[:-1],
        "not written by torch.save": b"0.1,0.2\n0.3,0.4\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name, word in [
        *((name, name) for name in contents),
        *((name, name) for name in ("TorchScript", "Python object", "NumPy value", "no state_dict", "several")),
        ("_extra_state", "state_dict._extra_state is dict"),
        ("nothing", "no state_dict"),
        ("list", "list"),
        ("archive.npz", "something else"),
        ("array.npy", "NumPy array"),
    ]:
        with pytest.raises(BundleError) as caught:
            read_state_dict(tmp_path / name)
        assert caught.value.code == "model-file-unreadable", name
        assert word in str(caught.value).replace(str(tmp_path), ""), caught.value
        assert "weights_only" not in str(caught.value)
    with pytest.raises(BundleError) as caught:
        read_state_dict(tmp_path)
    assert caught.value.code == "model-file-missing"
