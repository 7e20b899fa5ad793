# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One of five sites sends bad updates through FLARE, broken ones and then plausible ones."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.app_common.app_event_type import AppEventType

from custom.data.image_data import ImageData
from custom.learning.evaluate import evaluate_split
from custom.models.lenet import LeNet
from tests.fault.misbehave import OTHERS
from tests.jobs.flare import ROOT, bundle, export, progress, simulate

pytestmark = [pytest.mark.e2e, pytest.mark.fault]
BAD_SITE = "site-3"
TENSORBOARD = ("writer", "send_events")  # seconds of start-up at each site
REFUSED = {  # kind of tests.fault.misbehave, in the order of rounds: the reason by which it is refused
    "NaN": "not_finite",
    "infinity": "not_finite",
    "wrong shape": "shape",
    "wrong dtype": "dtype",
    "missing key": "missing_key",
    "extra key": "extra_key",
    "no tensors": "no_data",
    "weight 0": "weight",
    "weight -1": "weight",
    "weight NaN": "weight",
    "weight 1e30": "weight",
    "weight above its samples": "weight",
    "weight no number": "weight",
    "metric NaN": "metrics",
    "accuracy 3": "metrics",
    "accuracy 1e308": "metrics",
    "accuracy -1e308": "metrics",
    "accuracy as text": "metrics",
    "metric named 5": "metrics",
    "metric named with control codes": "metrics",
    "weights, no update": "kind",
    "stale round": "stale_round",
    "sparse, another version": "version",
    "sparse, cut short": "positions",
    "sparse, another shape": "shape",
    "sparse, unknown coding": "format",
    "sparse, too many values": "count",
    "sparse, values without positions": "unpaired",
    "sparse, NaN": "not_finite",
    "sparse, float64": "dtype",
    "sparse, extra key": "extra_key",
}
ROUNDS_OF_HARM = 8
KINDS = [*REFUSED, "names of others", "duplicate"]


def misbehave(job: Path, kinds: list[str], *tasks: str) -> None:
    """Puts a site that sends `kinds` into the exported job; TensorBoard's component, which takes long, out of it."""
    path = job / "app" / "config" / "config_fed_client.json"
    config = json.loads(path.read_text())
    config["components"] = [part for part in config["components"] if part["id"] not in TENSORBOARD]
    if kinds:
        shutil.copy(Path(__file__).with_name("misbehave.py"), job / "app" / "custom")
        bad = {"path": "misbehave.Misbehave", "args": {"site": BAD_SITE, "kinds": kinds}}
        config["task_result_filters"] = [{"tasks": list(tasks), "filters": [bad]}]
    path.write_text(json.dumps(config))


def run(folder: Path, kinds: list[str], num_rounds: int, *settings: str) -> tuple[Path, str]:
    """hello-pt on digits at five sites, of which one sends `kinds` if there are any; workspace and output."""
    # Honest norms grow more than tenfold from round to round as long as so few steps have taught the model nothing.
    settings = ("dataset=digits", f"num_rounds={num_rounds}", *settings)
    folder.mkdir(exist_ok=True)
    job = export("hello-pt", folder / "job", *settings, drop_workflows=("cross_site_validate", "closing_validation"))
    misbehave(job, kinds, "train")
    output = simulate(job, folder, sites=5, threads=5, data_root=folder)
    return folder / "ws", output


