# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""From a run folder with a trained BertClassifier to a folder that the real transformers reads, with equal logits."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.app_opt.pt.model_persistence_format_manager import PTModelPersistenceFormatManager
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from bundle.__main__ import main
from bundle.save_pretrained import save_pretrained
from custom.data.tokenizer import embedded_tokenizer
from custom.errors import BundleError
from custom.models.bert_classifier import BertClassifier
from tests.bundle.conftest import Cli, job_events, write_run
from tests.bundle.test_locate import make_kit

TEXTS = ["minister signs treaty", "striker wins the cup"]
EMBEDDED = {"model_name_or_path": "embedded", "num_classes": 4, "on_missing": "embedded"}
TEXT_DATA = {"id": "data", "path": "custom.data.text_data.TextData", "args": {"dataset": "headlines"}}


def build(seed: int, **changes: Any) -> BertClassifier:
    torch.manual_seed(seed)
    return BertClassifier(**EMBEDDED | changes).eval()


def persist(model: torch.nn.Module, path: Path) -> None:
    """As FLARE's persistor does."""
    manager = PTModelPersistenceFormatManager(model.state_dict(), default_train_conf={"train": {"model": "x"}})
    torch.save(manager.to_persistence_dict(), path)


def write_bert_run(folder: Path, trained: BertClassifier, **arguments: Any) -> Path:
    """The run folder of a job with such a model."""
    run = write_run(folder, job_events(), "sparse-bert")
    model = {"id": "model", "path": "custom.models.bert_classifier.BertClassifier", "args": EMBEDDED | arguments}
    (run / "app_server" / "config").mkdir()
    config = run / "app_server" / "config" / "config_fed_client.json"
    config.write_text(json.dumps({"format_version": 2, "components": [TEXT_DATA, model]}))
    persist(trained, run / "app_server" / "FL_global_model.pt")
    return run


