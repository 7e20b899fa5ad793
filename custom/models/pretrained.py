# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Where the files of a pretrained Hugging Face encoder are: a local folder, the Hub, or nowhere.

Model and data ask here, so that the encoder and the tokenizer of one process are of the same kind.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from transformers.utils import logging as transformers_logging

from custom.errors import BundleError

AGREES = ("model_name_or_path", "on_missing")  # what model and data of a job must have alike: `--set` changes both
EMBEDDED = "embedded"  # in place of a name: the small encoder, and no question to the Hub
HUB_TIMEOUT_S = 5.0
FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
OTHER_FORMATS = ["*/*", "openvino*", "tf_*", "flax_*", "rust_*"]  # many times the size of what is needed

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")

logger = logging.getLogger(__name__)


def find_pretrained(model_name_or_path: str, on_missing: str) -> Path | None:
    """The folder with the encoder's files, or None for the embedded encoder.

    The Hub is asked once in a process, and not at all with HF_HUB_OFFLINE=1; what it gave before is in its cache.

    Args:
        model_name_or_path: a folder, the name of a repository on the Hub, or `embedded`.
        on_missing: when the Hub does not answer, take the `embedded` encoder with a warning, or make it an `error`.

    Raises:
        BundleError: there is no such folder or repository, or the Hub does not answer and `on_missing` is `error`.
    """
    check_setting(model_name_or_path, on_missing)
    if model_name_or_path == EMBEDDED:
        return None
    folder = Path(model_name_or_path).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if not _HUB_ID.fullmatch(model_name_or_path):
        raise BundleError(
            "no such folder",
            key="model_name_or_path",
            got=model_name_or_path,
            remedy="give a folder in the Hugging Face format, or a name such as google-bert/bert-base-cased",
        )
    found = _ask_hub(model_name_or_path)
    if isinstance(found, Path):
        return found
    if on_missing == "error":
        raise BundleError(
            "is no folder here, and cannot be had from the Hugging Face Hub",
            key=f"model_name_or_path {model_name_or_path}",
            got=found,
            remedy="download it where there is a network and give the folder",
        )
    logger.warning("%s is no folder here, and cannot be had from the Hugging Face Hub: %s", model_name_or_path, found)
    return None


def check_setting(model_name_or_path: object, on_missing: object) -> None:
    """Raises BundleError if one of the two is of the wrong kind."""
    if not isinstance(model_name_or_path, str) or not model_name_or_path:
        raise BundleError(key="model_name_or_path", expected="a folder or a name on the Hub", got=model_name_or_path)
    if on_missing not in ("embedded", "error"):
        raise BundleError(key="on_missing", expected="one of embedded, error", got=repr(on_missing))


@lru_cache(maxsize=8)
def _ask_hub(name: str) -> Path | str:
    """The folder in the Hub's cache, or why there is none."""
    try:
        return Path(
            snapshot_download(name, allow_patterns=FILES, ignore_patterns=OTHER_FORMATS, etag_timeout=HUB_TIMEOUT_S)
        )
    except RepositoryNotFoundError as error:
        raise BundleError(
            "the Hugging Face Hub has no such repository, or does not show it without a token",
            key="model_name_or_path",
            got=name,
            remedy="correct the name, or set HF_TOKEN at this site",
        ) from error
    except Exception as error:  # of the Hub's client, of its HTTP library, or of the disk
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"


@contextlib.contextmanager
def reading(what: str, folder: Path, remedy: str) -> Iterator[None]:
    """Around the reading of a folder by transformers: quiet, and whatever is wrong with its files is a BundleError."""
    try:
        with quiet():
            yield
    except Exception as error:
        raise BundleError(
            f"no {what} can be read from this folder",
            key=f"model_name_or_path {folder}",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            remedy=remedy,
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and notes of transformers, which end up in FLARE's logs."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
