# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One site's texts: tokenised once, kept without padding, and padded to the longest of each batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from custom.data.site_data import Batch

POOL_BATCHES = 32  # a shuffled order is sorted by length within so many batches, to save padding
CHUNK = 1000  # texts given to the tokenizer at a time


@dataclass(frozen=True)
class Tokens:
    """Token numbers of all texts, int32, one after the other; text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]

    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens by text."""
        return np.diff(self.offsets)

    def batch(self, rows: NDArray[np.int64], pad_id: int, device: torch.device) -> Batch:
        """`{"input_ids", "attention_mask"}`, int64 of shape (rows, longest), and labels of shape (rows,)."""
        lengths = self.lengths()[rows]
        mask = np.arange(lengths.max()) < lengths[:, None]
        padded = np.full(mask.shape, pad_id, dtype=np.int64)
        padded[mask] = np.concatenate([self.ids[self.offsets[row] : self.offsets[row + 1]] for row in rows])
        inputs = {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        labels = torch.from_numpy(self.labels[rows])
        return {name: tensor.to(device) for name, tensor in inputs.items()}, labels.to(device)


def tokenise(tokenizer: Any, texts: Sequence[str], labels: NDArray[np.int64], max_length: int) -> Tokens:
    """At most `max_length` tokens a text, those that begin and end it included."""
    parts, lengths = [np.empty(0, dtype=np.int32)], [0]
    for start in range(0, len(texts), CHUNK):
        rows = tokenizer(
            list(texts[start : start + CHUNK]), truncation=True, max_length=max_length, return_attention_mask=False
        )["input_ids"]
        lengths += [len(row) for row in rows]
        parts.append(np.concatenate([np.array(row, dtype=np.int32) for row in rows]))
    return Tokens(np.concatenate(parts), np.cumsum(lengths, dtype=np.int64), labels)


class TextSiteData:
    """The splits of one site; see `custom.data.site_data.SiteData`.

    Args:
        facts: what `describe` returns.
        tokens: the site's texts by split, `train`, `validation` and `test`.
        pad_id: token number of the padding.
        left_out: rows of the files that were not used, by reason.
        warnings: see `custom.data.remarks`.
    """

    def __init__(
        self,
        facts: dict[str, Any],
        tokens: Mapping[str, Tokens],
        pad_id: int,
        left_out: Mapping[str, int] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self._facts, self._tokens, self._pad_id, self._left_out = facts, tokens, pad_id, dict(left_out or {})
        self._warnings = list(warnings)

    def describe(self) -> dict[str, Any]:
        """Facts that the sites of one federation must agree on."""
        return dict(self._facts)

    def size(self, split: str) -> int:
        """Number of samples in `split`."""
        return len(self._tokens[split].labels)

    def left_out(self) -> dict[str, int]:
        """How many rows of the files that the site reads were not used, by reason."""
        return dict(self._left_out)

    def data_warnings(self) -> list[str]:
        """What may make the result wrong."""
        return self._warnings

    def labels_of(self, split: str) -> torch.Tensor:
        """int64 of shape (samples,); the texts are token numbers, and so finite."""
        return torch.from_numpy(self._tokens[split].labels)

    def batches(
        self, split: str, batch_size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """See `Tokens.batch`. Texts of like length share a batch: the order is by length, or shuffled but for that."""
        tokens = self._tokens[split]
        for rows in order_by_length(tokens.lengths(), batch_size, generator):
            yield tokens.batch(rows, self._pad_id, device)


def order_by_length(
    lengths: NDArray[np.int64], batch_size: int, generator: torch.Generator | None
) -> list[NDArray[np.int64]]:
    """Places of the texts of each batch; only the last batch may be smaller.

    Without a generator all are sorted by length. With one they are shuffled, sorted within each pool of 32 batches, and
    the whole batches shuffled again.
    """
    places = np.arange(len(lengths)) if generator is None else _permutation(len(lengths), generator)
    pool = max(1, len(lengths)) if generator is None else POOL_BATCHES * batch_size
    pools = (places[start : start + pool] for start in range(0, len(places), pool))
    ordered = [part[np.argsort(lengths[part], kind="stable")] for part in pools]
    batches = [part[start : start + batch_size] for part in ordered for start in range(0, len(part), batch_size)]
    if generator is None:
        return batches
    whole = len(lengths) // batch_size
    return [batches[place] for place in _permutation(whole, generator)] + batches[whole:]


def _permutation(number: int, generator: torch.Generator) -> NDArray[np.int64]:
    places: NDArray[np.int64] = torch.randperm(number, generator=generator).numpy()
    return places
