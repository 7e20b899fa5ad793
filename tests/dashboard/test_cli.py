# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m dashboard` as a process: its fork server ends with it, however that ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bundle.forked import SOCKET
from tests.dashboard.served import Served
from tests.fault.sites import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only"),
]
LIMIT_S = 240.0  # to fail in place of hanging


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """One whose folder for temporary files is its own, without the fork server that other tests may have."""
    monkeypatch.delenv(SOCKET, raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    served = Served(tmp_path, forks=True)
    yield served
    if served.process.poll() is None:
        served.stop()


def is_there(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_fork_server_ends_with_the_dashboard(served: Served, end: signal.Signals) -> None:
    """And so does what it has forked: the command that reads the forms."""
    (server,) = psutil.Process(served.process.pid).children()
    assert os.getsid(server.pid) == server.pid  # Ctrl-C in a terminal is for the dashboard alone
    until(lambda: server.children() != [], "no command", LIMIT_S)
    family = [server, *server.children()]
    served.process.send_signal(end)
    assert served.process.wait(LIMIT_S) == {signal.SIGINT: 0}.get(end, -end)
    until(lambda: not any(map(is_there, family)), "it is left", LIMIT_S)
    assert "Traceback" not in served.log()
    ours = "*-*" if end == signal.SIGINT else "flare-bundle-*"  # and not torchinductor_USER, which is torch's
    assert list((served.folder / "temporary").glob(ours)) == []


def test_torch_stays_out_of_the_dashboard_and_forms_come_without_the_fork_server(served: Served) -> None:
    (server,) = psutil.Process(served.process.pid).children()
    server.kill()
    with served.logged_in() as user:
        until(lambda: "job-mnist" in user.get("/launch").text, "no forms", LIMIT_S, every_s=1)
    maps = Path(f"/proc/{served.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "Traceback" not in served.log()
