# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The tokenizer that belongs to an encoder, and the small one that is embedded."""

from __future__ import annotations

import hashlib
import json
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
from custom.models.encoder_config import longest_text, read_config, unfit, vocabulary_size
from custom.models.pretrained import EMBEDDED, find_pretrained, reading

EMBEDDED_LENGTH = 256  # tokens that the embedded encoder has positions for
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PROBE = "Oil's Rise, 42 naïve words"  # shows whether capitals, accents and punctuation are treated alike
PADDED = 127  # entries by which a vocabulary is rounded up to a multiple of 128
SPARE = 0.02  # published encoders have at most 0.4 % more embeddings than their tokenizer has entries
CASED = 0.1  # the share of entries with capitals; a vocabulary of small letters has almost none, BERT's other a third
MERGED = 0.75  # the share of a byte-pair vocabulary that merges must make, beyond the 256 bytes it begins with
FILES = "the encoder's own tokenizer.json, or vocab.txt, vocab.json with merges.txt, or a SentencePiece model"
COPY = f"copy {FILES}, and tokenizer_config.json into the folder: tokenizer.save_pretrained writes them"


def load_tokenizer(model_name_or_path: str, on_missing: str) -> Any:
    """A transformers tokenizer; see `custom.models.pretrained.find_pretrained`.

    A tokenizer of a folder has `model_max_length` lowered to what the encoder has positions for.

    Raises:
        BundleError: there is none, it has no padding token, or it is not that of the encoder: transformers makes a
            tokenizer without a single word of a folder that lacks the tokenizer's files.
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


def embeddings(tokenizer: Any) -> int | None:
    """How many the encoder that the tokenizer was read with has, if its config.json says so."""
    return len(tokenizer) if is_embedded(tokenizer) else vocabulary_size(read_config(Path(tokenizer.name_or_path)))


def case_warnings(tokenizer: Any) -> list[str]:
    """A cased encoder without its tokenizer_config.json: transformers makes all letters small then."""
    small = tokenizer.tokenize("A") == tokenizer.tokenize("a")
    entries = [entry for entry in tokenizer.get_vocab() if not entry.startswith("[")]  # without [CLS] and its like
    capitals = sum(entry != entry.lower() for entry in entries) / max(len(entries), 1)
    if not small or capitals < CASED:
        return []
    return [
        f"the tokenizer makes capitals small, and {100 * capitals:.0f} % of its entries have capitals, which no text "
        'can have then; unless the encoder was made so, write {"do_lower_case": false} to its tokenizer_config.json'
    ]


def fingerprint(tokenizer: Any) -> str:
    """Tells tokenizers apart by their entries and by what they make of a probe, and not by the folder they are in."""
    entries = "\n".join(f"{piece}\t{place}" for piece, place in sorted(tokenizer.get_vocab().items()))
    digest = hashlib.md5(f"{entries}\n{tokenizer(PROBE)['input_ids']}".encode(), usedforsecurity=False).hexdigest()
    known_as = f"{EMBEDDED}, " if is_embedded(tokenizer) else ""
    return f"{known_as}{len(tokenizer)} entries, digest {digest[:12]}"


def _read(folder: Path) -> Any:
    config = read_config(folder)
    with reading("tokenizer", folder, f"it needs {FILES}, whole"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        entries = tokenizer.get_vocab()
        _check_size(folder, len(entries), vocabulary_size(config))
        tokenizer(PROBE)  # an empty vocabulary is found out only now
    _check_merges(folder, tokenizer, len(entries))
    if tokenizer.pad_token_id is None:
        raise unfit(folder, "has no padding token", remedy="choose a BERT encoder")
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest_text(config) or tokenizer.model_max_length)
    return tokenizer


def _check_size(folder: Path, entries: int, expected: int | None) -> None:
    """Compares the tokenizer with the encoder's vocabulary.

    An encoder has as many embeddings as its tokenizer has entries, or a few more where they were rounded up. A few more
    entries are allowed, if no text uses them: see `custom.data.known_words.check_known`.
    """
    if expected is None or abs(expected - entries) <= max(PADDED, SPARE * expected):
        return
    raise unfit(
        folder,
        "the tokenizer is not that of the encoder, or its files are missing or cut off",
        expected=f"about {expected} entries, the vocab_size in config.json",
        got=entries,
        remedy=f"{COPY}; if the tokenizer is whole, model.resize_token_embeddings(len(tokenizer)) makes them agree",
    )


def _check_merges(folder: Path, tokenizer: Any, entries: int) -> None:
    """A byte-pair tokenizer without its merges spells every word letter by letter, and has every entry all the same."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "BPE":
        return
    merges = len(json.loads(backend.to_str())["model"]["merges"])
    if merges < (least := round(MERGED * (entries - 256 - len(tokenizer.get_added_vocab())))):
        raise unfit(
            folder,
            "the tokenizer's merges are missing or cut off",
            expected=f"at least {least} merges for {entries} entries",
            got=merges,
            remedy=COPY,
        )
