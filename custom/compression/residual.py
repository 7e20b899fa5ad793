# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Error feedback: what is not sent in one round is added to the next round's update.

Seide et al. 2014 (https://doi.org/10.21437/Interspeech.2014-274), Stich et al. 2018, "Sparsified SGD with Memory"
(https://arxiv.org/abs/1809.07599), Karimireddy et al. 2019 (https://arxiv.org/abs/1901.09847).

Nothing is lost and nothing counts twice: sent + residual is the update bit for bit, and what was sent counts as sent
only once the server says that it took it; until then it is kept, and comes back into the residual if it did not. The
state lives in a file, for a site's process may be a new one in every round. One round:

    state = load(path, update)
    update = compensate(update, state, taken_round)
    indices = topk.select(update, ...)
    payload = wire.encode(update, indices, value_type)
    sent = {name: Entries(indices[name], values) for name, values in payload.values.items()}
    save(path, hold_back(update, sent, round_number))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from custom.checks.update import SAME_MODEL, Tensors
from custom.compression.wire import Entries
from custom.errors import BundleError
from custom.learning.torch_file import Array, Content, read_as
from custom.learning.weights import save_atomically


class Damaged(BundleError):
    """The file of a state cannot be read."""


class State(NamedTuple):
    """What a site remembers between two rounds.

    Attributes:
        round_number: in which `sent` was sent.
        residual: tensor name to what has not been sent, in the update's shape and dtype.
        sent: tensor name to what was, of which the server's word is still awaited; values float32 or float16.
    """

    round_number: int
    residual: dict[str, NDArray[Any]]
    sent: dict[str, Entries]


def compensate(update: Tensors, state: State | None, taken_round: int | None) -> dict[str, NDArray[Any]]:
    """The update, what was held back before, and what was sent in vain.

    A round that a site trains again (its first answer was lost) counts with both of its trainings.

    Args:
        update: tensor name to floating-point difference.
        state: None before the first round.
        taken_round: the last round of which the server took this site's update, as it says; None if there is none.

    Returns:
        New arrays, in the update's shapes and dtypes.

    Raises:
        BundleError: the state is of another model.
    """
    if state is None:
        return {name: np.array(value, order="C") for name, value in update.items()}
    check_same(update, state.residual)
    in_vain = state.sent if taken_round != state.round_number else {}
    total = {}
    for name, value in update.items():
        total[name] = np.array(state.residual[name], order="C")
        if name in in_vain:
            _put_back(total[name].reshape(-1), in_vain[name])
        total[name] += value
    return total


def _put_back(residual: NDArray[Any], sent: Entries) -> None:
    """Undoes `hold_back`, in place and exactly, be it for the sign of a zero."""
    left, values = residual[sent.indices], sent.values.astype(residual.dtype)
    residual[sent.indices] = np.where(left == 0, values, left + values)


def hold_back(update: dict[str, NDArray[Any]], sent: Mapping[str, Entries], round_number: int) -> State:
    """Turns what `compensate` returned into the next state, in place: zero where it was sent whole.

    Where a value was rounded to be sent, the difference stays. It is exact: a value and its nearest in a shorter format
    are within a factor of two of each other (Sterbenz 1974), or that nearest is 0.

    Args:
        update: C-contiguous arrays; they become the state's.
        sent: tensor name to the entries that travel, with the values that travel.
        round_number: of the task.

    Raises:
        BundleError: a value of the update is NaN or infinite, and would come back in every later round.
    """
    for name, value in update.items():
        if not np.isfinite(value).all():
            remedy = "is the learning rate too high at this site?"
            raise BundleError(
                "a value is NaN or infinite",
                code="update-not-finite",
                round_number=round_number,
                key=name,
                remedy=remedy,
            )
    for name, (indices, values) in sent.items():
        flat = update[name].reshape(-1, copy=False)
        flat[indices] -= values.astype(flat.dtype)
    return State(round_number, update, dict(sent))


def check_same(update: Tensors, residual: Tensors) -> None:
    """Compares names, shapes and dtypes.

    Raises:
        BundleError: names the first tensor that differs.
    """
    for name in sorted(update.keys() | residual.keys()):
        expected, got = (
            (t[name].shape, t[name].dtype.name) if name in t else "no such tensor" for t in (update, residual)
        )
        if expected != got:
            problem = "the residual is of another model"
            raise BundleError(problem, code="update-shape", key=name, expected=expected, got=got, remedy=SAME_MODEL)


def save(path: Path, state: State) -> None:
    """Writes the state; `path` is always a whole file, the old one or the new one."""
    content = {
        "round_number": state.round_number,
        "residual": {name: torch.from_numpy(value) for name, value in state.residual.items()},
        "sent": {name: [torch.from_numpy(part) for part in entries] for name, entries in state.sent.items()},
    }
    save_atomically(content, path)


class _File(Content):
    round_number: int
    residual: dict[str, Array]
    sent: dict[str, Annotated[list[Array], Field(min_length=2, max_length=2)]]


def _fits(residual: NDArray[Any], sent: Entries) -> bool:
    """Can `_put_back` put it there?"""
    indices, values = sent
    vectors = indices.ndim == values.ndim == 1 and indices.size == values.size
    kinds = indices.dtype.kind in "iu" and values.dtype.kind == "f"
    return vectors and kinds and bool(np.all((indices >= 0) & (indices < residual.size)))


def load(path: Path, update: Tensors) -> State | None:
    """Reads the state; None where there is no file yet.

    Args:
        path: as given to `save`.
        update: names, shapes and dtypes that the state must be of.

    Raises:
        Damaged: the file cannot be read, or holds more than tensors and plain values.
        BundleError: it is of another model.
    """
    if not path.exists():
        return None
    try:
        content = read_as(path, _File)
        sent = {name: Entries(*parts) for name, parts in content.sent.items()}
        if not all(name in content.residual and _fits(content.residual[name], sent[name]) for name in sent):
            raise ValueError("what was sent is not of this residual")
        state = State(content.round_number, content.residual, sent)
    except Exception as error:  # torch's own text advises to switch the protection off
        raise Damaged(
            "cannot be read: it is damaged, or not a residual", code="site-state-damaged", key=str(path)
        ) from error
    check_same(update, state.residual)
    return state
