# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""hello-pt that sends a tenth of its updates, by the JSON of the README; one process for all tasks of both sites."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.jobs.flare import ROOT, export, progress, simulate

pytestmark = pytest.mark.e2e
DENSE = 2 * 62_006 * 4  # bytes of two sites' updates


def snippets() -> list[dict]:
    """The JSON of the README's answer about fewer bytes."""
    answer = (ROOT / "README.md").read_text().partition("*Fewer bytes on the wire?*")[2].partition("\n*")[0]
    filters, aggregator = re.findall(r"```json\n(.*?)```", answer, re.DOTALL)
    return [json.loads("{" + filters + "}"), json.loads(aggregator)]


def test_a_tenth_is_sent_and_the_model_learns(tmp_path: Path) -> None:
    job = export(
        "hello-pt",
        tmp_path / "job",
        "dataset=digits",
        "num_rounds=3",
        drop_workflows=("cross_site_validate", "closing_validation"),
    )
    filters, aggregator = snippets()
    client, server = (job / "app" / "config" / f"config_fed_{side}.json" for side in ("client", "server"))
    client.write_text(json.dumps(json.loads(client.read_text()) | filters))
    config = json.loads(server.read_text())
    config["components"] = [aggregator if c["id"] == "aggregator" else c for c in config["components"]]
    server.write_text(json.dumps(config))

    simulate(job, tmp_path, sites=2, threads=1, data_root=tmp_path)

    rounds = [event for event in progress(tmp_path / "ws") if event["event"] == "round"]
    assert [event["round"] for event in rounds] == [1, 2, 3]
    assert all(event["failed"] == {} for event in rounds)
    # A kept entry costs 4 bytes and at most 6 bits for its place; a tenth is kept.
    assert all(0.1 * DENSE < event["upload_bytes"] < 0.125 * DENSE for event in rounds)
    first, last = (
        [site["received"]["val_accuracy"] for site in event["sites"].values()] for event in (rounds[0], rounds[-1])
    )
    assert min(last) > max(first) + 0.3
    residuals = sorted(path.parent.name for path in (tmp_path / "ws").rglob("residual_*.pt"))
    assert residuals == ["simulate_job", "simulate_job"]
