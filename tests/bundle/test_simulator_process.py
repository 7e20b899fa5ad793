# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Two sites that start at once each get their own name, and all have their turn; with FLARE's method, both get one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bundle import ROOT
from bundle.in_use import LOCK, MARK
from bundle.simulator import LOG
from custom.widgets.lost_sites import PROCESSES

BOTH_AT_ONCE = """
import logging, threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from nvflare.private.fed.app.simulator.simulator_runner import SimulatorClientRunner

put, turns = threading.Barrier(2), []

def put_and_send(self, client):  # what FLARE's does, at the worst moment
    self.build_ctx["client_name"] = client.client_name
    put.wait()
    turns.append(self.get_next_run_client(None).client_name)
    return False, self.build_ctx["client_name"], None

SimulatorClientRunner.do_one_task = put_and_send
{mend}
runner = SimulatorClientRunner.__new__(SimulatorClientRunner)
runner.build_ctx, runner.run_client_index, runner.logger = {{}}, 1, logging.getLogger()
runner.federated_clients = [SimpleNamespace(client_name=str(n), simulate_running=False) for n in (1, 2, 3, 4)]
with ThreadPoolExecutor(2) as threads:
    two = [SimpleNamespace(client_name=name) for name in ("site-1", "site-2")]
    names = {{name for _, name, _ in threads.map(runner.do_one_task, two)}}
print(len(names), *sorted(turns))
"""


@pytest.mark.parametrize(("mend", "names"), [("", 1), ("import bundle.simulator_process", 2)])
def test_names_of_sites_that_start_at_once(mend: str, names: int) -> None:
    code = BOTH_AT_ONCE.format(mend=mend)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{names} 3 4"


def test_a_site_that_was_chosen_is_not_chosen_again_and_a_lost_one_never() -> None:
    """FLARE's takes a site for free until its process is about to start; of one thread less than sites both take it."""
    code = """
from types import SimpleNamespace
from bundle.simulator_process import SimulatorClientRunner, losses
runner = SimulatorClientRunner.__new__(SimulatorClientRunner)
runner.run_client_index = -1
runner.federated_clients = [SimpleNamespace(client_name=n, simulate_running=n == "b") for n in "abcd"]
losses.reasons["d"] = "killed"
current = runner.federated_clients[1]
print(*(runner.get_next_run_client(None, current).client_name for _ in range(3)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "a c b"


def test_what_two_programs_name_alike() -> None:
    """The simulator's program cannot import the bundle or the job's code."""
    code = "from bundle.simulator_process import LOST_SITES, MARK, OURS; print(LOST_SITES, MARK, *sorted(OURS))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [PROCESSES, MARK, *sorted([LOCK, LOG])]


def test_paths_with_blanks_and_quotes_stay_whole() -> None:
    code = """
import bundle.simulator_process
from nvflare.private.fed.app.simulator import simulator_runner
print(simulator_runner.shlex.split("/a -m b/python -m x.y -o /it's a #1 -o 2/ws --logging_config /l (1) --gpu 0", True))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = ["/a -m b/python", "-m", "x.y", "-o", "/it's a #1 -o 2/ws", "--logging_config", "/l (1)", "--gpu", "0"]
    assert done.stdout.strip() == repr(expected)
