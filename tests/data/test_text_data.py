# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The text component: files, shares, tokens, batches, and what happens without AG News or a tokenizer."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pytest
import torch

from custom.checks.agreement import check_same_data
from custom.data import ag_news
from custom.data.ag_news import AgNewsFiles, open_ag_news, read_csv
from custom.data.download import Unavailable
from custom.data.headlines import make_headlines, words
from custom.data.text_batches import Tokens, order_by_length, tokenise
from custom.data.text_data import TextData
from custom.data.tokenizer import embedded_tokenizer, fingerprint, vocabulary
from custom.errors import BundleError
from tests.data.text_files import FOLDER, cut_network, row, write_ag_news, write_encoder_config

CPU = torch.device("cpu")
ROSTER = ["site-1", "site-2", "site-3"]
SPLITS = ("train", "validation", "test")


def component(**arguments) -> TextData:
    return TextData(**{"model_name_or_path": "embedded", "on_missing": "error", **arguments})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(data, *splits: str, generator: torch.Generator | None = None) -> list[tuple[str, int]]:
    """Every text, decoded, with its label, in the order of the batches."""
    tokenizer, found = embedded_tokenizer(), []
    for split in splits:
        for inputs, labels in data.batches(split, 16, CPU, generator):
            decoded = tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True)
            found += zip(decoded, labels.tolist(), strict=True)
    return found


@pytest.fixture
def files(tmp_path, monkeypatch):
    """80 texts to train on and 20 to test on; returns their folder."""
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path))
    return write_ag_news(tmp_path)


def test_a_file_by_hand(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(row(3, "Oil\\up") + '"4","Say ""yes""",""\n\n"1"," ","\\"\n2,plain,text\n', encoding="utf-8")
    found, left_out = read_csv(path)
    assert found.labels.tolist() == [2, 3, 1]
    assert found.texts == ["Oil up about Oil up", 'Say "yes"', "plain text"]
    assert left_out == {"rows without text": 1}


@pytest.mark.parametrize("content", [b"", b'"1","",""\n', b'"1","a","b"\n"5","a","b"\n', b'"1","caf\xe9","b"\n'])
def test_a_bad_file_is_an_error_also_if_embedded_texts_are_allowed(files, content):
    """All kinds of bad files are in test_news_rows."""
    (files / "train.csv").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        component(on_missing="embedded").site("site-1", ROSTER, 0)
    assert caught.value.code == "data-malformed"
    assert caught.value.key.startswith(str(files / "train.csv"))


def test_one_of_the_two_files_is_missing(files):
    (files / "test.csv").unlink()
    with pytest.raises(BundleError, match=r"test.csv: expected train.csv and test.csv in one folder, got No such file"):
        component(on_missing="embedded").site("site-1", ROSTER, 0)


def test_the_files_may_lie_higher_up(tmp_path):
    folder = write_ag_news(tmp_path)
    assert {open_ag_news(place).digest() for place in (tmp_path, folder.parent, folder)} == {
        open_ag_news(tmp_path).digest()
    }


def test_files_are_downloaded_and_compared(tmp_path, monkeypatch):
    folder = write_ag_news(tmp_path / "remote")
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in ("train.csv", "test.csv")}
    monkeypatch.setattr(ag_news, "MD5", sums)
    monkeypatch.setattr(ag_news, "AgNewsFiles", lambda: AgNewsFiles(url=folder.as_uri()))
    for name in "ab":  # else the network is looked at first, by a HEAD request that a folder does not answer
        (tmp_path / name).mkdir()
    assert open_ag_news(tmp_path / "a").digest() == open_ag_news(folder).digest()
    monkeypatch.setattr(ag_news, "MD5", {**sums, "test.csv": "0" * 32})
    with pytest.raises(Unavailable, match=r"AG News is not there and cannot be downloaded"):
        open_ag_news(tmp_path / "b")
    assert not (tmp_path / "b" / FOLDER).exists()


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_shares_are_disjoint_and_complete(files, partition):
    shares = [component(partition=partition, beta=0.5).site(name, ROSTER, 3) for name in ROSTER]
    for splits, split, number in ((("train", "validation"), "train", 80), (("test",), "test", 20)):
        found = [pair for share in shares for pair in texts(share, *splits)]
        expected = [(f"{split} number {i} about {split} number {i}", i % 4) for i in range(number)]
        assert sorted(found) == sorted(expected)
    assert len({str(share.describe()) for share in shares}) == 1


