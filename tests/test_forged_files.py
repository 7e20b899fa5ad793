# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Files of ours with forged content: each reader refuses them with a BundleError, and none needs more memory."""

from __future__ import annotations

import ast
import copy
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundle import ROOT
from custom import checkpoint, personal_model
from custom.checkpoint import Checkpoint
from custom.compression import changes, residual
from custom.compression.residual import State
from custom.compression.wire import Entries
from custom.errors import BundleError
from custom.executors.trainer import local_model_path, read_training
from custom.keys import TRAINING
from custom.learning.torch_file import read_torch
from custom.learning.weights import load_weights, save_atomically

Read = Callable[[Path], object]
W = {"w": np.arange(4, dtype=np.float32)}
WRONG: list[Any] = [None, True, -1, 1.5, 10**30, "x", [], [1], {}, {"a": 1}, {3: torch.zeros(2)}, torch.zeros(2)]
WRONG += [{"w": torch.zeros(2).bfloat16()}, {"w": torch.zeros(2, dtype=torch.complex64).conj().imag}, [torch.zeros(2)]]
WRONG += [{"w": torch.eye(2).to_sparse()}, {"w": [torch.tensor([9]), torch.zeros(1)]}]


CODES = {
    "checkpoint": {"checkpoint-unusable"},
    "residual": {"site-state-damaged", "update-shape"},
    "held": {"site-state-damaged"},
    "training": {"site-state-damaged"},
    "weights": {"model-file-unreadable"},
}


def training() -> dict[str, Any]:
    settings: dict[str, Any] = {"rounds": 2, "epochs": 2, "steps": None, "batch_size": 8, "accumulate_batches": 1}
    optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}
    settings |= {"local_lr": 0.1, "lr_schedule": "constant", "lr_warmup_rounds": 0, "optimizer": optimizer}
    return settings | {"mixed_precision": False, "class_weights": "none"}


