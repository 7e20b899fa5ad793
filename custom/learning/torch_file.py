# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Reading what torch.save wrote, without running what it holds and in no more memory than the file has bytes.

torch.save writes a zip archive that compresses nothing, but torch.load also reads a compressed one, and a tensor may
say that its values repeat (a stride of 0). Either makes gigabytes of a small file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict

from custom.errors import BundleError

ZIP = b"PK\x03\x04"
SAVE_AGAIN = "save it again with torch.save, which compresses nothing, and tensors as .clone()"


def _array(value: Any) -> np.ndarray:
    try:
        return value.detach().numpy()
    except (AttributeError, TypeError, RuntimeError) as error:
        raise ValueError("no tensor that an array can hold") from error


Array = Annotated[np.ndarray, BeforeValidator(_array)]  # in a Content; a tensor in the file


class Content(BaseModel):
    """The schema of a file: a dictionary with these fields, of these types. More of them are left out."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


C = TypeVar("C", bound=Content)


def read_as(path: Path, schema: type[C]) -> C:
    """The content, by its schema; raises as `read_torch`, and pydantic's ValidationError."""
    return schema.model_validate(read_torch(path))


def read_torch(path: Path) -> Any:
    """The content, on the CPU.

    Raises:
        BundleError: it would take more memory than the file has bytes.
        Exception: of many kinds, that torch raises; its own text advises to switch the protection off.
    """
    _check_archive(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    _check_tensors(path, content)
    return content


def _check_archive(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return  # of torch before 1.6, which is not compressed
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise _too_large(path, "it is compressed")
    if sum(part.file_size for part in parts) > path.stat().st_size:
        raise _too_large(path, "its parts share bytes")


def _check_tensors(path: Path, content: Any) -> None:
    memory: dict[int, int] = {}  # bytes by address, as tensors may share them
    for tensor in _tensors(content):
        if tensor.layout != torch.strided or tensor.is_meta:
            continue  # no weights of ours: refused by whoever reads them
        storage = tensor.untyped_storage()
        memory[storage.data_ptr()] = storage.nbytes()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise _too_large(path, f"a tensor of shape {tuple(tensor.shape)} repeats its values")
    if sum(memory.values()) > path.stat().st_size:
        raise _too_large(path, "its tensors are larger than the file")


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if torch.is_tensor(value):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value


def _too_large(path: Path, problem: str) -> BundleError:
    problem = f"would take more memory than it has bytes: {problem}"
    return BundleError(problem, code="model-file-inflated", key=str(path), remedy=SAVE_AGAIN)
