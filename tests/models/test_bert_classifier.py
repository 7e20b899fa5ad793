# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The BERT classifier: embedded, from a folder, without a network; and what is written for Hugging Face."""

from __future__ import annotations

import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertForPreTraining

from custom.data.tokenizer import embedded_tokenizer, load_tokenizer
from custom.errors import BundleError
from custom.learning.weights import get_weights, load_weights, save_atomically, set_weights, to_tensors
from custom.models import pretrained
from custom.models.bert_classifier import EVALUATION_ROWS, BertClassifier, save_pretrained
from custom.models.encoder_config import longest_text
from tests.data.text_files import cut_network, mute_hub, put_in_cache

POOLINGS = ["pooler", "mean"]


def build(seed: int = 0, name: str = "embedded", **arguments) -> BertClassifier:
    torch.manual_seed(seed)
    return BertClassifier(name, **arguments)


def encode(*texts: str, length: int | str = True) -> dict[str, torch.Tensor]:
    padding = {"padding": "max_length", "max_length": length} if type(length) is int else {"padding": True}
    return dict(embedded_tokenizer()(list(texts), return_tensors="pt", **padding))


@pytest.fixture(scope="module")
def texts() -> dict[str, torch.Tensor]:
    return encode("minister signs treaty", "striker wins the cup after extra time , said the coach")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_does_not_change_logits(pooling):
    model = build(pooling=pooling).eval()
    short, long = encode("bank profit rise"), encode("bank profit rise", length=40)
    assert short["input_ids"].shape == (1, 5)
    torch.testing.assert_close(model(short), model(long), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_is_trained_and_nothing_else_is_sent(texts, pooling):
    model = build(pooling=pooling).train()
    functional.cross_entropy(model(texts), torch.tensor([0, 3])).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()
    assert all(value.dtype == "float32" for value in get_weights(model).values())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_same_seed_same_weights(pooling):
    first, again, other = (get_weights(build(seed, pooling=pooling)) for seed in (3, 3, 4))
    assert all((first[name] == again[name]).all() for name in first)
    matrices = [name for name, value in first.items() if value.ndim > 1]
    assert all((first[name] != other[name]).any() for name in matrices)


def test_new_weights_by_hand():
    """Uniform with the standard deviation 0.02 reaches to 0.02 * sqrt(3) = 0.0346; scales are 1, biases 0."""
    weights = get_weights(build(pooling="mean"))
    words = weights["encoder.embeddings.word_embeddings.weight"]
    assert words.std() == pytest.approx(0.02, rel=0.02)
    assert abs(words).max() == pytest.approx(0.02 * 3**0.5, rel=0.01)
    assert (weights["encoder.embeddings.LayerNorm.weight"] == 1).all()
    assert (weights["head.bias"] == 0).all()


def test_mean_pooling_by_hand(texts):
    model = build(pooling="mean").eval()
    hidden = model.encoder(**texts).last_hidden_state
    for place, tokens in enumerate(texts["attention_mask"].sum(1).tolist()):
        expected = hidden[place, :tokens].mean(0) @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(texts)[place], expected, atol=1e-6, rtol=1e-5)


def test_a_large_batch_is_scored_in_parts():
    model = build().eval()
    inputs = encode(*(f"{'word ' * (place % 7)}end" for place in range(EVALUATION_ROWS + 5)))
    with torch.inference_mode():
        one_by_one = [model({name: value[place : place + 1] for name, value in inputs.items()}) for place in (0, 3, 68)]
        together = model(inputs)
    assert together.shape == (EVALUATION_ROWS + 5, 4)
    torch.testing.assert_close(together[[0, 3, 68]], torch.cat(one_by_one), atol=1e-6, rtol=1e-5)


def test_weights_to_a_folder_that_transformers_reads(texts, tmp_path):
    """From FL_global_model.pt of a job to AutoModelForSequenceClassification, with the same logits."""
    trained = build(1, num_classes=3).eval()
    save_atomically({"model": to_tensors(get_weights(trained))}, tmp_path / "FL_global_model.pt")
    weights = to_tensors(load_weights(tmp_path / "FL_global_model.pt"))
    save_pretrained(build(2, num_classes=3), tmp_path / "out", weights)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert theirs.config.num_labels == 3
    torch.testing.assert_close(theirs(**texts).logits, trained(texts))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("Minister signs treaty")["input_ids"] == encode("minister signs treaty")["input_ids"][0].tolist()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_folder_is_read_back(texts, tmp_path, pooling):
    trained = build(1, pooling=pooling).eval()
    save_pretrained(trained, tmp_path)
    again = build(2, str(tmp_path), pooling=pooling, on_missing="error").eval()
    torch.testing.assert_close(again(texts), trained(texts))
    set_weights(again, get_weights(trained))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_new_head_depends_on_the_seed_and_the_encoder_does_not(tmp_path, pooling):
    """A folder with an encoder for other classes, as every pretrained one is."""
    save_pretrained(build(1, num_classes=7, pooling=pooling), tmp_path)
    first, again, other = (get_weights(build(seed, str(tmp_path), pooling=pooling)) for seed in (5, 5, 6))
    differ = {name for name in first if (first[name] != other[name]).any()}
    assert differ == {"encoder.classifier.weight" if pooling == "pooler" else "head.weight"}
    assert all((first[name] == again[name]).all() for name in first)