def accuracy_of(workspace: Path) -> float:
    """Of the last global model, on the 1,000 test images of all sites; it must be finite."""
    path = workspace / "server" / "simulate_job" / "app_server" / "FL_global_model.pt"
    weights = torch.load(path, weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    model = LeNet()
    model.load_state_dict(weights)
    data = ImageData(dataset="digits").site("all", ("all",), 0)
    return evaluate_split(model, data, "test", torch.device("cpu"))["test_accuracy"]


def rounds_of(workspace: Path) -> list[dict[str, Any]]:
    return [event for event in progress(workspace) if event["event"] == "round"]


def received(workspace: Path, number: int) -> float:
    """Mean validation accuracy over the sites of the model that they received in that round."""
    sites = rounds_of(workspace)[number - 1]["sites"]
    return statistics.mean(facts["received"]["val_accuracy"] for site, facts in sites.items() if site != BAD_SITE)


def readme_setting() -> str:
    """The setting of the README's answer."""
    answer = (ROOT / "README.md").read_text().partition("*A site that misbehaves?*")[2].partition("\n*")[0]
    return re.findall(r"--set (aggregator=\w+)", answer)[0]


def named(workspace: Path, folder: Path) -> list[str]:
    """The sites that the report says to look at."""
    done = bundle("report", str(workspace), "--json", str(folder / "report.json"), cwd=folder)
    assert done.returncode == 0, done.stdout
    report = json.loads((folder / "report.json").read_text())
    for outlier in report["outliers"]:
        assert outlier["sentence"] in report["warnings"]
        assert outlier["sentence"] in " ".join(done.stdout.split())  # which is broken into lines
    return sorted({outlier["site"] for outlier in report["outliers"]})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace when all behave."""
    workspace, _ = run(tmp_path_factory.mktemp("good"), [], len(KINDS))
    assert all(len(event["sites"]) == 5 for event in rounds_of(workspace))
    return workspace


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Every kind of broken update, one a round, then a good one that is sent again as another one."""
    return run(tmp_path_factory.mktemp("broken"), KINDS, len(KINDS))


@pytest.mark.quick
def test_every_broken_update_is_refused_counted_and_named(broken: tuple[Path, str]) -> None:
    workspace, output = broken
    rounds = rounds_of(workspace)
    assert len(rounds) == len(KINDS)
    errors = [event for event in progress(workspace) if event["event"] == "site_error"]
    assert [(event["site"], event["task"]) for event in errors] == [(BAD_SITE, "train")] * len(REFUSED)
    for number, (kind, reason) in enumerate(REFUSED.items(), start=1):
        event, told = rounds[number - 1], errors[number - 1]["reason"]
        assert sorted(event["sites"]) == ["site-1", "site-2", "site-4", "site-5"], kind
        assert event["failed"] == {BAD_SITE: told}, kind
        assert told.startswith(f"{BAD_SITE} round {number}"), kind
        assert f"update refused ({reason}): {told}" in output, kind
    assert "Traceback" not in output


@pytest.mark.quick
def test_the_report_names_every_one(broken: tuple[Path, str], tmp_path: Path) -> None:
    done = bundle("report", str(broken[0]), "--json", str(tmp_path / "report.json"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    for number in range(1, len(REFUSED) + 1):
        start = rf"{BAD_SITE} at train: {BAD_SITE} round {number}\b"
        assert sum(bool(re.match(start, text)) for text in report["errors"]) == 1, (number, report["errors"])


@pytest.mark.quick
def test_a_site_has_one_update_whatever_names_it_uses(broken: tuple[Path, str]) -> None:
    workspace, output = broken
    event = rounds_of(workspace)[len(REFUSED)]
    assert sorted(event["sites"]) == [f"site-{number}" for number in range(1, 6)]
    assert not event["uncounted"]
    refused = [f"{BAD_SITE} sent messages in the name of {name}; they do not count" for name in OTHERS]
    refused.append(
        f"{BAD_SITE} sent an event {AppEventType.GLOBAL_BEST_MODEL_AVAILABLE}; only those of metrics are taken"
    )
    assert all(told in output for told in refused)
    assert {event["reason"] for event in progress(workspace) if event["event"] == "warning"} == set(refused)


@pytest.mark.quick
def test_an_update_sent_twice_counts_once(broken: tuple[Path, str]) -> None:
    """The second is refused as a duplicate or, if it was the last of its round, as stale."""
    workspace, output = broken
    assert BAD_SITE in rounds_of(workspace)[-1]["sites"]
    number = len(KINDS)
    assert re.search(rf"update refused \((duplicate|stale_round)\): {BAD_SITE} round {number}", output)


def test_the_model_is_as_good_as_without_them(broken: tuple[Path, str], good: Path) -> None:
    got, expected = accuracy_of(broken[0]), accuracy_of(good)
    print(f"test accuracy {got:.4f}, {expected:.4f} when all behave")
    assert got > expected - 0.02


def test_plausible_harm_is_named_and_tolerated_by_the_rule_of_the_readme_and_not_by_the_mean(
    good: Path, tmp_path: Path
) -> None:
    """Five times the update backwards, from one of five, takes back what the other four have learned."""
    accuracy = {}
    for name, settings in {"mean": (), "robust": (readme_setting(),)}.items():
        workspace, output = run(tmp_path / name, ["reversed x 5"], ROUNDS_OF_HARM, *settings)
        assert all(len(event["sites"]) == 5 for event in rounds_of(workspace)), f"{name}: it was to be accepted"
        assert named(workspace, tmp_path / name) == [BAD_SITE]
        accuracy[name] = accuracy_of(workspace)
        assert f"update of {BAD_SITE} clipped from norm" in output
    assert named(good, good) == []
    expected = received(good, ROUNDS_OF_HARM)
    print(f"accuracy {accuracy}, validation {expected:.4f} when all behave")
    assert accuracy["robust"] > expected - 0.06
    assert accuracy["mean"] < expected - 0.2


def test_a_blast_in_the_first_round_does_no_harm_and_is_named(good: Path, tmp_path: Path) -> None:
    """A million times the update: scaled to three times the others' norms, by default; nobody is refused."""
    workspace, _ = run(tmp_path, ["norm x 1e6", "duplicate"], ROUNDS_OF_HARM)
    assert all(len(event["sites"]) == 5 for event in rounds_of(workspace))
    assert named(workspace, tmp_path) == [BAD_SITE]
    assert accuracy_of(workspace) > received(good, ROUNDS_OF_HARM) - 0.06


def test_no_weight_above_that_of_the_writers_drawn(tmp_path: Path) -> None:
    """In perfedavg a round trains few of a site's writers: 6 of 80, who have 50 digits each, at three sites."""
    rounds = ("fed_avg.num_rounds=2", "meta_train.num_rounds=2", "eval_every=0")
    job = export("perfedavg", tmp_path / "job", "dataset=digits", "writers_per_round=6", *rounds)
    misbehave(job, ["weight twice"], "train", "meta_train")
    simulate(job, tmp_path, sites=3, threads=3, data_root=tmp_path)
    events = [event for event in rounds_of(tmp_path / "ws") if event["failed"]]
    assert {event["task"] for event in events} == {"train", "meta_train"}
    for event in events:
        assert sorted(event["sites"]) == ["site-1", "site-2"]
        limit, got = re.findall(r"from 0 to (\d+), got (\d+)", event["failed"][BAD_SITE])[0]
        assert int(got) == 2 * int(limit)
        others = sum(facts["samples"] for facts in event["sites"].values())
        assert others + int(limit) == (300 if event["task"] == "train" else 6)
