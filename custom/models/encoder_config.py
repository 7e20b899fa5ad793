# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What config.json says of a pretrained encoder: is it one of texts, its vocabulary and its positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)

from custom.errors import BundleError
from custom.models.pretrained import reading

# Architectures that number positions from the padding token's number on, so that the first few are never used.
POSITIONS_AFTER_PADDING = (
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "xmod", "mpnet", "longformer"),
    *("data2vec-text", "ibert", "esm", "luke", "lilt", "layoutlmv3", "markuplm", "jina_embeddings_v3"),
)


def read_config(folder: Path) -> Any:
    """The configuration of the encoder in `folder`. No code that the folder may hold is run.

    Raises:
        BundleError: there is none, it cannot be read, or what it describes is not an encoder of texts.
    """
    if (folder / "adapter_config.json").is_file():
        raise unfit(
            folder,
            "holds an adapter, such as LoRA's, and would be trained without it",
            expected="a whole encoder",
            got="adapter_config.json",
            remedy="give a folder with the encoder that the adapter was merged into",
        )
    if not (folder / "config.json").is_file():
        raise unfit(
            folder,
            "no encoder can be read from this folder",
            got="no config.json",
            remedy=f"give the folder in {folder / 'snapshots'}"
            if (folder / "snapshots").is_dir()  # as the Hub's client keeps it
            else "it needs config.json and model.safetensors, whole, and the files of the tokenizer",
        )
    known = "give an encoder whose model_type the installed transformers knows without code of its own, such as bert"
    with reading("encoder", folder, known):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    _check_is_encoder(folder, config)
    return config


def longest_text(config: Any) -> int | None:
    """How many tokens of a text the encoder has positions for, or None if config.json does not say."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    unused = (config.pad_token_id or 0) + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0
    return positions - unused


def vocabulary_size(config: Any) -> int | None:
    """How many tokens the encoder has embeddings for, or None if it works on characters."""
    return getattr(config, "vocab_size", None)


def unfit(folder: Path, problem: str, expected: Any = None, got: Any = None, remedy: str = "") -> BundleError:
    """The error about an encoder's folder."""
    return BundleError(
        problem,
        code="encoder-unfit",
        key=f"model_name_or_path {folder}",
        expected=expected,
        got=got,
        remedy=remedy,
    )


def _check_is_encoder(folder: Path, config: Any) -> None:
    """Only an encoder reads a text as a whole, and leaves padding on the right out of it."""
    kind = type(config)
    masked, causal = kind in MODEL_FOR_MASKED_LM_MAPPING, kind in MODEL_FOR_CAUSAL_LM_MAPPING
    if getattr(config, "is_encoder_decoder", False):
        got = f"{config.model_type}, an encoder with a decoder"
    elif (causal and not masked) or getattr(config, "is_decoder", False):
        got = f"{config.model_type}, a decoder that reads from left to right"
    elif not masked and kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        got = f"{config.model_type}, a model of something else than texts"
    else:
        return
    raise unfit(
        folder,
        "not an encoder of texts",
        expected="an encoder, such as BERT, RoBERTa or ModernBERT",
        got=got,
        remedy="choose an encoder",
    )