def test_mean_pooling_is_written_as_an_encoder(texts, tmp_path):
    trained = build(pooling="mean").eval()
    save_pretrained(trained, tmp_path)
    hidden = AutoModel.from_pretrained(tmp_path).eval()(**texts).last_hidden_state
    torch.testing.assert_close(hidden, trained.encoder(**texts).last_hidden_state)
    assert load_file(tmp_path / "classification_head.safetensors")["weight"].equal(trained.head.weight)


def test_without_a_network_the_embedded_encoder_is_named_loudly(monkeypatch, tmp_path, texts, caplog):
    asked = cut_network(monkeypatch, tmp_path)
    with caplog.at_level(logging.WARNING):
        model = build(name="google-bert/bert-base-cased")
    assert asked == ["google-bert/bert-base-cased"]
    assert "TRAINING THE SMALL EMBEDDED BERT FROM SCRATCH, NOT google-bert/bert-base-cased" in caplog.text
    assert "cannot be downloaded from the Hugging Face Hub" in caplog.text
    assert model(texts).shape == (2, 4)


def ask_again() -> Path | str:
    """As a new process would."""
    pretrained._ask_hub.cache_clear()
    return pretrained._ask_hub("google-bert/bert-base-cased")


@pytest.mark.parametrize("drip", [b"", b"x"])
def test_a_hub_that_never_answers_is_waited_for_once(monkeypatch, tmp_path, drip):
    """Also one that sends a byte now and then, which no time-out of a single read ends."""
    with mute_hub(monkeypatch, tmp_path, drip) as hub:
        first = ThreadPoolExecutor(1).submit(ask_again).result(60)  # the limit is to fail in place of hanging
        again = ask_again()
        assert len(hub.asked) == 1
        assert re.fullmatch(r"TimeoutError: http://127.0.0.1:\d+ did not answer within 0.5 s", first)
        assert re.search(r"did not answer \d+ s ago; it is asked again 120 s after that$", again)
        monkeypatch.setattr(pretrained, "SILENCE_S", 0.0)
        ask_again()
        assert len(hub.asked) == 2


def test_another_hub_is_asked_all_the_same(monkeypatch, tmp_path):
    for _ in range(2):
        with mute_hub(monkeypatch, tmp_path) as hub:
            ask_again()
            assert len(hub.asked) == 1


def test_what_is_in_the_cache_is_used_when_the_hub_does_not_answer(monkeypatch, tmp_path):
    with mute_hub(monkeypatch, tmp_path) as hub:
        snapshot = put_in_cache(tmp_path, "google-bert/bert-base-cased")
        assert ask_again() == snapshot
        assert ask_again() == snapshot
        assert len(hub.asked) == 1


def test_offline_nobody_is_asked(monkeypatch, tmp_path):
    with mute_hub(monkeypatch, tmp_path) as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert ask_again().startswith("OfflineModeIsEnabled: ")
        snapshot = put_in_cache(tmp_path, "google-bert/bert-base-cased")
        assert ask_again() == snapshot
        assert hub.connections == []


def test_without_a_network_an_error_if_asked(monkeypatch, tmp_path, texts):
    cut_network(monkeypatch, tmp_path)
    model = build(name="google-bert/bert-base-cased", on_missing="error")  # the constructor never raises
    get_weights(model)
    with pytest.raises(
        BundleError, match=r"bert-base-cased: is not a folder here, and cannot be downloaded .* give the folder"
    ):
        model(texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name_or_path": "/nowhere/bert"}, "^model_name_or_path: no such folder, got /nowhere/bert; give"),
        ({"model_name_or_path": ""}, "^model_name_or_path: expected"),
        ({"model_name_or_path": 3}, "^model_name_or_path: expected"),
        ({"model_name_or_path": "embedded", "on_missing": "no"}, "^on_missing: expected one of embedded, error"),
        (
            {"model_name_or_path": "embedded", "num_classes": 0},
            "^num_classes: expected an integer of at least 2, got 0",
        ),
        ({"model_name_or_path": "embedded", "num_classes": "4"}, "^num_classes: expected"),
        ({"model_name_or_path": "embedded", "pooling": "max"}, "^pooling: expected one of mean, pooler"),
        ({"model_name_or_path": "embedded", "dropout": 1}, "^dropout: expected"),
    ],
)
def test_a_bad_argument_is_named_before_training(texts, arguments, message):
    model = BertClassifier(**arguments)
    with pytest.raises(BundleError, match=message):
        model(texts)