def test_dirichlet_skews_training_and_test_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path))
    write_ag_news(tmp_path, train=800, test=400)
    data = component(partition="dirichlet", beta=0.3).site("site-2", ROSTER, 0)
    held = {split: np.bincount([label for _, label in texts(data, split)], minlength=4) for split in SPLITS}
    training = held["train"] + held["validation"]
    assert training.max() > 5 * training.min()
    assert np.abs(held["test"] - training / 2).max() <= 1.5  # 1 + 1/2 of rounding


def test_a_site_with_data_of_its_own_holds_all(files):
    data = component(partition="none").site("elsewhere", [], 0)
    assert [data.size(split) for split in SPLITS] == [72, 8, 20]
    assert data.left_out() == {}
    assert "digest" not in data.describe()


def test_a_sample_of_the_training_rows(files):
    """A quarter of 80 is 20; the same rows whatever the number of sites."""
    together = [
        sorted(text for name in roster for text in texts(quarter.site(name, roster, 1), "train", "validation"))
        for quarter, roster in ((component(sample_percentage=0.25), ROSTER[:n]) for n in (1, 2))
    ]
    assert len(together[0]) == 20
    assert together[0] == together[1]


def test_rows_left_out_of_both_files_are_counted(files):
    for name, rows in (("train", '"1","",""\n"2"," ","\\"\n'), ("test", '"1","",""\n')):
        with (files / f"{name}.csv").open("a", encoding="utf-8") as file:
            file.write(rows)
    assert component(partition="none").site("a", [], 0).left_out() == {"rows without text": 3}


def test_description_tells_tokenizers_and_files_apart(files):
    facts = component(max_length=32).site("site-1", ROSTER, 0).describe()
    assert facts["input_shape"] == [32]
    assert (facts["dataset"], facts["embedded"], facts["num_classes"]) == ("AG News", False, 4)
    assert facts["tokenizer"] == fingerprint(embedded_tokenizer())
    other = embedded_tokenizer()
    other.add_tokens(["unheard"])
    assert fingerprint(other) != facts["tokenizer"]
    (files / "train.csv").write_text("".join(row(n % 4 + 1, f"other {n}") for n in range(80)), encoding="utf-8")
    assert component(max_length=32).site("site-1", ROSTER, 0).describe()["digest"] != facts["digest"]