def write_files(folder: Path) -> dict[str, tuple[Path, Read]]:
    """A good file for each reader of torch files."""
    best = {"round": 1, "metric": "val_accuracy", "value": 0.5}
    states = {"selector": {"best_val_metric": 0.5, "best_raw_val_metric": 0.5, "negate_key_metric": False}}
    checkpoint.save(folder / "checkpoint.pt", Checkpoint("id", "rounds", 2, 3, {"rounds": 2}, W, states, best))
    entries = {"w": Entries(np.array([1, 3], np.uint32), np.array([1, 2], np.float32))}
    residual.save(folder / "residual.pt", State(1, copy.deepcopy(W), entries))
    changes.save(folder / "held.pt", changes.Held("v 1", W))
    save_atomically({"model": {"w": torch.zeros(2)}, "round": 2, TRAINING: training()}, local_model_path(folder))

    def put_back(path: Path) -> object:
        return residual.compensate(W, residual.load(path, W), None)

    return {
        "checkpoint": (folder / "checkpoint.pt", checkpoint.load),
        "residual": (folder / "residual.pt", put_back),
        "held": (folder / "held.pt", changes.load),
        "training": (local_model_path(folder), lambda path: read_training(path.parent, "site-1")),
        "weights": (folder / "checkpoint.pt", load_weights),
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


@pytest.mark.parametrize("kind", ["checkpoint", "residual", "held", "training", "weights"])
def test_a_forged_field_is_refused_or_of_no_account(tmp_path: Path, kind: str) -> None:
    """Each field with some wrong values, and without the field."""
    path, read = write_files(tmp_path)[kind]
    good, rng, codes = torch.load(path, weights_only=True), random.Random(0), set()
    read(path)
    for place in places(good):
        for wrong in [*rng.sample(WRONG, 4), KeyError]:
            forged = copy.deepcopy(good)
            holder = forged
            for key in place[:-1]:
                holder = holder[key]
            if wrong is KeyError:
                del holder[place[-1]]
            else:
                holder[place[-1]] = wrong
            torch.save(forged, path)
            try:
                read(path)
            except BundleError as error:
                codes.add(error.code)
    assert codes
    assert codes <= CODES[kind]


@pytest.mark.parametrize("kind", ["checkpoint", "residual", "held", "training", "weights"])
@pytest.mark.parametrize("content", [None, 5, [], {}, "x", [{"model": {}}]])
def test_another_content_is_refused(tmp_path: Path, kind: str, content: Any) -> None:
    path, read = write_files(tmp_path)[kind]
    torch.save(content, path)
    with pytest.raises(BundleError):
        read(path)


@pytest.mark.parametrize("field", ["model", "states", "rounds", "round"])
@pytest.mark.parametrize("wrong", [None, 7, "2", [1]])
def test_a_forged_checkpoint_names_the_field(tmp_path: Path, field: str, wrong: Any) -> None:
    path, read = write_files(tmp_path)["checkpoint"]
    torch.save(torch.load(path, weights_only=True) | {field: wrong}, path)
    if (field, wrong) == ("round", 7):
        assert checkpoint.load(path).round == 7
        return
    with pytest.raises(BundleError) as caught:
        read(path)
    assert (caught.value.code, caught.value.key) == ("checkpoint-unusable", f"{path} {field}")


def inflated(path: Path, how: str) -> None:
    """A file of 5 kB that is read as 40 MB."""
    value = torch.zeros(10_000_000)
    torch.save({"w": torch.zeros(1).expand(10_000_000) if how == "stride 0" else value}, path)
    if how == "shared parts":
        torch.save({"w": torch.zeros(3)}, path)
        with zipfile.ZipFile(path, "a") as archive:  # a second name for the same bytes
            first = archive.infolist()[0]
            for number in range(2000):
                twin = copy.copy(first)
                twin.filename = f"{first.filename}{number}"
                twin.file_size = twin.compress_size = 10_000
                archive.filelist.append(twin)
            archive._didModify = True  # type: ignore[attr-defined]
    elif how == "deflated":
        with zipfile.ZipFile(path) as plain:
            parts = {part.filename: plain.read(part) for part in plain.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in parts.items():
                packed.writestr(name, content)
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("how", ["deflated", "stride 0", "shared parts"])
def test_a_small_file_does_not_become_a_large_model(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    inflated(path, how)
    if how != "stride 0":  # which takes no memory until it is copied
        monkeypatch.setattr(torch, "load", None)
    for read in (load_weights, checkpoint.load):
        with pytest.raises(BundleError) as caught:
            read(path)
        assert caught.value.code == "model-file-inflated"


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_writes_is_not_compressed_and_is_read(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.pt"
    shared = torch.arange(6.0).reshape(2, 3)
    state = {"a": shared, "tied": shared, "part": shared[1:], "turned": shared.t(), "empty": torch.zeros(0, 3)}
    state |= {"scalar": torch.tensor(1), "zeros": torch.zeros(100_000)}
    torch.save({"model": state, "note": "x"}, path, _use_new_zipfile_serialization=not legacy)
    if not legacy:
        with zipfile.ZipFile(path) as archive:
            assert {part.compress_type for part in archive.infolist()} == {zipfile.ZIP_STORED}
    for name, tensor in read_torch(path)["model"].items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("header", [b"\xff" * 8, b"\x10\x00\x00\x00\x00\x00\x00\x00", (10**12).to_bytes(8, "little")])
def test_a_safetensors_header_that_claims_too_much(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    entry = {"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}
    path.write_bytes(header + json.dumps(entry).encode() + b"\0" * 16)
    with pytest.raises(BundleError) as caught:
        load_weights(path)
    assert caught.value.code == "model-file-unreadable"


@pytest.mark.parametrize(
    "card", [b"5", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"job_id": [1], "shared": true}', b"{}"]
)
def test_a_card_that_is_none_shares_nothing(tmp_path: Path, card: bytes) -> None:
    (tmp_path / personal_model.CARD_FILE).write_bytes(card)
    with pytest.raises(BundleError) as caught:
        personal_model.load_shared(tmp_path, "id", "site-1")
    assert caught.value.code == "nothing-trained"


def test_torch_load_is_called_in_one_place() -> None:
    found = [
        str(path.relative_to(ROOT))
        for folder in ("custom", "controllers", "bundle", "dashboard", "workspace_templates")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load"
    ]
    assert found == ["custom/learning/torch_file.py"]