def assert_reads(out: Path, trained: BertClassifier) -> Any:
    """transformers' own class, tokenizer included, gives the logits of the trained model."""
    model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    inputs = AutoTokenizer.from_pretrained(out)(TEXTS, return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        torch.testing.assert_close(logits, trained(dict(inputs)))
    return model


@pytest.fixture
def trained() -> BertClassifier:
    return build(1)


@pytest.fixture
def run(tmp_path: Path, trained: BertClassifier) -> Path:
    return write_bert_run(tmp_path / "ws" / "server" / "simulate_job", trained)


def test_the_command_writes_what_transformers_reads(cli: Cli, run: Path, tmp_path: Path, trained: Any) -> None:
    out = tmp_path / "new" / "hf"
    done = cli("save-pretrained", tmp_path / "ws", "-o", out)
    assert (done.returncode, done.stderr) == (0, "")
    load = f'AutoModelForSequenceClassification.from_pretrained("{out}") and AutoTokenizer.from_pretrained("{out}")'
    assert done.stdout.splitlines() == [
        "job small (simulate_job), completed: its last global model",
        "EMBEDDED ENCODER: a small BERT for trying things out, not pretrained",
        f"wrote {out}: config.json, model.safetensors, tokenizer.json, tokenizer_config.json",
        f"load it with transformers: {load}",
    ]
    model = assert_reads(out, trained)
    assert model.config.id2label == {0: "World", 1: "Sports", 2: "Business", 3: "Sci/Tech"}
    assert model.config.label2id["Sci/Tech"] == 3
    assert [path.name for path in out.parent.iterdir()] == ["hf"]


def test_the_best_model_if_asked(run: Path, tmp_path: Path) -> None:
    best = build(2)
    persist(best, run / "app_server" / "best_FL_global_model.pt")
    assert "its best global model" in save_pretrained(tmp_path / "ws", tmp_path / "hf", best=True)
    assert_reads(tmp_path / "hf", best)


def test_a_downloaded_job_whose_sites_have_an_app_of_their_own(tmp_path: Path, trained: Any) -> None:
    run = write_bert_run(tmp_path / "abc" / "workspace", trained)
    apart = tmp_path / "abc" / "job" / "sparse-bert" / "app_site" / "config"
    apart.mkdir(parents=True)
    (run / "app_server" / "config" / "config_fed_client.json").rename(apart / "config_fed_client.json")
    save_pretrained(tmp_path / "abc", tmp_path / "hf")
    assert_reads(tmp_path / "hf", trained)


def test_of_several_jobs_in_the_job_store_the_one_asked_for(tmp_path: Path, trained: Any) -> None:
    make_kit(tmp_path)
    for index, model in enumerate((trained, build(2))):
        run = write_bert_run(tmp_path / f"run{index}", model)
        stored = tmp_path / "store" / f"job{index}"
        stored.mkdir(parents=True)
        (stored / "meta").write_text("{}")
        with zipfile.ZipFile(stored / "workspace", "w") as archive:
            for path in run.rglob("*"):
                archive.write(path, path.relative_to(run))
    assert "(job0)" in save_pretrained(tmp_path / "example_project", tmp_path / "hf", "job0")
    assert_reads(tmp_path / "hf", trained)


def test_sites_that_had_to_take_the_embedded_encoder(tmp_path: Path, trained: Any) -> None:
    """The job names BERT; what was trained in its place is told by the weights, and nothing is downloaded."""
    write_bert_run(tmp_path / "run", trained, model_name_or_path="google-bert/bert-base-cased")
    told = save_pretrained(tmp_path / "run", tmp_path / "hf")
    asked = "NOT google-bert/bert-base-cased, which the sites could not get"
    assert f"EMBEDDED ENCODER: a small BERT for trying things out, not pretrained, {asked}" in told.splitlines()
    assert_reads(tmp_path / "hf", trained)


def test_an_encoder_of_the_same_shape_is_not_called_embedded_if_the_sites_said_so(tmp_path: Path, trained: Any) -> None:
    run = write_bert_run(tmp_path / "run", trained, model_name_or_path="/models/small")
    events = job_events()
    events[1]["dataset"]["encoder_embedded"] = False
    (run / "progress.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert "EMBEDDED" not in save_pretrained(tmp_path / "run", tmp_path / "hf")


def test_an_encoder_that_lies_elsewhere_here(tmp_path: Path, trained: Any) -> None:
    """A job of the sites' /models/bert, of another shape than the embedded encoder."""
    save_other_encoder(tmp_path / "bert")
    finetuned = build(3, model_name_or_path=str(tmp_path / "bert"))
    write_bert_run(tmp_path / "run", finetuned, model_name_or_path="/models/bert")
    with pytest.raises(BundleError, match=r"no such folder, got /models/bert; .* \(--encoder\)"):
        save_pretrained(tmp_path / "run", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
    save_pretrained(tmp_path / "run", tmp_path / "hf", encoder=str(tmp_path / "bert"))
    assert_reads(tmp_path / "hf", finetuned)


def test_an_encoder_of_the_same_shape_is_taken(run: Path, tmp_path: Path, trained: Any) -> None:
    save_pretrained(tmp_path / "ws", tmp_path / "bert")
    assert "EMBEDDED" not in save_pretrained(tmp_path / "ws", tmp_path / "hf", encoder=str(tmp_path / "bert"))
    assert_reads(tmp_path / "hf", trained)


def test_an_encoder_that_the_job_has_not_trained_is_refused(run: Path, tmp_path: Path) -> None:
    save_other_encoder(tmp_path / "bert")
    with pytest.raises(BundleError, match=r"^--encoder: .*/bert, got the weights of the small embedded enc.*leave it"):
        save_pretrained(tmp_path / "ws", tmp_path / "hf", encoder=str(tmp_path / "bert"))


def save_other_encoder(folder: Path) -> None:
    """With one layer; the embedded encoder has two."""
    config = build(0).encoder.config.to_dict() | {"num_hidden_layers": 1}
    AutoModelForSequenceClassification.from_config(BertConfig(**config)).save_pretrained(folder)
    embedded_tokenizer().save_pretrained(folder)


def test_the_head_of_mean_pooling_is_for_our_own_class(tmp_path: Path) -> None:
    trained = build(1, pooling="mean", num_classes=3)
    write_bert_run(tmp_path / "run", trained, pooling="mean", num_classes=3)
    out = tmp_path / "hf"
    told = save_pretrained(tmp_path / "run", out).splitlines()[-1]
    assert told.startswith("transformers has no class for this head; load it with custom.models.bert_classifier.Bert")
    assert told.endswith(f'BertClassifier("{out}", num_classes=3, pooling="mean")')
    again = BertClassifier(str(out), num_classes=3, pooling="mean").eval()
    inputs = AutoTokenizer.from_pretrained(out)(TEXTS, return_tensors="pt", padding=True)
    torch.testing.assert_close(again(dict(inputs)), trained(dict(inputs)))


def change_model(run: Path, **entry: Any) -> None:
    path = run / "app_server" / "config" / "config_fed_client.json"
    path.write_text(json.dumps({"components": [{"id": "model", **entry}]}))


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (
            lambda run: change_model(run, path="custom.models.lenet.LeNet"),
            (),
            "job simulate_job model: expected custom.models.bert_classifier.BertClassifier, got custom.models.lenet",
        ),
        (lambda run: (run / "app_server" / "FL_global_model.pt").unlink(), (), "has left no app_server/FL_global_"),
        (lambda run: None, ("--best",), "has left no app_server/best_FL_global_model.pt; without --best the last"),
        (lambda run: (run / "app_server" / "config" / "config_fed_client.json").unlink(), (), "has no config/config"),
        (lambda run: persist(build(1, num_classes=5), run / "app_server" / "FL_global_model.pt"), (), "the weights"),
        (
            lambda run: (run / "app_server" / "FL_global_model.pt").write_bytes(b"cut"),
            (),
            "FL_global_model.pt: cannot be loaded safely",
        ),
        (
            lambda run: change_model(run, path="custom.models.bert_classifier.BertClassifier", args={"depth": 3}),
            (),
            "the arguments of the job's model: got an unexpected keyword argument 'depth'",
        ),
        (lambda run: None, ("--job", "other"), "--job other: no such job"),
        (lambda run: None, ("--encoder", "/nope"), "model_name_or_path: no such folder, got /nope; give a folder"),
    ],
)
def test_what_cannot_be_written_is_one_paragraph(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any, arguments: tuple[str, ...], message: str
) -> None:
    spoil(run)
    before = sorted(tmp_path.iterdir())
    assert main(["save-pretrained", str(tmp_path / "ws"), "-o", str(tmp_path / "hf"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_holds_something_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "mine.txt").write_text("x")
    with pytest.raises(BundleError, match="exists and is not empty"):
        save_pretrained(tmp_path / "ws", tmp_path / "hf")
    assert [path.name for path in (tmp_path / "hf").iterdir()] == ["mine.txt"]


def test_an_encoder_without_its_tokenizer_is_refused_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    build(3).encoder.save_pretrained(encoder)
    with pytest.raises(BundleError) as caught:
        save_pretrained(tmp_path / "ws", tmp_path / "hf", encoder=str(encoder))
    assert caught.value.code == "encoder-unfit"
    assert not (tmp_path / "hf").exists()