def test_batches_by_hand():
    """Three texts of 2, 1 and 3 tokens."""
    tokens = Tokens(np.array([7, 8, 9, 4, 5, 6], dtype=np.int32), np.array([0, 2, 3, 6]), np.array([1, 0, 3]))
    inputs, labels = tokens.batch(np.array([2, 0]), 0, CPU)
    assert inputs["input_ids"].tolist() == [[4, 5, 6], [7, 8, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert labels.tolist() == [3, 1]
    assert {inputs["input_ids"].dtype, inputs["attention_mask"].dtype, labels.dtype} == {torch.int64}


def test_order_by_hand():
    lengths = np.array([5, 1, 4, 2, 3])
    assert [part.tolist() for part in order_by_length(lengths, 2, None)] == [[1, 3], [4, 2], [0]]
    assert order_by_length(np.array([], dtype=np.int64), 2, None) == []


@pytest.mark.parametrize("number", [1, 63, 64, 1000])
def test_a_shuffled_order_holds_each_text_once(number):
    lengths = np.random.default_rng(0).integers(3, 100, number)
    parts = order_by_length(lengths, 4, seeded(1))
    assert sorted(np.concatenate(parts).tolist()) == list(range(number))
    assert [len(part) for part in parts[:-1]] == [4] * (-(-number // 4) - 1)
    again, other = (order_by_length(lengths, 4, seeded(seed)) for seed in (1, 2))
    assert all((one == two).all() for one, two in zip(parts, again, strict=True))
    assert number == 1 or any((one != two).any() for one, two in zip(parts, other, strict=True))


def test_batches_of_like_length_save_padding():
    lengths = np.random.default_rng(0).integers(3, 100, 2000)
    padded = sum(lengths[part].max() * len(part) for part in order_by_length(lengths, 16, seeded()))
    assert padded < 1.1 * lengths.sum()  # 1.8 when shuffled without a look at the length


def test_tokens_are_those_of_the_tokenizer_and_cut_to_length():
    tokenizer = embedded_tokenizer()
    sentences = ["minister signs a treaty", "bank", "the striker wins the cup after a long , long season"]
    tokens = tokenise(tokenizer, sentences, np.zeros(3, dtype=np.int64), max_length=6)
    assert tokens.ids.dtype == np.int32
    rows = [tokens.ids[start:end].tolist() for start, end in zip(tokens.offsets, tokens.offsets[1:], strict=False)]
    assert rows == [tokenizer(sentence, truncation=True, max_length=6)["input_ids"] for sentence in sentences]
    assert tokens.lengths().tolist() == [6, 3, 6]


def test_the_embedded_tokenizer_knows_the_headlines_and_spells_the_rest():
    tokenizer = embedded_tokenizer()
    assert tokenizer("Treaty, bank!")["input_ids"] == tokenizer.convert_tokens_to_ids(
        ["[CLS]", "treaty", ",", "bank", "!", "[SEP]"]
    )
    assert tokenizer.tokenize("oxo") == ["o", "##x", "##o"]
    assert all(tokenizer.tokenize(word) == [word] for word in words())


def test_headlines_are_balanced_and_always_the_same():
    source = make_headlines()
    assert np.bincount(source.splits["train"].labels).tolist() == [800] * 4
    assert np.bincount(source.splits["test"].labels).tolist() == [200] * 4
    assert source.digest() == make_headlines().digest()
    assert len(set(source.splits["train"].texts)) == 3200


def test_headlines_can_be_learnt_but_not_by_heart():
    """A naive Bayes classifier, counts by hand: between 85 and 97 % on the test texts."""
    splits = make_headlines().splits
    place = {word: number for number, word in enumerate(words())}
    counts = np.ones((4, len(place)))
    for text, label in zip(splits["train"].texts, splits["train"].labels, strict=True):
        np.add.at(counts[label], [place[word] for word in text.split()], 1)
    scores = np.log(counts / counts.sum(1, keepdims=True))
    guesses = [scores[:, [place[word] for word in text.split()]].sum(1).argmax() for text in splits["test"].texts]
    assert 0.85 < np.mean(guesses == splits["test"].labels) < 0.97


def test_without_a_network_the_headlines_are_named_loudly(monkeypatch, tmp_path, caplog):
    asked = cut_network(monkeypatch, tmp_path)
    monkeypatch.delenv("FLARE_DATA_ROOT")
    monkeypatch.setenv("HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        data = TextData().site("site-1", ROSTER, 0)
    assert asked == ["google-bert/bert-base-cased"]
    assert "TRAINING ON THE EMBEDDED MADE-UP HEADLINES, NOT ON AG NEWS" in caplog.text
    assert "google-bert/bert-base-cased is not a folder here" in caplog.text
    assert data.describe()["embedded"] is True
    assert data.describe()["encoder_embedded"] is True


def test_an_embedded_encoder_on_real_data_is_a_fact_that_sites_must_agree_on(files, monkeypatch, tmp_path):
    embedded_tokenizer().save_pretrained(write_encoder_config(tmp_path / "bert", len(vocabulary())))
    of_folder = TextData(model_name_or_path=str(tmp_path / "bert")).site("site-1", ROSTER, 0).describe()
    cut_network(monkeypatch, tmp_path)
    fallen_back = TextData().site("site-2", ROSTER, 0).describe()
    assert [(facts["embedded"], facts["encoder_embedded"]) for facts in (of_folder, fallen_back)] == [
        (False, False),
        (False, True),
    ]
    message = r"^site-2 encoder_embedded: expected False as at site-1, got True; check model_name_or_path there, and"
    with pytest.raises(BundleError, match=message):
        check_same_data("site-1", of_folder, "site-2", fallen_back)


@pytest.mark.parametrize("arguments", [{}, {"model_name_or_path": "google-bert/bert-base-cased"}])
def test_without_a_network_an_error_if_asked(monkeypatch, tmp_path, arguments):
    cut_network(monkeypatch, tmp_path)
    with pytest.raises(BundleError, match=r"AG News is not there and cannot be downloaded|is not a folder here"):
        component(**arguments).site("site-1", ROSTER, 0)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"dataset": "imdb"}, "dataset"),
        ({"dataset_path": ""}, "dataset_path"),
        ({"on_missing": "ignore"}, "on_missing"),
        ({"model_name_or_path": ""}, "model_name_or_path"),
        ({"partition": "k_classes"}, "partition"),
        ({"beta": 0}, "beta"),
        ({"beta": float("inf")}, "beta"),
        ({"sample_percentage": 0}, "sample_percentage"),
        ({"sample_percentage": 50}, "sample_percentage"),
        ({"validation_fraction": 1}, "validation_fraction"),
        ({"max_length": 2}, "max_length"),
        ({"max_length": 64.0}, "max_length"),
    ],
)
def test_a_bad_argument_is_named(arguments, key):
    with pytest.raises(BundleError, match=f"^{key}: expected .*, got "):
        component(**arguments).check()


def test_more_tokens_than_the_encoder_has_positions_for(files):
    with pytest.raises(BundleError) as caught:
        component(max_length=257).site("site-1", ROSTER, 0)
    assert (caught.value.code, caught.value.key) == ("setting-value", "max_length")
    component(max_length=256).site("site-1", ROSTER, 0)


def test_a_class_that_a_site_has_no_text_of_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path))
    folder = write_ag_news(tmp_path)
    (folder / "train.csv").write_text("".join(row(3 + n % 2, f"text {n}") for n in range(20)), encoding="utf-8")
    data = component(partition="none").site("site-1", [], 0)
    assert data.data_warnings() == ["no text to train on is of World, Sports"]


