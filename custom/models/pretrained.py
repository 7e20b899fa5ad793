# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Where the files of a pretrained Hugging Face encoder are: a local folder, the Hub, or nowhere.

Model and data ask here, so that the encoder and the tokenizer of one process are of the same kind.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from threading import Thread

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from transformers.utils import logging as transformers_logging

from custom.data.component import missing_is_error
from custom.data.folders import without_tilde
from custom.errors import BundleError

AGREES = ("model_name_or_path", "on_missing")  # what model and data of a job must have alike: `--set` changes both
EMBEDDED = "embedded"  # in place of a name: the small encoder, and no question to the Hub
HUB_TIMEOUT_S = 5.0
SILENCE_S = 120.0  # after a time-out, no process of this user asks again: with -t below -n each task is a new one
FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
OTHER_FORMATS = ["*/*", "openvino*", "tf_*", "flax_*", "rust_*"]  # many times the size of what is needed

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")

logger = logging.getLogger(__name__)


def find_pretrained(model_name_or_path: str, on_missing: str) -> Path | None:
    """The folder with the encoder's files, or None for the embedded encoder.

    The Hub is asked once in a process, and not at all with HF_HUB_OFFLINE=1, or when it has just let another process
    wait in vain; what it gave before is in its cache.

    Args:
        model_name_or_path: a folder, the name of a repository on the Hub, or `embedded`.
        on_missing: when the Hub does not answer, take the `embedded` encoder with a warning, or make it an `error`.

    Raises:
        BundleError: there is no such folder or repository, or the Hub does not answer and `on_missing`, or the
            environment variable FLARE_ON_MISSING of this site, is `error`.
    """
    check_setting(model_name_or_path, on_missing)
    if model_name_or_path == EMBEDDED:
        return None
    folder = without_tilde(model_name_or_path)
    if folder.is_dir():
        return folder.absolute()
    if not _HUB_ID.fullmatch(model_name_or_path):
        raise BundleError(
            "no such folder",
            code="encoder-missing",
            key="model_name_or_path",
            got=model_name_or_path,
            remedy="give a folder in the Hugging Face format, or a name such as google-bert/bert-base-cased",
        )
    found = _ask_hub(model_name_or_path)
    if isinstance(found, Path):
        return found
    if missing_is_error(on_missing):
        raise BundleError(
            "is not a folder here, and cannot be downloaded from the Hugging Face Hub",
            code="encoder-missing",
            key=f"model_name_or_path {model_name_or_path}",
            got=found,
            remedy="download it where there is a network and give the folder",
        )
    logger.warning(
        "%s is not a folder here, and cannot be downloaded from the Hugging Face Hub: %s", model_name_or_path, found
    )
    return None


def check_setting(model_name_or_path: object, on_missing: object) -> None:
    """Raises BundleError if one of the two is of the wrong kind."""
    if not isinstance(model_name_or_path, str) or not model_name_or_path:
        raise BundleError(
            code="encoder-missing",
            key="model_name_or_path",
            expected="a folder or a name on the Hub",
            got=model_name_or_path,
        )
    if on_missing not in ("embedded", "error"):
        raise BundleError(
            code="setting-value", key="on_missing", expected="one of embedded, error", got=repr(on_missing)
        )


@lru_cache(maxsize=8)
def _ask_hub(name: str) -> Path | str:
    """The folder in the Hub's cache, or why there is none."""
    try:
        _check_answers(name)
        return _snapshot(name)
    except Exception as error:  # of the Hub's client, of its HTTP library, or of the disk
        with contextlib.suppress(Exception):
            return _snapshot(name, local_files_only=True)
        if isinstance(error, RepositoryNotFoundError):
            raise BundleError(
                "the Hugging Face Hub has no such repository, or does not show it without a token",
                code="encoder-missing",
                key="model_name_or_path",
                got=name,
                remedy="correct the name, or set HF_TOKEN at this site",
            ) from error
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"


def _snapshot(name: str, local_files_only: bool = False) -> Path:
    return Path(
        snapshot_download(
            name,
            allow_patterns=FILES,
            ignore_patterns=OTHER_FORMATS,
            etag_timeout=HUB_TIMEOUT_S,
            local_files_only=local_files_only,
        )
    )


def _check_answers(name: str) -> None:
    """Raises what the Hub's client does; `snapshot_download` would wait for minutes on a network that drops packets."""
    if not constants.HF_HUB_OFFLINE:
        _check_silence()
    try:
        _within(HUB_TIMEOUT_S, partial(HfApi().model_info, name, timeout=HUB_TIMEOUT_S))
    except TimeoutError:
        with contextlib.suppress(OSError):  # a home that cannot be written to costs time only
            _silence_file().parent.mkdir(parents=True, exist_ok=True)
            _silence_file().write_text(constants.ENDPOINT, encoding="utf-8")
        raise


def _within(seconds: float, call: Callable[[], object]) -> None:
    """The client's own time-outs are for each address of the Hub and each read: together they have no bound."""
    failures: list[Exception] = []

    def ask() -> None:
        try:
            call()
        except Exception as error:
            failures.append(error)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"{constants.ENDPOINT} did not answer within {seconds:g} s")
    if failures:
        raise failures[0]


def _silence_file() -> Path:
    """Beside the Hub's cache, where its client keeps such notes as well; its age is that of the last time-out."""
    return Path(constants.HF_HOME) / ".flare_bundle_no_answer"


def _check_silence() -> None:
    try:
        age = time.time() - _silence_file().stat().st_mtime
        silent = _silence_file().read_text(encoding="utf-8")
    except OSError:
        return
    if silent == constants.ENDPOINT and 0 <= age < SILENCE_S:
        raise TimeoutError(f"{silent} did not answer {age:.0f} s ago; it is asked again {SILENCE_S:g} s after that")


@contextlib.contextmanager
def reading(what: str, folder: Path, remedy: str) -> Iterator[None]:
    """Around the reading of a folder by transformers: quiet, and whatever is wrong with its files is a BundleError."""
    try:
        with quiet():
            yield
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(
            f"no {what} can be read from this folder",
            code="encoder-unfit",
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
