# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""sparse-bert as a user runs it without a network: the embedded encoder on made-up headlines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.jobs.flare import bundle, environment, progress

pytestmark = pytest.mark.e2e
PARAMETERS = 143_620  # of the embedded encoder with its pooler and head, in 41 tensors


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The job with three sites, one process for all tasks; its workspace and report."""
    folder = tmp_path_factory.mktemp("sparse-bert")
    env = environment(folder, HF_HUB_OFFLINE="1")
    settings = ["--set", "num_rounds=5", "--set", "value_type=float16"]
    done = bundle("run", "sparse-bert", "-n", "3", "-w", str(folder / "ws"), *settings, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout
    assert "EMBEDDED DATA SET" in done.stdout
    assert "EMBEDDED ENCODER" in done.stdout
    done = bundle("report", str(folder / "ws"), "--json", str(folder / "report.json"), cwd=folder)
    assert done.returncode == 0, done.stdout
    return folder / "ws", json.loads((folder / "report.json").read_text())


def test_it_learns_while_a_tenth_is_sent(finished: tuple[Path, dict[str, Any]]) -> None:
    _, report = finished
    assert [row["round"] for row in report["rounds"]] == [1, 2, 3, 4, 5]
    assert report["best"]["value"] > 0.5, "four topics: a guess is right a quarter of the time"
    for row in report["rounds"]:
        # Of each site a tenth, in 2 bytes and at most 6 bits for its place; BERT's 41 names and shapes beside.
        assert 0.2 * 3 * PARAMETERS < row["upload_bytes"] < 0.3 * 3 * PARAMETERS
    assert report["rounds"][0]["download_bytes"] >= 3 * 4 * PARAMETERS
    # What changed is at most what three sites sent: three tenths, in 4 bytes and a place each.
    assert all(row["download_bytes"] < 0.37 * 3 * 4 * PARAMETERS for row in report["rounds"][1:])


def test_the_sites_are_told_of_every_round(finished: tuple[Path, dict[str, Any]]) -> None:
    rounds = [event for event in progress(finished[0]) if event["event"] == "round"]
    assert all(event["failed"] == {} and len(event["sites"]) == 3 for event in rounds)


def test_transformers_reads_the_trained_model(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    done = bundle("save-pretrained", str(finished[0]), "-o", str(tmp_path / "model"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    headlines = ["striker scores for the league champion", "shares fall as investors fear inflation"]
    logits = model(**tokenizer(headlines, padding=True, return_tensors="pt")).logits
    assert logits.argmax(1).tolist() == [1, 2], "sports, business"
