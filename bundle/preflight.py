# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE's preflight check of a server's kit, on a copy: a server that starts leaves logs and a job store behind.

`nvflare preflight-check` ends what it started by a pattern of command lines (pkill -f); here it is ended by its id.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]
from nvflare.tool.package_checker.check_rule import CHECK_PASSED
from nvflare.tool.package_checker.server_package_checker import ServerPackageChecker

STOP_S = 5.0


class Check(NamedTuple):
    """One row of FLARE's report; `problem` is empty if it passed."""

    name: str
    problem: str
    remedy: str


def check_server(kit: Path) -> list[Check]:
    """Binds the port, writes, and starts the server for some seconds, as it is on this machine."""
    before = set(psutil.Process().children(recursive=True))
    with tempfile.TemporaryDirectory(prefix="flare-bundle-") as temporary:
        copy = Path(temporary) / kit.name
        shutil.copytree(kit, copy)
        checker = ServerPackageChecker()
        try:
            checker.init(str(copy))
            checker.check()
        finally:
            _stop(before)
        rows = checker.report[str(copy)]
    return [Check(name, "" if problem == CHECK_PASSED else problem, remedy) for name, problem, remedy in rows]


def _stop(before: set[psutil.Process]) -> None:
    """Ends the processes that came since."""
    processes = [process for process in psutil.Process().children(recursive=True) if process not in before]
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=STOP_S)
