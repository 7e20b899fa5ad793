# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""hello-pt that sends a tenth of its updates, by the JSON of the README, and that sends changes back to its sites."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.jobs.flare import ROOT, export, progress, simulate

pytestmark = pytest.mark.e2e
DENSE = 2 * 62_006 * 4  # bytes of two sites' updates, or of the model sent to both
DOWNLINK = {
    "server": "custom.filters.send_changes.SendChanges",
    "client": "custom.filters.apply_changes.ApplyChanges",
}


def snippets() -> list[dict]:
    """The JSON of the README's answer about fewer bytes."""
    answer = (ROOT / "README.md").read_text().partition("*Fewer bytes on the wire?*")[2].partition("\n*")[0]
    filters, aggregator = re.findall(r"```json\n(.*?)```", answer, re.DOTALL)
    return [json.loads("{" + filters + "}"), json.loads(aggregator)]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def sparse_job(out: Path) -> Path:
    """hello-pt with the README's JSON; three rounds and nothing after them."""
    settings = ("dataset=digits", "num_rounds=3")
    job = export("hello-pt", out, *settings, drop_workflows=("cross_site_validate", "closing_validation"))
    filters, aggregator = snippets()

    def replace_aggregator(server: dict[str, Any]) -> None:
        server["components"] = [aggregator if c["id"] == "aggregator" else c for c in server["components"]]

    edit(config_of(job, "client"), lambda client: client.update(filters))
    edit(config_of(job, "server"), replace_aggregator)
    return job


def config_of(job: Path, side: str) -> Path:
    return job / "app" / "config" / f"config_fed_{side}.json"


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    rounds = [event for event in progress(folder / "ws") if event["event"] == "round"]
    assert [event["round"] for event in rounds] == [1, 2, 3]
    assert all(event["failed"] == {} for event in rounds)
    return rounds


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse")
    simulate(sparse_job(folder / "job"), folder, sites=2, threads=2, data_root=folder)
    return folder


def test_a_tenth_is_sent_and_the_model_learns(sparse: Path) -> None:
    rounds = rounds_of(sparse)
    # A kept entry costs 4 bytes and at most 6 bits for its place; a tenth is kept.
    assert all(0.1 * DENSE < event["upload_bytes"] < 0.125 * DENSE for event in rounds)
    assert all(event["download_bytes"] == DENSE for event in rounds)
    first, last = (
        [site["received"]["val_accuracy"] for site in event["sites"].values()] for event in (rounds[0], rounds[-1])
    )
    assert min(last) > max(first) + 0.3
    residuals = sorted(path.parent.name for path in (sparse / "ws").rglob("residual_*.pt"))
    assert residuals == ["simulate_job", "simulate_job"]


def test_sites_receive_what_has_changed_and_get_the_same_model(sparse: Path, tmp_path: Path) -> None:
    """Here every task is done by another process, so that residuals and the last model are nowhere but on disk."""
    job = sparse_job(tmp_path / "job")
    for side, path in DOWNLINK.items():
        chain = [{"tasks": ["train"], "filters": [{"path": path, "args": {}}]}]
        edit(config_of(job, side), lambda config, chain=chain: config.update(task_data_filters=chain))
    simulate(job, tmp_path, sites=2, threads=1, data_root=tmp_path)

    rounds, before = rounds_of(tmp_path), rounds_of(sparse)
    assert [event["upload_bytes"] for event in rounds] == [event["upload_bytes"] for event in before]
    # Two sites' tenths are a fifth of the entries at most; of each of them 4 bytes and at most 6 bits are received.
    assert rounds[0]["download_bytes"] == DENSE
    assert all(0.1 * DENSE < event["download_bytes"] < 0.25 * DENSE for event in rounds[1:])
    for event, reference in zip(rounds, before, strict=True):
        assert {site: facts["received"] for site, facts in event["sites"].items()} == {
            site: facts["received"] for site, facts in reference["sites"].items()
        }
    got, expected = (global_model(folder) for folder in (tmp_path, sparse))
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def global_model(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "ws" / "server" / "simulate_job" / "app_server" / "FL_global_model.pt"
    return torch.load(path, weights_only=True)["model"]
