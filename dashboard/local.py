# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`make dashboard`: a FLARE system of its own on this machine (a POC), the dashboard on it, and an end to both."""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bundle.forked import fork_server
from bundle.interrupts import ignore_interrupts, interrupts_call
from custom.errors import BundleError
from dashboard.poc import ROOT, Poc, in_use
from dashboard.serving import DEFAULT_PORT, port_number

UNQUOTED = re.compile(r"""[\s'"\\#$&;()<>|*?\[\]!`]""")  # which the start scripts of FLARE's POC do not quote
DEFAULT_WORKSPACE = ROOT / "workspace" / "poc"
END_S = 10.0  # for the dashboard
OK, BAD_INPUT = 0, 2


class Stop(Exception):
    """Somebody asked for the end, with one of INTERRUPTS."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both until one of INTERRUPTS, such as Ctrl-C, or the dashboard's own end."""
    options = build_parser().parse_args(arguments)
    poc = Poc(options.workspace, options.sites)
    try:
        with interrupts_call(_stop), fork_server():
            return _run(poc, options.port)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except Stop:
        return OK


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m dashboard.local", description=__doc__)
    parser.add_argument("--sites", type=_number_of_sites, default=2, help="number of sites (default: 2)")
    parser.add_argument(
        "--workspace",
        type=Path,
        default=DEFAULT_WORKSPACE,
        metavar="DIR",
        help="folder of the system; what was trained in it is still there the next time (default: workspace/poc)",
    )
    parser.add_argument("--port", type=port_number, default=DEFAULT_PORT, help=f"of the page (default: {DEFAULT_PORT})")
    return parser


def _number_of_sites(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d?", text):
        raise argparse.ArgumentTypeError("1 to 99")
    return int(text)


def _run(poc: Poc, port: int) -> int:
    if in_use(port):
        raise BundleError(f"port {port} is in use", code="port-unusable", key="--port", remedy="choose another one")
    if unfit := [part for part in (poc.folder, Path(sys.executable)) if UNQUOTED.search(str(part))]:
        raise BundleError(
            "FLARE's POC cannot start with a blank, a quote or another sign of the shell in this path",
            code="workspace-unusable",
            key=str(unfit[0]),
            remedy="use a clone in another folder, or: python -m bundle provision poc OUT, then python -m dashboard",
        )
    print(f"Starting FLARE with {poc.sites} sites in {poc.folder} (about 15 s)", flush=True)
    poc.prepare()
    dashboard = None
    try:
        poc.start()
        command = [sys.executable, "-m", "dashboard", "--kit", str(poc.kit), "--port", str(port)]
        dashboard = subprocess.Popen(command, cwd=ROOT)
        return dashboard.wait()
    finally:
        ignore_interrupts()
        _end(dashboard)
        with contextlib.suppress(OSError):  # of a terminal that was closed
            print("Stopping FLARE; what was trained is kept (about 15 s)", flush=True)
        poc.stop()


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stop


if __name__ == "__main__":
    sys.exit(main())
