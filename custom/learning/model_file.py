# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Files of weights: torch.save, Lightning checkpoints, safetensors. Read without running what they hold.

What cannot be read is refused with the reason, since torch's own text advises to switch the protection off.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from custom.errors import BundleError
from custom.learning.torch_file import ZIP, read_torch
from custom.printable import shown

# Under which name checkpoints hold the weights: FLARE and this bundle, Lightning, PyTorch's tutorials.
ENTRIES = ("model", "state_dict", "model_state_dict")
SAVE = "save the weights alone: torch.save(model.state_dict(), FILE)"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_LFS = b"version https://git-lfs"
_OTHER_FORMATS = {b"\x89HDF": "an HDF5 file (Keras)", b"\x93NUMPY": "a NumPy array", b"GGUF": "a GGUF file"}


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU, by name.

    Raises:
        BundleError: the file is missing, cut short, of another format, or holds more than tensors and plain values.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        remedy = "expected a file with a state_dict, such as FL_global_model.pt"
        raise BundleError(problem, code="model-file-missing", key=str(path), remedy=remedy)
    with path.open("rb") as file:
        head = file.read(512)
    _check_format(path, head)
    if head[8:9] == b"{" and head[:2] != ZIP[:2]:
        return _read_safetensors(path)
    return _state_dict_in(path, _load(path))


def unreadable(path: Path, problem: str, remedy: str = SAVE) -> BundleError:
    """The error about a file that is there and cannot be used."""
    return BundleError(problem, code="model-file-unreadable", key=str(path), remedy=remedy)


def _check_format(path: Path, head: bytes) -> None:
    """Raises BundleError about what is known at sight not to be weights."""
    if not head:
        raise unreadable(path, "cannot be loaded safely: it is empty", "copy or download it again")
    if head.startswith(_LFS):
        raise unreadable(path, "is a git-lfs pointer and not the model", "fetch the model with: git lfs pull")
    if head.lstrip()[:1] == b"<":
        raise unreadable(path, "is a web page and not a model", "download the file itself")
    for magic, what in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise unreadable(path, f"is {what} and not weights of PyTorch")
    if not head.startswith(ZIP):
        return
    if not zipfile.is_zipfile(path):
        raise unreadable(path, "cannot be loaded safely: it is cut short", "copy or download it again, whole")
    with zipfile.ZipFile(path) as archive:
        names = [name.rpartition("/")[2] for name in archive.namelist()]
    if "constants.pkl" in names:
        raise unreadable(path, "is TorchScript (torch.jit.save), which holds code that is not run here")
    if "data.pkl" not in names:
        raise unreadable(path, "is an archive of something else than weights")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file  # of transformers; most jobs have no such file
    except ImportError as error:
        remedy = "pip install safetensors there, or " + SAVE
        raise BundleError("safetensors cannot be read", code="package-missing", key=str(path), remedy=remedy) from error
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except Exception as error:
        raise unreadable(
            path, f"is not a whole safetensors file ({error})", "copy or download it again, whole"
        ) from error
    if not tensors:
        raise unreadable(path, "holds no tensors")
    return tensors


def _load(path: Path) -> Any:
    try:
        return read_torch(path)
    except BundleError:
        raise
    except Exception as error:
        found = _GLOBAL.search(str(error))
        if found is None:
            reason, remedy = "it is cut short, or not written by torch.save", "expected a state_dict; " + SAVE
        elif found[1].startswith("numpy."):
            reason, remedy = f"it holds a NumPy value ({found[1]}) beside the weights", SAVE
        else:
            reason = f"it holds a Python object ({found[1]}), as torch.save(model) and some checkpoints do"
            remedy = SAVE
        raise unreadable(path, f"cannot be loaded safely: {reason}", remedy) from error


def _state_dict_in(path: Path, content: Any) -> dict[str, torch.Tensor]:
    """The file's content if it is a state_dict, else the entry of it that is one."""
    if _is_state_dict(content):
        return dict(content)
    if not isinstance(content, Mapping):
        raise unreadable(path, f"holds no state_dict, but {type(content).__name__}")
    inner = [key for key, value in content.items() if _is_state_dict(value)]
    chosen = [key for key in ENTRIES if key in inner] or inner
    if len(chosen) == 1:
        return dict(content[chosen[0]])
    for key in ENTRIES:
        if isinstance(value := content.get(key), Mapping) and value and not chosen:
            odd = next(name for name in value if not (isinstance(name, str) and torch.is_tensor(value[name])))
            kind = type(value[odd]).__name__ if isinstance(odd, str) else "not named by a text"
            raise unreadable(path, f"holds no state_dict of tensors alone: {key}.{shown(odd)} is {kind}")
    names = ", ".join(map(shown, (chosen or list(content))[:5])) or "nothing"
    raise unreadable(path, f"holds {'several state_dicts' if chosen else 'no state_dict'} ({names})")


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(name, str) and torch.is_tensor(tensor) for name, tensor in value.items())