def refused(folder: Path, inputs: dict[str, torch.Tensor], pooling: str = "pooler") -> str:
    """The constructor raises nothing, and the first use of the model does; returns the message."""
    model = build(name=str(folder), pooling=pooling)
    with pytest.raises(BundleError) as caught:
        model(inputs)
    assert caught.value.code == "encoder-unfit"
    assert caught.value.key.startswith(f"model_name_or_path {folder}")
    with pytest.raises(BundleError):
        load_tokenizer(str(folder), "error")
    return str(caught.value)


def test_a_folder_without_an_encoder(texts, tmp_path):
    assert "config.json" in refused(tmp_path, texts)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["gpt2", "t5", "bart", "xlnet", "llama", "vit", "clip"])
def test_models_that_are_not_encoders_of_texts(texts, tmp_path, pooling, kind):
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    embedded_tokenizer().save_pretrained(tmp_path)
    assert kind in refused(tmp_path, texts, pooling)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"model_type": "foo"}, "foo"),
        ({}, "model_type"),
        ({"model_type": "zoo", "auto_map": {"AutoConfig": "conf.X", "AutoModel": "conf.Y"}}, "code"),
        ({"model_type": "bert", "is_decoder": True}, "decoder"),
    ],
)
def test_architectures_that_are_not_known(texts, tmp_path, config, word):
    embedded_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "conf.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    assert word in refused(tmp_path, texts)
    assert not (tmp_path / "executed").exists()


def test_an_adapter_is_not_an_encoder(texts, tmp_path):
    """Also beside the whole encoder: transformers without peft would train it without the adapter."""
    save_pretrained(build(), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert "adapter" in refused(tmp_path, texts)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_more_layers_in_the_file_than_in_config(texts, tmp_path, pooling):
    save_pretrained(build(pooling=pooling), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(BundleError) as caught:
        build(name=str(tmp_path), pooling=pooling)(texts)
    assert caught.value.code == "encoder-unfit"
    assert "layer.1." in caught.value.key


def test_the_heads_of_pretraining_are_left_out(texts, tmp_path):
    """What BERT is published with: tensors of a head that is not used here."""
    config = build().encoder.config
    BertForPreTraining(config).save_pretrained(tmp_path)
    embedded_tokenizer().save_pretrained(tmp_path)
    for pooling in POOLINGS:
        assert build(name=str(tmp_path), pooling=pooling)(texts).shape == (2, 4)


def test_a_damaged_head(texts, tmp_path):
    save_pretrained(build(pooling="mean"), tmp_path)
    (tmp_path / "classification_head.safetensors").write_bytes(b"cut")
    with pytest.raises(BundleError) as caught:
        build(name=str(tmp_path), pooling="mean")(texts)
    assert caught.value.code == "encoder-unfit"


def test_nothing_is_written_without_the_tokenizer(tmp_path):
    save_pretrained(build(), tmp_path / "in")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "in" / name).unlink()
    with pytest.raises(BundleError) as caught:
        save_pretrained(build(name=str(tmp_path / "in")), tmp_path / "out")
    assert caught.value.code == "encoder-unfit"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_tensor_that_is_missing_is_named(texts, tmp_path, pooling):
    save_pretrained(build(pooling=pooling), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(key for key in tensors if key.endswith("layer.1.output.dense.weight"))
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BundleError, match=r"layer\.1\.output\.dense\.weight: a tensor of the encoder is missing"):
        build(name=str(tmp_path), pooling=pooling)(texts)


def test_a_truncated_file(texts, tmp_path):
    save_pretrained(build(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match="no encoder can be read from this folder"):
        build(name=str(tmp_path))(texts)


def test_another_tokenizer_is_refused(texts):
    wrong = {**texts, "input_ids": texts["input_ids"] + 10_000}
    with pytest.raises(BundleError, match=r"not that of the encoder.*give `data` and `model` the same"):
        build()(wrong)


def test_too_long_a_text(texts):
    longer = torch.ones(1, 300, dtype=torch.int64)
    with pytest.raises(BundleError, match="max_length: expected at most 256 for this encoder, got 300"):
        build()({"input_ids": longer, "attention_mask": longer})


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "longformer", "esm", "electra", "deberta-v2"])
def test_the_longest_text_by_hand(kind):
    """What the encoder itself takes, and one token more."""
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model(kind, vocab_size=99, max_position_embeddings=20, pad_token_id=1, **small)
    config.attention_window = [4]
    encoder, longest = AutoModel.from_config(config).eval(), longest_text(config)
    encoder(input_ids=torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        encoder(input_ids=torch.full((1, longest + 1), 5))


def test_weights_of_another_model(tmp_path):
    with pytest.raises(BundleError, match="the weights are not those of this model"):
        save_pretrained(build(), tmp_path, to_tensors(get_weights(build(num_classes=5))))
