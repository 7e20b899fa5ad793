# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Does a tokenizer know the words of a site's texts? A model cannot learn from tokens that all read `[UNK]`.

That is so if the tokenizer's files are missing or cut off, and if the texts are of another language than the encoder.
Of news in English, BERT does not know 0.1 % of the tokens; in texts full of emoji about 5 %. Above a fifth, more than
every fifth word is lost. A byte-pair tokenizer has no unknown token: what it does not know, it leaves out, so texts of
which nothing is left count as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from custom.data.text_batches import Tokens
from custom.errors import BundleError

MOST_UNKNOWN = 0.2
WORTH_A_WARNING = 0.05


@dataclass(frozen=True)
class Known:
    """What a tokenizer made of texts.

    Attributes:
        texts: how many there are.
        tokens: of all texts, without those that begin and end a text.
        unknown: how many of them stand for a word that the tokenizer does not know.
        empty: texts of which no token is left.
        largest: the largest token number.
    """

    texts: int
    tokens: int
    unknown: int
    empty: int
    largest: int

    def share(self) -> float:
        """Of the tokens that are unknown or, if that is more, of the texts that are empty."""
        return max(self.unknown / max(self.tokens, 1), self.empty / max(self.texts, 1))


def count_known(tokenizer: Any, tokens: Mapping[str, Tokens]) -> Known:
    """Counts the tokens of all splits."""
    ends, unknown = tokenizer.num_special_tokens_to_add(), tokenizer.unk_token_id
    parts = tokens.values()
    return Known(
        texts=sum(len(part.labels) for part in parts),
        tokens=sum(len(part.ids) - ends * len(part.labels) for part in parts),
        unknown=0 if unknown is None else sum(int((part.ids == unknown).sum()) for part in parts),
        empty=sum(int((part.lengths() <= ends).sum()) for part in parts),
        largest=max(int(part.ids.max(initial=-1)) for part in parts),
    )


def check_known(site: str, known: Known, embeddings: int | None) -> list[str]:
    """A warning where many tokens are unknown.

    Args:
        site: its name.
        known: of all texts of the site.
        embeddings: how many the encoder has, if it says so.

    Raises:
        BundleError: too many tokens are unknown, or the encoder has no embedding for one.
    """
    if embeddings is not None and known.largest >= embeddings:
        raise BundleError(
            "the tokenizer is not that of the encoder",
            code="encoder-unfit",
            site=site,
            key="model_name_or_path",
            expected=f"token numbers below {embeddings}, the vocab_size in config.json",
            got=known.largest,
            remedy="copy the encoder's own tokenizer files into its folder",
        )
    got = f"{100 * known.share():.1f} % ({known.unknown} of {known.tokens} tokens; {known.empty} of {known.texts} texts"
    if known.share() > MOST_UNKNOWN:
        raise BundleError(
            "the tokenizer does not know the words of this site's texts",
            code="encoder-unfit",
            site=site,
            key="model_name_or_path",
            expected=f"at most {100 * MOST_UNKNOWN:g} % unknown",
            got=f"{got} are empty)",
            remedy="check that the encoder's tokenizer files are whole, or choose an encoder for the texts' language",
        )
    return [f"the tokenizer does not know {got} are empty)"] if known.share() > WORTH_A_WARNING else []
