# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""docs/own-job.md, word for word."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from tests.jobs.flare import ROOT, bundle, environment

pytestmark = pytest.mark.e2e


def test_the_job_of_the_guide_trains(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "own-job.md").read_text()
    code, configuration = (
        textwrap.dedent(re.search(rf" *```{language}\n(.*?)```", guide, re.DOTALL)[1])  # type: ignore[index]
        for language in ("python", "json")
    )
    entries = json.loads(f"[{configuration.strip().rstrip(',')}]")
    done = bundle("export", "hello-pt", "my-job", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    app = tmp_path / "my-job" / "app"
    (app / "custom" / "mine.py").write_text(code)
    path = app / "config" / "config_fed_client.json"
    config = json.loads(path.read_text())
    replaced = {entry["id"]: entry for entry in entries}
    assert set(replaced) == {"model", "data"}
    config["components"] = [replaced.get(entry["id"], entry) for entry in config["components"]]
    path.write_text(json.dumps(config))

    done = bundle("run", "my-job", "-w", "ws", "--set", "num_rounds=3", cwd=tmp_path, env=environment(tmp_path))

    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "ws/server/simulate_job/cross_site_val/cross_val_results.json").read_text())
    assert all(row["SRV_FL_global_model.pt"]["test_accuracy"] > 0.6 for row in results.values()), results
    open_to_others = [path for path in (tmp_path / "ws").glob("*/**/*") if path.stat().st_mode & 0o077]
    assert not open_to_others
