# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Processes that a fork server forks, with the interface of `subprocess.Popen`.

Imports nothing of the bundle: programs load it by its path.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("fork_server.py")
SOCKET = "FLARE_BUNDLE_FORK_SERVER"  # path of its socket; `off` turns it off
OFF = "off"
PARENT = "FLARE_BUNDLE_FORKED_BY"  # the process id of the fork server, in the environment of what it forks
ROOM = "FLARE_BUNDLE_ROOM"  # of the environment of the fork server; see `show_as`
PATIENCE_S = 120.0  # the first import of torch after a start of the machine takes its time
LENGTH = struct.Struct("!I")
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)  # if ignored, as under nohup


class NotForked(Exception):
    """The fork server is not to fork this process; the message says why."""


class ForkedProcess:
    """One process, forked from the fork server, which ends with this object's connection.

    Args:
        arguments: of Python, as `["-m", "module", "argument"]`.
        env: its environment.
        cwd: where it starts; None is here.
        files: its standard input, output and error, file numbers of this process.
        session: leads a session of its own.
        after: of the modules that the fork server imports the last one that it needs; empty: all of them.
        patience_s: how long to wait for the fork server's answer, which may still be importing; None: for ever.

    Raises:
        NotForked: the fork server is not there, or will not.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
        files: Sequence[int],
        session: bool,
        after: str = "",
        patience_s: float | None = None,
    ) -> None:
        self.returncode: int | None = None
        self.lost = False  # it has ended with the fork server
        self._lock = threading.Lock()
        self._received = b""
        asked = {"arguments": list(arguments), "env": dict(env), "cwd": cwd or os.getcwd(), "session": session}
        asked["after"] = after
        body = json.dumps(asked | inherited()).encode()
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            with _short(os.environ[SOCKET]) as path:
                self._sock.connect(path)
            socket.send_fds(self._sock, [LENGTH.pack(len(body))], files)
            self._sock.sendall(body)
            answer = self._message(patience_s)
        except OSError as error:
            self._sock.close()
            raise NotForked(f"cannot be asked: {error.strerror or error}") from error
        if answer is None or "pid" not in answer:
            self._sock.close()
            raise NotForked((answer or {}).get("refused", "it has ended"))
        self.pid: int = answer["pid"]

    def _message(self, timeout: float | None) -> dict[str, Any] | None:
        """The next one of the fork server's; None if it has ended. Raises TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._received:
            poll = select.poll()  # select() knows no file numbers above 1023
            poll.register(self._sock, select.POLLIN)
            if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError("no answer in time")
            try:
                part = self._sock.recv(4096)
            except ConnectionError:
                part = b""
            if not part:
                return None
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; that of SIGKILL if the fork server has ended, which ends all. Raises TimeoutExpired."""
        with self._lock:
            if self.returncode is None:
                try:
                    message = self._message(timeout)
                except TimeoutError as error:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0) from error
                self.lost = message is None
                self.returncode = -signal.SIGKILL if message is None else message["code"]
                self._sock.close()
            return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.returncode is None and self._lock.acquire(blocking=False):  # else somebody waits for it
            self._lock.release()
            with suppress(subprocess.TimeoutExpired):
                self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(OSError):
                self._sock.sendall(json.dumps({"signal": number}).encode() + b"\n")

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def inherited() -> dict[str, Any]:
    """What a process gets from the one that starts it, besides what that one chooses."""
    mask = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert mask
    return {
        "umask": int(mask[1], 8),  # os.umask() would have to change it, for all threads
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "cores": sorted(os.sched_getaffinity(0)),
        "ignored": [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN],
    }


@contextmanager
def _short(path: str) -> Iterator[str]:
    """The same path with few bytes: that of a socket has at most 107."""
    folder, _, name = path.rpartition("/")
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{place}/{name}"
    finally:
        os.close(place)


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None = None,
    output: int | None = None,
    errors: int | None = None,
    session: bool = False,
    after: str = "",
    patience_s: float | None = PATIENCE_S,
    refused: Callable[[str], object] = lambda reason: None,
) -> ForkedProcess | subprocess.Popen[bytes]:
    """Starts a process of this Python: forked where there is a fork server that can do it, else as usual.

    Args:
        command: its first part is `sys.executable`; forked is a module (`-m`) or a file, and no other option of Python.
        env: its environment.
        cwd: where it starts; None is here.
        output: file number for its standard output and error, and no input; None: all three are this process's.
        errors: file number for its standard error, where that is not `output`.
        session: leads a session of its own.
        after: as `ForkedProcess`.
        patience_s: as `ForkedProcess`; after that it is started as usual.
        refused: called with the reason why the fork server did not do it.
    """
    errors = output if errors is None else errors
    of_this_python = command[0] == sys.executable and (command[1] == "-m" or not command[1].startswith("-"))
    if of_this_python and os.environ.get(SOCKET, OFF) != OFF:
        with ExitStack() as files:
            nothing = files.enter_context(open(os.devnull)).fileno() if output is not None else 0
            three = (nothing, 1 if output is None else output, 2 if errors is None else errors)
            try:
                return ForkedProcess(command[1:], env, cwd, three, session, after, patience_s)
            except NotForked as error:
                refused(str(error))
    stdin = None if output is None else subprocess.DEVNULL
    return subprocess.Popen(
        command, env=env, cwd=cwd, stdin=stdin, stdout=output, stderr=errors, start_new_session=session
    )


def is_forked() -> bool:
    """Was this process forked by a fork server? That is its parent then."""
    return os.environ.get(PARENT) == str(os.getppid())


@contextmanager
def fork_server() -> Iterator[None]:
    """One fork server for all processes that are started inside, here or below; that of a parent, if it has one.

    On Linux; elsewhere processes are started as usual.
    """
    if sys.platform != "linux" or SOCKET in os.environ:
        yield
        return
    with ExitStack() as held:  # an interrupt may come at any of these lines
        path = held.enter_context(tempfile.TemporaryDirectory(prefix="flare-bundle-")) + "/fork"
        with socket.socket(socket.AF_UNIX) as listener:
            with _short(path) as short:
                listener.bind(short)
            listener.listen(128)
            held.callback(_end, _start(listener, path))
        held.callback(os.environ.pop, SOCKET, None)
        os.environ[SOCKET] = path
        yield


def _start(listener: socket.socket, path: str) -> subprocess.Popen[bytes]:
    room = "0" * 20_000
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", ROOM: room}
    env.pop("PYTHONPATH", None)
    command = [sys.executable, str(PROGRAM), str(listener.fileno()), path, room]
    return subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], cwd="/", start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: it holds nothing, and what it has forked ends with it."""
    process.kill()
    process.wait()
