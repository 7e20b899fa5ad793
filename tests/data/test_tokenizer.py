# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tokenizers of encoder folders: whole, missing, cut off, of another encoder, and of another language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, PreTrainedTokenizerFast, RobertaTokenizerFast

from custom.data.headlines import make_headlines
from custom.data.known_words import Known, check_known, count_known
from custom.data.text_batches import tokenise
from custom.data.text_data import TextData
from custom.data.tokenizer import case_warnings, embedded_tokenizer, fingerprint, load_tokenizer, vocabulary
from custom.errors import BundleError
from tests.data.text_files import write_encoder_config

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "albert",
    "deberta-v2",
    "modernbert",
    "xlm-roberta",
    "mpnet",
)


def refused(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        load_tokenizer(str(folder), "embedded")
    assert caught.value.code == "encoder-unfit"
    assert caught.value.key == f"model_name_or_path {folder}"
    return caught.value


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A BERT folder with the embedded tokenizer's files, and config.json to match."""
    embedded_tokenizer().save_pretrained(write_encoder_config(tmp_path, len(vocabulary())))
    return tmp_path


@pytest.fixture
def byte_pairs(tmp_path: Path) -> Path:
    """A RoBERTa folder with vocab.json and merges.txt, learnt from the headlines."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(make_headlines().splits["train"].texts, trainer)
    tokenizer.model.save(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "vocab_size": 1000}))
    return tmp_path


def test_a_whole_folder(whole: Path) -> None:
    assert fingerprint(embedded_tokenizer()) == f"embedded, {fingerprint(load_tokenizer(str(whole), 'error'))}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_with_the_model_alone(tmp_path: Path, architecture: str) -> None:
    """As `model.save_pretrained` writes it; of most of them transformers makes a tokenizer of 5 to 7 entries."""
    special = {"pad_token_id": 1, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    config = AutoConfig.for_model(architecture, vocab_size=1000, embedding_size=16, hidden_dim=64, **special, **SMALL)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    refused(tmp_path)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_tokenizer_config_alone(tmp_path: Path, architecture: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture, "vocab_size": 30522}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    refused(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"unk_token": "[UNK]", "pad_token": "[PAD]"}))
    refused(tmp_path)


@pytest.mark.parametrize("lines", [0, 5, 200, 480])
def test_a_vocabulary_that_is_cut_off(tmp_path: Path, lines: int) -> None:
    """Of 1,000 entries; 480 of them know all characters, so no word reads `[UNK]`."""
    pieces = [*vocabulary(), *(f"word{number}" for number in range(1000))][:1000]
    write_encoder_config(tmp_path, len(pieces))
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    assert len(load_tokenizer(str(tmp_path), "error")) == 1000
    (tmp_path / "vocab.txt").write_text("\n".join(pieces[:lines]))
    refused(tmp_path)


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_a_git_lfs_pointer(tmp_path: Path, name: str) -> None:
    write_encoder_config(tmp_path, 1000)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 231508\n")
    refused(tmp_path)


def test_a_vocabulary_without_the_unknown_token(tmp_path: Path) -> None:
    """It is found out only when a word is not known: transformers raises a bare Exception then."""
    write_encoder_config(tmp_path, 100)
    (tmp_path / "vocab.txt").write_text("")
    refused(tmp_path)


def test_byte_pairs_whole(byte_pairs: Path) -> None:
    tokenizer = load_tokenizer(str(byte_pairs), "error")
    assert isinstance(tokenizer, RobertaTokenizerFast)
    assert len(tokenizer.tokenize("minister signs a treaty")) < 12  # of 23 characters


@pytest.mark.parametrize("merges", [0, 1, 100])
def test_byte_pairs_whose_merges_are_cut_off(byte_pairs: Path, merges: int) -> None:
    """Every entry is there, and nearly every word is spelled letter by letter."""
    lines = (byte_pairs / "merges.txt").read_text().splitlines()
    (byte_pairs / "merges.txt").write_text("\n".join(lines[: merges + 1]) + "\n")
    refused(byte_pairs)


def test_byte_pairs_that_are_empty(byte_pairs: Path) -> None:
    (byte_pairs / "vocab.json").write_text("{}")
    (byte_pairs / "merges.txt").write_text("")
    refused(byte_pairs)


def test_more_embeddings_than_entries(tmp_path: Path) -> None:
    """Rounded up to a multiple of 128, as many are, or by a few more entries in large vocabularies."""
    embedded_tokenizer().save_pretrained(tmp_path)
    for embeddings, good in ((353, True), (384, True), (353 + 127, True), (353 + 128, False), (50_000, False)):
        write_encoder_config(tmp_path, embeddings)
        if good:
            load_tokenizer(str(tmp_path), "error")
        else:
            refused(tmp_path)


def test_the_remedy_for_an_encoder_with_spare_embeddings(tmp_path: Path) -> None:
    embedded_tokenizer().save_pretrained(tmp_path)
    model = AutoModel.from_config(BertConfig(vocab_size=5000, **SMALL))
    model.save_pretrained(tmp_path)
    refused(tmp_path)
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(tmp_path)))
    model.save_pretrained(tmp_path)
    load_tokenizer(str(tmp_path), "error")


def test_fewer_embeddings_than_entries_are_fine_until_a_text_needs_them(whole: Path) -> None:
    """ "zzz" is added with the number 353, for which the encoder has no embedding."""
    tokenizer = embedded_tokenizer()
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(whole)
    tokenizer = load_tokenizer(str(whole), "error")
    labels = np.zeros(1, dtype=np.int64)
    check_known("site-1", count_known(tokenizer, {"train": tokenise(tokenizer, ["bank profit"], labels, 9)}), 353)
    with pytest.raises(BundleError) as caught:
        check_known("site-1", count_known(tokenizer, {"train": tokenise(tokenizer, ["bank zzz"], labels, 9)}), 353)
    assert (caught.value.code, caught.value.site) == ("encoder-unfit", "site-1")


def test_many_more_entries_than_embeddings(whole: Path) -> None:
    """A tokenizer of another encoder, whose common words have embeddings here, and the rare ones none."""
    tokenizer = embedded_tokenizer()
    tokenizer.add_tokens([f"zz{number}" for number in range(128)])
    tokenizer.save_pretrained(whole)
    refused(whole)


@pytest.mark.parametrize(("lower", "capitals", "warned"), [(None, 300, 1), (False, 300, 0), (None, 20, 0)])
def test_a_cased_vocabulary_in_small_letters(tmp_path: Path, lower: bool | None, capitals: int, warned: int) -> None:
    """Of 653 entries 300 have capitals, which are lost without tokenizer_config.json; an uncased one has a few only."""
    entries = [*vocabulary(), *(f"Word{number}" for number in range(capitals)), "A"]
    (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n")
    if lower is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    write_encoder_config(tmp_path, len(entries))
    assert len(case_warnings(load_tokenizer(str(tmp_path), "error"))) == warned


def test_no_padding_token(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=embedded_tokenizer().backend_tokenizer).save_pretrained(tmp_path)
    refused(write_encoder_config(tmp_path, len(vocabulary())))


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 66}, 64),  # the first two are those of padding
        ({"model_type": "mpnet", "max_position_embeddings": 66, "pad_token_id": 1}, 64),
    ],
)
def test_texts_longer_than_the_positions(tmp_path: Path, config: dict[str, Any], longest: int) -> None:
    embedded_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 353}))
    assert load_tokenizer(str(tmp_path), "error").model_max_length == longest
    with pytest.raises(BundleError) as caught:
        TextData("headlines", model_name_or_path=str(tmp_path), max_length=longest + 1).site("a", ["a"], 0)
    assert (caught.value.code, caught.value.key) == ("setting-value", "max_length")


def test_known_words_are_counted() -> None:
    """4 + 3 tokens without those at the ends, 1 of them unknown; nothing is left of one text of three."""
    tokenizer, labels = embedded_tokenizer(), np.zeros(3, dtype=np.int64)
    tokens = tokenise(tokenizer, ["bank profit 石 rise", "treaty , cup", " "], labels, 16)
    known = count_known(tokenizer, {"train": tokens, "test": tokenise(tokenizer, [], labels[:0], 16)})
    assert known == Known(texts=3, tokens=7, unknown=1, empty=1, largest=int(tokens.ids.max()))
    assert known.share() == 1 / 3


@pytest.mark.parametrize(
    ("unknown", "empty", "outcome"),
    [(5, 0, ""), (6, 0, "warned"), (20, 0, "warned"), (0, 2, "warned"), (21, 0, "refused"), (0, 3, "refused")],
)
def test_many_unknown_words(unknown: int, empty: int, outcome: str) -> None:
    """Of 100 tokens in 10 texts: a warning above 5 %, and an error above 20 %."""
    known = Known(texts=10, tokens=100, unknown=unknown, empty=empty, largest=9)
    if outcome == "refused":
        with pytest.raises(BundleError) as caught:
            check_known("site-1", known, None)
        assert (caught.value.code, caught.value.site) == ("encoder-unfit", "site-1")
        return
    assert len(check_known("site-1", known, None)) == (outcome == "warned")


def test_texts_in_a_script_that_the_tokenizer_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path))
    for name in ("train", "test"):
        rows = [f'"{number % 4 + 1}","石油价格","再次上涨 {number}"\n' for number in range(40)]
        (tmp_path / f"{name}.csv").write_text("".join(rows), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        TextData(model_name_or_path="embedded").site("site-1", ["site-1"], 0)
    assert (caught.value.code, caught.value.site) == ("encoder-unfit", "site-1")
