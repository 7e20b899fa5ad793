# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the fork server refuses, whom it lets wait, and what it survives; without a fork."""

from __future__ import annotations

import errno
import json
import os
import random
import selectors
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from bundle import command, simulator
from bundle.fork_server import PRELOADED, Connection, ForkServer
from tests.bundle.test_forked import program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


def test_threads_random_numbers_and_cuda_before_a_fork_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of the tests, which has all three; one is made to vanish after the other."""
    server = ForkServer(None, Path(), dict(os.environ))  # type: ignore[arg-type]
    asked = {"env": dict(os.environ)}
    monkeypatch.setattr(os, "listdir", lambda path: ["1", "2"])
    assert server.refused(asked) == "there are 2 threads"
    monkeypatch.setattr(os, "listdir", lambda path: ["1"])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert server.refused(asked) == "CUDA is initialised"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    random.random()
    assert server.refused(asked) == "random numbers were drawn"


@pytest.mark.parametrize("session", [False, True])
def test_what_cannot_be_forked_is_started_as_usual(monkeypatch: pytest.MonkeyPatch, session: bool) -> None:
    server = ForkServer(None, Path(), dict(os.environ))  # type: ignore[arg-type]
    monkeypatch.setattr(server, "refused", lambda request: "")
    monkeypatch.setattr(os, "fork", Mock(side_effect=OSError(errno.EAGAIN, "Resource temporarily unavailable")))
    ours, theirs = socket.socketpair()
    connection, files = Connection(ours), len(os.listdir("/proc/self/fd"))
    connection.request = {"session": session}
    assert server.start(connection) is None
    assert len(os.listdir("/proc/self/fd")) == files - 1
    assert json.loads(theirs.recv(200)) == {"refused": "cannot fork: Resource temporarily unavailable"}
    assert (theirs.recv(1), server.connections) == (b"", set())


def test_who_needs_little_does_not_wait_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ForkServer(None, Path(), dict(os.environ))  # type: ignore[arg-type]
    started: list[str] = []
    monkeypatch.setattr(server, "start", lambda connection: started.append(connection.request["after"]))
    for after in ("torch", "", "no such module", "nvflare"):
        connection = Connection(socket.socket())
        connection.request = {"after": after}
        server.waiting.append(connection)
    seen = []
    for name in PRELOADED:
        server.imported.add(name)
        server.serve(0.0)
        seen.append(tuple(started))
    assert seen[0] == ()
    assert seen[PRELOADED.index("torch")] == ("torch",)
    assert seen[PRELOADED.index("nvflare")] == seen[-2] == ("torch", "nvflare")
    assert seen[-1] == ("torch", "nvflare", "", "no such module")
    assert {simulator.NEEDED, command.NEEDED} < set(PRELOADED)


def test_a_connection_that_closes_when_its_process_was_just_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork server learns of both at once, and goes on; the process id may be another's already."""
    server = ForkServer(None, Path(), dict(os.environ))  # type: ignore[arg-type]
    wake, woken = socket.socketpair()
    mine, others = socket.socketpair()
    connection = Connection(mine)
    connection.pid = 4_000_000  # above the largest that there is
    server.connections.add(connection)
    events = [(server.selector.register(wake, selectors.EVENT_READ, wake), selectors.EVENT_READ)]
    events += [(server.selector.register(mine, selectors.EVENT_READ, connection), selectors.EVENT_READ)]
    monkeypatch.setattr(server.selector, "select", lambda timeout: events)
    ended = iter([(connection.pid, 0), (0, 0)])
    monkeypatch.setattr(os, "waitpid", lambda pid, options: next(ended))
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    woken.send(b"x")
    others.shutdown(socket.SHUT_WR)
    server.serve(0.0)
    assert json.loads(others.recv(100)) == {"code": 0}
    assert killed == []
    assert server.connections == set()


DRAWN = {  # while PRELOADED is imported, each for nothing that must differ between processes, or drawn again
    "random.py",  # Python's own, seeded: drawn again
    "multiprocessing/process.py",  # the key of its own connections; theirs are of one user
    "uuid.py",
    "sympy/core/random.py",
    "sympy/core/symbol.py",
    "torch/distributed/_composable/contract.py",  # names of attributes
    "aiohttp/_websocket/writer.py",  # masks of websockets, of which there are none
    "nvflare/fuel/f3/streaming/stream_utils.py",  # drawn again
}


def test_nothing_else_is_drawn_while_modules_are_imported(tmp_path: Path) -> None:
    """Two processes of one site whose streams had the same numbers waited for each other for ever."""
    code = f"""
        import importlib, os, random, sys, traceback
        found = set()
        def noted(owner, name):
            old = getattr(owner, name)
            def draw(*args, **kwargs):
                files = [frame.filename for frame in traceback.extract_stack()[:-1]]
                found.add(next(file for file in reversed(files) if not file.startswith("<frozen")))
                return old(*args, **kwargs)
            setattr(owner, name, draw)
        for name in ("random", "randint", "randrange", "choice", "choices", "getrandbits", "uniform", "sample"):
            noted(random, name)
        noted(os, "urandom")
        class Random(random.Random):
            def __init__(self, *args):
                found.add(traceback.extract_stack()[-2].filename)
                super().__init__(*args)
        random.Random = Random
        for name in {list(PRELOADED)!r}:
            importlib.import_module(name)
        for file in sorted(found):
            print(file)
    """
    path = program(tmp_path, code)
    found = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
    unknown = [file for file in found if not file.endswith(tuple(DRAWN)) and "tempfile" not in file]
    assert unknown == []
    assert any(file.endswith("stream_utils.py") for file in found)
