# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a process that was just forked does to be the one that was asked for. `fork_server` loads it by its path."""

from __future__ import annotations

import atexit
import ctypes
import importlib
import os
import random
import runpy
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

M_ARENA_MAX = -8  # of malloc.h
end_with = runpy.run_path(str(Path(__file__).with_name("end_with.py")))["end_with"]
PARENT = runpy.run_path(str(Path(__file__).with_name("forked.py")))["PARENT"]


def become(process: dict[str, Any]) -> None:
    """Turns this process, just forked, into the one that was asked for, and runs it to its end."""
    arguments, env, files = process["arguments"], process["env"], process["files"]
    inherit(process)
    end_with(process["parent"])
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.chdir(process["cwd"])
    show_as([sys.executable, *arguments], env)
    os.environ.clear()
    os.environ.update(env)
    os.environ[PARENT] = str(process["parent"])
    time.tzset()
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    share_cores(env)
    limit_arenas(env)
    draw_again()
    ahead = [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part]
    module = arguments[0] == "-m"
    sys.path[:] = [os.getcwd() if module else str(Path(arguments[0]).parent), *ahead, *process["path"]]
    sys.argv = arguments[1:] if module else arguments
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    if module:
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(arguments[0], run_name="__main__")


def inherit(process: dict[str, Any]) -> None:
    """What a process has from the one that starts it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in process["ignored"] else usual)
    os.umask(process["umask"])
    with suppress(OSError):  # one of higher priority than the fork server, or with other cores
        os.sched_setaffinity(0, process["cores"])
        os.setpriority(os.PRIO_PROCESS, 0, process["nice"])


def draw_again() -> None:
    """What was drawn once while modules were imported, and must differ between processes."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()
    streams: Any = sys.modules.get("nvflare.fuel.f3.streaming.stream_utils")
    if streams:  # where the numbers of streams begin
        streams.sid_base = int(time.time() * streams.MILLION) + random.randint(0, streams.MILLION)


def share_cores(env: dict[str, str]) -> None:
    """The numbers of threads, which the libraries have read before; as they read them, OpenBLAS has OpenMP's too."""
    from threadpoolctl import threadpool_limits

    cores = str(len(os.sched_getaffinity(0)))
    openmp = env.get("OMP_NUM_THREADS") or cores
    limits = {"openmp": openmp, "mkl": env.get("MKL_NUM_THREADS") or openmp}
    limits["openblas"] = env.get("OPENBLAS_NUM_THREADS") or openmp
    threadpool_limits({name: int(number) for name, number in limits.items() if number.isdigit()})
    if openmp.isdigit() and (torch := sys.modules.get("torch")):
        torch.set_num_threads(int(openmp))


def limit_arenas(env: dict[str, str]) -> None:
    """As glibc does at the start of a program; see mallopt(3). A process just forked has one arena."""
    wanted = env.get("MALLOC_ARENA_MAX", "")
    with suppress(AttributeError):  # of a C library without
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, int(wanted) if wanted.isdigit() else 0)


def show_as(command: list[str], env: dict[str, str]) -> None:
    """Shows a command and an environment to `ps` and all who look in /proc, which show those of the program's start.

    The kernel reads both in the memory of the process, where its start has put them, and where ROOM has made room.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    places = [
        int(field) for field in fields[45:49]
    ]  # arg_start, arg_end, env_start, env_end: fields 48 to 51 of proc(5)
    texts = (command, [f"{name}={value}" for name, value in env.items()])
    for start, end, parts in zip(places[::2], places[1::2], texts, strict=True):
        block = b"".join(os.fsencode(part) + b"\0" for part in parts)
        size = end - start
        block = block[: size - 2] if len(block) >= size else block
        ctypes.memmove(start, block + b" " * (size - len(block) - 1) + b"\0", size)


def leave(code: int) -> NoReturn:
    """As at the end of a program, but for the last step: what was imported before the fork is not taken apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
