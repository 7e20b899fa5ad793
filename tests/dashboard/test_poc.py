# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What is checked before FLARE is started; the rest: test_flare.py."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from custom.errors import BundleError
from dashboard.poc import ROOT, Poc


def test_flare_gets_a_home_of_its_own_and_not_this_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:/elsewhere:{ROOT / 'tests'}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environment = Poc(tmp_path, 1000)._environment()
    assert environment["PYTHONPATH"] == "/elsewhere"
    assert environment["HOME"] == str(tmp_path / "home")
    assert environment["OMP_NUM_THREADS"] == "1"


def test_no_key_is_readable_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.poc.PORTS", ())  # nothing is started
    poc = Poc(tmp_path / "poc", 2)
    poc.prepare()
    keys = [path for path in poc.folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert len(keys) >= 5  # of the server, two sites, the admin, and FLARE's state with all of them
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert stat.S_IMODE(poc.folder.stat().st_mode) == 0o700


def test_a_system_with_other_sites_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.poc.PORTS", ())
    poc = Poc(tmp_path, 3)
    for site in ("site-1", "site-2"):
        (poc._production() / site / "startup").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"with 2 sites .* give --sites 2"):
        poc.prepare()


def test_a_port_that_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr("dashboard.poc.PORTS", (port,))
        with pytest.raises(BundleError, match=f"port {port} is in use, and FLARE needs it"):
            Poc(tmp_path, 2).prepare()
        assert list(tmp_path.iterdir()) == []


def test_only_processes_of_this_system_are_its_own(tmp_path: Path) -> None:
    """Those that restart others come first; a dashboard on the same kit is none of them."""
    poc = Poc(tmp_path / "own", 2)
    server, other = poc._production() / "server", Poc(tmp_path / "other", 2)._production() / "server"
    lines = [
        ["nvflare.private.fed.app.server.server_train", "-m", f"{server}"],
        ["bash", f"{server}/startup/sub_start.sh"],
        ["nvflare.private.fed.app.server.server_train", "-m", f"{other}"],
        ["dashboard", "--kit", f"{server.parent}/admin@nvidia.com"],
    ]
    waits = [sys.executable, "-c", "import time; time.sleep(60)"]
    processes = [subprocess.Popen([*waits, *line]) for line in lines]
    try:
        assert poc._processes() == [processes[1].pid, processes[0].pid]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert poc._processes() == []
