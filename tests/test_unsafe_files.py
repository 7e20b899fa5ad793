# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Files that run code when they are read carelessly: the readers of this project refuse them, and none reads so."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle import ROOT
from custom import checkpoint
from custom.compression import changes, residual
from custom.data.leaf_shard import read_shard
from custom.data.pneumonia_mnist import open_pneumonia_mnist
from custom.data.writer_cache import open_converted
from custom.errors import BundleError
from custom.learning.weights import load_weights
from custom.models.bert_classifier import BertClassifier, save_pretrained
from tests.poisoned import Touch

FOLDERS = ("custom", "controllers", "bundle", "dashboard", "workspace_templates")
CARELESS = {"eval", "exec", "__import__", "pickle.load", "pickle.loads", "os.system", "yaml.load", "joblib.load"}


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """What the payload would leave; it must not be there in the end."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "read",
    [
        load_weights,
        checkpoint.load,
        changes.load,
        lambda path: residual.load(path, {"w": np.zeros(2, np.float32)}),
    ],
    ids=["model", "checkpoint of a job", "held model of a site", "residual of a site"],
)
@pytest.mark.parametrize("form", ["of torch", "bare"])
def test_a_poisoned_model(tmp_path: Path, marker: Path, read: Callable[[Path], object], form: str) -> None:
    path = tmp_path / "poisoned.pt"
    torch.save({"model": Touch(marker)}, path)
    if form == "bare":
        path.write_bytes(pickle.dumps({"model": Touch(marker)}))
    with pytest.raises(BundleError, match=r"poisoned\.pt"):
        read(path)


def test_poisoned_arrays(tmp_path: Path, marker: Path) -> None:
    poison = np.array([Touch(marker)], dtype=object)
    np.savez(tmp_path / "pneumoniamnist.npz", train_images=poison, train_labels=poison)
    with pytest.raises(BundleError, match="not PneumoniaMNIST"):
        open_pneumonia_mnist(tmp_path / "pneumoniamnist.npz", None)

    def convert(folder: Path) -> None:
        np.save(folder / "images.npy", poison)
        np.save(folder / "labels.npy", np.zeros(1, np.int64))
        np.save(folder / "offsets.npy", np.array([0, 1]))
        (folder / "facts.json").write_text("{}")

    with pytest.raises(BundleError, match="a damaged file in the cache"):
        open_converted(tmp_path / "cache", "x", [], convert)


def test_a_poisoned_file_of_writers(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "all_data_0.json").write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(BundleError, match="cut off or damaged"):
        list(read_shard(tmp_path / "all_data_0.json"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_poisoned_encoder(tmp_path: Path, marker: Path, name: str) -> None:
    """transformers also takes the older of the two formats, a pickle."""
    folder = tmp_path / "encoder"
    save_pretrained(BertClassifier("embedded"), folder)
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Touch(marker)}, folder / name)
    model = BertClassifier(str(folder))
    with pytest.raises(BundleError, match="encoder"):
        model({"input_ids": torch.ones(1, 4).long(), "attention_mask": torch.ones(1, 4).long()})


def test_an_encoder_that_brings_code(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "encoder"
    save_pretrained(BertClassifier("embedded"), folder)
    text = (folder / "config.json").read_text()
    code = '{"auto_map": {"AutoModel": "mine.Mine", "AutoConfig": "mine.Config"}, "model_type": "mine",'
    (folder / "config.json").write_text(text.replace("{", code, 1).replace('"model_type": "bert"', '"was": "bert"'))
    (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(BundleError):
        BertClassifier(str(folder))({"input_ids": torch.ones(1, 4).long(), "attention_mask": torch.ones(1, 4).long()})


def test_nothing_is_read_or_run_carelessly() -> None:
    """Also what has no test above, and what is yet to be written."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            found += [
                f"{path.relative_to(ROOT)}:{call.lineno} {problem}" for call in calls if (problem := careless(call))
            ]
    assert not found


def careless(call: ast.Call) -> str:
    """What is wrong with a call; empty if nothing is."""
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    wrong = {
        "weights_only": name == "torch.load" and given.get("weights_only") != "True",
        "allow_pickle": name == "np.load" and given.get("allow_pickle") != "False",
        "shell": "shell" in given,
        "trust_remote_code": given.get("trust_remote_code", "False") != "False",
        "filter": name.endswith(".extractall") and "tar" in name and given.get("filter") != "'data'",
        "never": name in CARELESS,
    }
    return ", ".join(f"{name}: {reason}" for reason, applies in wrong.items() if applies)


@pytest.mark.parametrize(
    "code",
    ["torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)", "run('x', shell=True)", "eval('1')"],
)
def test_what_is_careless_is_found(code: str) -> None:
    call = ast.parse(code).body[0]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert careless(call.value)
