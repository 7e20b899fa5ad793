# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m bundle ...` as a process: what needs the jobs' classes, and with them torch, stays out of this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

from bundle import ROOT
from custom.errors import BundleError

TIMEOUT_S = 120.0  # the first import of torch after a start of the machine takes its time
ERROR = re.compile(r"^error: (.*?)(?: \[([a-z-]+)\])?\s*\Z", re.MULTILINE | re.DOTALL)


def run_bundle(*arguments: str) -> str:
    """Runs a command of the bundle to its end, in an empty folder; what it printed.

    Raises:
        BundleError: the message of the command, or that it took too long or broke.
    """
    with tempfile.TemporaryDirectory(prefix="dashboard-") as nowhere:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "bundle", *arguments],
                cwd=nowhere,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            problem = f"python -m bundle {arguments[0]} took longer than {TIMEOUT_S:g} s"
            raise BundleError(problem, code="command-failed", remedy="is this machine busy? Try again") from error
    if done.returncode == 0:
        return done.stdout
    said = ERROR.search(done.stderr)
    if said:
        raise BundleError(said[1], code=said[2] or "command-failed")
    last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
    raise BundleError(f"python -m bundle {arguments[0]} broke: {last}", code="command-failed")


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
