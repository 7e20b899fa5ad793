# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One site of FLARE's simulator as a program, without the waits that wait for nothing."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):  # the modules beside this program are no top-level ones
    sys.path.pop(0)

import os
import runpy

from nvflare.fuel.f3.mpm import MainProcessMonitor
from nvflare.private.fed.app.simulator import simulator_worker
from nvflare.private.fed.client import client_runner

HERE = Path(__file__).parent
end_with = runpy.run_path(str(HERE / "end_with.py"))["end_with"]
without_waits = runpy.run_path(str(HERE / "waits.py"))["without_waits"]


def main() -> None:
    without_waits(simulator_worker, client_runner)
    args = simulator_worker.parse_arguments()
    if os.getppid() == int(args.parent_pid):  # else it was forked, and ends with the fork server
        end_with(os.getppid())
    code = MainProcessMonitor.run(
        main_func=simulator_worker.main, run_dir=args.workspace, shutdown_grace_time=0, args=args
    )
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
