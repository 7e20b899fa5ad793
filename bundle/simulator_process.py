# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE's simulator as a program, with two faults of nvflare 2.9.0 fixed: see `do_one_task` and `split_command`."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):  # the modules beside this program are no top-level ones
    sys.path.pop(0)

import copy
import os
import re
import runpy
from types import SimpleNamespace
from typing import Any

from nvflare.private.fed.app.simulator import simulator_runner
from nvflare.private.fed.app.simulator.simulator_runner import SimulatorClientRunner

SIMULATOR = "nvflare.private.fed.app.simulator.simulator"
SEPARATORS = re.compile(
    r" (-m) ([\w.]+) (-o) "
    r"| (--(?:logging_config|client|token|port|parent_pid|simulator_root|root_url|parent_url|task_name"
    r"|decomposer_module|gpu)) "
)
_do_one_task = SimulatorClientRunner.do_one_task


def do_one_task(self: SimulatorClientRunner, *args: Any, **kwargs: Any) -> Any:
    """As FLARE's, but with a `build_ctx` of its own.

    A thread puts its site's name into `build_ctx`, and sends that to the process it has started. The threads share it:
    of two that start in the same milliseconds both may send one name, and the job ends, or waits for ever.
    """
    own = copy.copy(self)
    own.build_ctx = dict(self.build_ctx)
    own.get_next_run_client = self.get_next_run_client  # which counts on, for all threads
    return _do_one_task(own, *args, **kwargs)


def split_command(command: str, comments: bool = False) -> list[str]:
    """The arguments of a site's process, from the line that FLARE writes without quotes: a path may hold a blank."""
    return [part for part in SEPARATORS.split(command) if part is not None]


SimulatorClientRunner.do_one_task = do_one_task
simulator_runner.shlex = SimpleNamespace(split=split_command)

if __name__ == "__main__":
    os.umask(0o077)  # FLARE's persistor leaves models readable to all, and ours are not
    runpy.run_module(SIMULATOR, run_name="__main__", alter_sys=True)
