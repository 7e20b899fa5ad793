# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The tokenizer that belongs to an encoder, and the small one that is embedded."""

from __future__ import annotations

import hashlib
import string
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from custom.data.headlines import words
from custom.errors import BundleError
from custom.models.pretrained import EMBEDDED, find_pretrained, reading

EMBEDDED_LENGTH = 256  # tokens that the embedded encoder has positions for
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PROBE = "Oil's Rise, 42 naïve words"  # shows whether capitals, accents and punctuation are treated alike


def load_tokenizer(model_name_or_path: str, on_missing: str) -> Any:
    """A transformers tokenizer; see `custom.models.pretrained.find_pretrained`.

    Raises:
        BundleError: there is none, or it has no padding token.
    """
    folder = find_pretrained(model_name_or_path, on_missing)
    return embedded_tokenizer() if folder is None else _read(folder)


def vocabulary() -> dict[str, int]:
    """Of the embedded tokenizer: the words of the embedded headlines, and characters to spell all others with."""
    characters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL, *string.punctuation, *characters, *(f"##{letter}" for letter in characters), *words()]
    return {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}


def embedded_tokenizer() -> Any:
    """WordPiece over `vocabulary()`, lower case, as `[CLS] ... [SEP]`."""
    pieces = vocabulary()
    tokenizer = Tokenizer(WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    ends = [(token, pieces[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, name_or_path=EMBEDDED, model_max_length=EMBEDDED_LENGTH, **names
    )


def is_embedded(tokenizer: Any) -> bool:
    """Is it the embedded one, and with it the encoder of `custom.models.bert_classifier`?"""
    return bool(tokenizer.name_or_path == EMBEDDED)


def fingerprint(tokenizer: Any) -> str:
    """Tells tokenizers apart by their entries and by what they make of a probe, and not by the folder they are in."""
    entries = "\n".join(f"{piece}\t{place}" for piece, place in sorted(tokenizer.get_vocab().items()))
    digest = hashlib.md5(f"{entries}\n{tokenizer(PROBE)['input_ids']}".encode(), usedforsecurity=False).hexdigest()
    known_as = f"{EMBEDDED}, " if is_embedded(tokenizer) else ""
    return f"{known_as}{len(tokenizer)} entries, digest {digest[:12]}"


def _read(folder: Path) -> Any:
    with reading("tokenizer", folder, "it needs tokenizer.json, or vocab.txt and tokenizer_config.json"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        raise BundleError(
            "has no padding token",
            code="encoder-unfit",
            key=f"model_name_or_path {folder}",
            remedy="choose a BERT encoder",
        )
    return tokenizer