def test_texts_in_both_files_are_counted(tmp_path):
    folder = write_ag_news(tmp_path)
    with (folder / "test.csv").open("a", encoding="utf-8") as file:
        file.write(row(4, "train number 3") + row(3, "train number 2"))
    assert [warning.split(":")[1][:5] for warning in open_ag_news(tmp_path).warnings] == [" 2 of"]


def test_numbers_from_zero_are_told_by_both_files(tmp_path):
    """As on the Hub: the test file has no class 0, and the training file tells that there is one."""
    folder = write_ag_news(tmp_path)
    (folder / "train.csv").write_text("text,label\na,0\nb,3\n", encoding="utf-8")
    (folder / "test.csv").write_text("text,label\nc,2\nd,1\n", encoding="utf-8")
    splits = open_ag_news(tmp_path).splits
    assert [splits[name].labels.tolist() for name in ("train", "test")] == [[0, 3], [2, 1]]


def test_files_that_are_numbered_differently(tmp_path):
    """The test file is the published one, which counts from 1."""
    folder = write_ag_news(tmp_path)
    (folder / "train.csv").write_text("text,label\na,1\nb,0\n", encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        open_ag_news(tmp_path)
    assert (caught.value.code, caught.value.key) == ("data-malformed", f"{folder}/train.csv line 3")


def test_too_many_sites(files):
    with pytest.raises(BundleError, match=r"partition: expected at least \[10, 2\] training and test samples"):
        component().site("site-1", [f"site-{n}" for n in range(9)], 0)
