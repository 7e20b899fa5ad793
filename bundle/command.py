# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m bundle ...` as a process: what needs the jobs' classes, and with them torch, stays out of this one.

Where there is a fork server, torch is imported only there.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from bundle import ROOT
from bundle.forked import OFF, PATIENCE_S, SOCKET, start
from bundle.jobs import Job, read_job
from custom.errors import BundleError

TIMEOUT_S = PATIENCE_S
ERROR = re.compile(r"^error: (.*?)(?: \[([a-z-]+)\])?\s*\Z", re.MULTILINE | re.DOTALL)
NEEDED = "nvflare"  # of `fork_server.PRELOADED` the last one that all jobs' classes import
log = logging.getLogger(__name__)


def packed(name_or_path: str, out: Path, assignments: Sequence[str]) -> Job:
    """As `bundle.export.export`, in a process of the fork server's where there is one."""
    if os.environ.get(SOCKET, OFF) == OFF:
        from bundle.export import export

        return export(name_or_path, out, assignments)
    settings = [f"--set={assignment}" for assignment in assignments]
    run_bundle("export", *settings, "--", name_or_path, str(out), folder=os.getcwd())
    return read_job(str(out))


def run_bundle(*arguments: str, folder: str = "") -> str:
    """Runs a command of the bundle to its end; what it printed.

    Args:
        arguments: of `python -m bundle`.
        folder: where; an empty one if none is given.

    Raises:
        BundleError: the message of the command, or that it took too long or broke.
    """
    with ExitStack() as held:
        folder = folder or held.enter_context(tempfile.TemporaryDirectory(prefix="command-"))
        output, errors = (held.enter_context(_temporary_text()) for _ in range(2))
        process = start(
            [sys.executable, "-m", "bundle", *arguments],
            cwd=folder,
            env=_environment(),
            output=output.fileno(),
            errors=errors.fileno(),
            after=NEEDED,
            refused=lambda reason: log.warning("python -m bundle %s is not forked: %s", arguments[0], reason),
        )
        try:
            code = process.wait(TIMEOUT_S)
        except BaseException as error:  # Ctrl-C, too
            process.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            problem = f"python -m bundle {arguments[0]} took longer than {TIMEOUT_S:g} s"
            raise BundleError(problem, code="command-failed", remedy="is this machine busy? Try again") from error
        if code == 0:
            return _read(output)
        if getattr(process, "lost", False):
            raise BundleError("the fork server has ended: was it killed?", code="command-failed")
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
