# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m bundle ...` as a process: what needs the jobs' classes, and with them torch, stays out of this one.

Where there is a fork server, as in the dashboard, torch is imported only once.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import IO

from bundle import ROOT
from bundle.forked import start
from custom.errors import BundleError

TIMEOUT_S = 120.0  # the first import of torch after a start of the machine takes its time
ERROR = re.compile(r"^error: (.*?)(?: \[([a-z-]+)\])?\s*\Z", re.MULTILINE | re.DOTALL)
log = logging.getLogger(__name__)


def run_bundle(*arguments: str) -> str:
    """Runs a command of the bundle to its end, in an empty folder; what it printed.

    Raises:
        BundleError: the message of the command, or that it took too long or broke.
    """
    with ExitStack() as held:
        nowhere = held.enter_context(tempfile.TemporaryDirectory(prefix="dashboard-"))
        output, errors = (held.enter_context(_temporary_text()) for _ in range(2))
        process = start(
            [sys.executable, "-m", "bundle", *arguments],
            cwd=nowhere,
            env=_environment(),
            output=output.fileno(),
            errors=errors.fileno(),
            patience_s=TIMEOUT_S,
            refused=lambda reason: log.warning("python -m bundle %s is not forked: %s", arguments[0], reason),
        )
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            problem = f"python -m bundle {arguments[0]} took longer than {TIMEOUT_S:g} s"
            raise BundleError(problem, code="command-failed", remedy="is this machine busy? Try again") from error
        if code == 0:
            return _read(output)
        raise _error(arguments[0], code, _read(errors))


def _error(command: str, code: int, printed: str) -> BundleError:
    said = ERROR.search(printed)
    if said:
        return BundleError(said[1], code=said[2] or "command-failed")
    last = printed.strip().rpartition("\n")[2] or f"exit code {code}"
    return BundleError(f"python -m bundle {command} broke: {last}", code="command-failed")


def _temporary_text() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


def _read(file: IO[str]) -> str:
    """All that a process has written to it."""
    file.seek(0)
    return file.read()


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
