# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`nvflare simulator` typed in the checkout runs the job's own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.report.reading import read_report
from tests.jobs.flare import FLARES_SIMULATOR, ROOT, environment, export, run

pytestmark = pytest.mark.e2e
LOSS = "return functional.cross_entropy(logits, labels)\n"


def test_a_changed_loss_is_the_one_that_trains(tmp_path: Path) -> None:
    """A loss of 0: its mean is 0, and the weights stay as they are."""
    job = export("mnist", tmp_path / "job", "dataset=digits", "num_rounds=1", "min_clients=1")
    assert json.loads((job / "meta.json").read_text())["min_clients"] == 1
    path = job / "app" / "custom" / "custom" / "learning" / "train.py"
    assert LOSS in path.read_text()
    path.write_text(path.read_text().replace(LOSS, LOSS.replace("return ", "return 0.0 * ")))
    command = [*FLARES_SIMULATOR, str(job), "-w", str(tmp_path / "ws"), "-n", "1", "-t", "1"]
    done = run(command, ROOT, environment("/nowhere"))
    assert done.returncode == 0, done.stdout[-4000:]
    report = read_report(tmp_path / "ws")
    assert (report.status, report.errors) == ("completed", [])
    assert report.rounds[0].aggregate["train_loss"] == 0.0
    assert " ERROR " not in done.stdout
