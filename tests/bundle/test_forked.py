# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A forked process is what the same command gives without the fork server; nothing of it is left, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bundle.fork_server import PRELOADED
from bundle.forked import SOCKET, ForkedProcess, fork_server, start
from tests.fault.sites import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only"),
]

FIRST = PRELOADED[0]  # for a process that needs none of them
PROBE = """
    import os, random, signal, sys, json
    import numpy, torch
    from threadpoolctl import threadpool_info
    numpy.ones((300, 300)) @ numpy.ones((300, 300))
    torch.ones(300, 300) @ torch.ones(300, 300)
    with open(sys.argv[1], "w") as file:
        json.dump({
            "argv": sys.argv, "cwd": os.getcwd(), "path": sys.path, "name": __name__, "file": __file__,
            "environ": {name: os.environ.get(name) for name in os.environ["NAMES"].split()},
            "leads": os.getsid(0) == os.getpid(), "umask": os.umask(0), "nice": os.nice(0),
            "cores": sorted(os.sched_getaffinity(0)),
            "handlers": [str(signal.getsignal(number)) for number in (1, 2, 15, 17)],
            "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
            "pools": sorted((one["internal_api"], one["num_threads"]) for one in threadpool_info()),
            "cuda": torch.cuda.is_initialized(),
            "ours": [name for name in sys.modules if name.partition(".")[0] in ("custom", "controllers", "bundle")],
            "drawn": [random.random(), numpy.random.random(), os.urandom(4).hex(), torch.initial_seed()],
        }, file)
    print("to standard output")
    print("to standard error", file=sys.stderr)
    sys.exit(3)
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[psutil.Process]:
    """The fork server's process; what is started meanwhile is forked from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SOCKET, raising=False)
        with fork_server():
            yield psutil.Process().children()[-1]


def program(folder: Path, code: str) -> Path:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(code))
    return path


def not_refused(reason: str) -> None:
    raise AssertionError(reason)


def forked(arguments: list[str], **options: Any) -> ForkedProcess:
    env = options.pop("env", {**os.environ, "OMP_NUM_THREADS": "1"})
    process = start([sys.executable, *arguments], env=env, session=True, refused=not_refused, **options)
    assert isinstance(process, ForkedProcess)
    return process


def test_all_is_as_without_the_fork_server(tmp_path: Path, forks: psutil.Process, monkeypatch: Any) -> None:
    """As a file and as a module, with the folder, the environment and the path that are asked for."""
    path = program(tmp_path, PROBE)
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "somewhere.py").write_text(path.read_text())
    env = {
        **os.environ,
        "PYTHONPATH": str(extra),
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "1",
        "TZ": "Asia/Tokyo",
    }
    env["NAMES"] = " ".join(env)
    seen, socket = [], os.environ[SOCKET]
    mask, interrupt = os.umask(0o027), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    for arguments in ([str(path)], ["-m", "somewhere"]):
        for server in (socket, "off"):
            monkeypatch.setenv(SOCKET, server)
            out, log = tmp_path / f"{len(seen)}.json", tmp_path / "log"
            with log.open("wb") as output:
                options = {"env": env, "cwd": str(extra), "output": output.fileno(), "session": True}
                process = start([sys.executable, *arguments, str(out)], refused=not_refused, **options)
                assert isinstance(process, subprocess.Popen if server == "off" else ForkedProcess)
                assert process.wait(60) == 3
            facts = json.loads(out.read_text()) | {"log": log.read_text()}
            assert facts["argv"].pop() == str(out)
            seen.append((facts.pop("drawn"), facts))
    os.umask(mask)
    signal.signal(signal.SIGHUP, interrupt)
    os.sched_setaffinity(0, cores)
    for (mine, fork), (others, cold) in (seen[:2], seen[2:]):
        assert fork == cold
        assert set(mine).isdisjoint(others)
    assert set(seen[0][0]).isdisjoint(seen[2][0])
    assert seen[0][1]["pools"] == [["openblas", 1], ["openmp", 2]]
    assert seen[0][1]["umask"] == 0o027


def test_forks_share_nothing_that_one_of_them_changes(tmp_path: Path, forks: psutil.Process) -> None:
    change = """
        import locale, os, sys, warnings, torch, numpy
        before = [torch.get_num_threads(), len(warnings.filters), os.environ.get("A"), "job" in sys.modules,
                  torch.get_default_dtype() == torch.float32]
        torch.set_num_threads(7); warnings.simplefilter("error"); os.environ["A"] = "B"; sys.modules["job"] = sys
        torch.set_default_dtype(torch.float64); torch.manual_seed(3); numpy.random.seed(3)
        print(before, torch.initial_seed())
    """
    path, log = program(tmp_path, change), tmp_path / "log"
    for _ in range(2):
        with log.open("ab") as output:
            assert forked([str(path)], output=output.fileno()).wait(60) == 0
    first, second = log.read_text().splitlines()
    assert first == second == f"[1, {first.split(', ')[1]}, None, False, True] 3"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", 0),
        ("import sys; sys.exit('no')", 1),
        ("import sys; sys.exit(7)", 7),
        ("raise OSError('no')", 1),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os._exit(4)", 4),
    ],
)
def test_exit_codes(tmp_path: Path, forks: psutil.Process, code: str, expected: int) -> None:
    with (tmp_path / "log").open("wb") as output:
        assert forked([str(program(tmp_path, code))], output=output.fileno()).wait(60) == expected
    told = (tmp_path / "log").read_text()
    assert ("OSError: no" in told) == ("OSError" in code)
    assert "fork_server" not in told.replace(str(Path(__file__)), "") or "OSError" in code


def test_signals(tmp_path: Path, forks: psutil.Process) -> None:
    path = program(tmp_path, "import time; time.sleep(600)")
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = forked([str(path)])
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(number)
        assert process.wait(60) == -number
        assert process.poll() == -number
        process.kill()  # which is over


def test_it_shows_as_what_it_is(tmp_path: Path, forks: psutil.Process) -> None:
    """To `ps`, to those who end a run, and to `bundle resume`, which asks who works in a folder."""
    process = forked(
        [str(program(tmp_path, "import time; time.sleep(600)")), "--client", "site-1"], env={**os.environ, "A": "B C"}
    )
    shown = psutil.Process(process.pid)
    until(lambda: shown.environ().get("A") == "B C", "it is not shown", 60)
    assert shown.cmdline()[1:4] == [str(tmp_path / "program.py"), "--client", "site-1"]
    assert "0000" not in "".join(psutil.Process(forks.pid).cmdline())
    process.kill()
    process.wait(60)


def test_it_ends_with_who_asked_for_it(tmp_path: Path, forks: psutil.Process) -> None:
    """Killed, so that it says nothing; a child of the process ends, too."""
    sleeper = program(tmp_path, "import os, time; os.fork(); time.sleep(600)")
    asking = f"""
        import os, sys, time
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from bundle.forked import start
        process = start([sys.executable, {str(sleeper)!r}], env=dict(os.environ), session=True, after={FIRST!r})
        print(process.pid, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(asking)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None
        process = psutil.Process(int(asked.stdout.readline()))
        until(lambda: process.children() != [], "no child", 60)
        family = [process, *process.children()]
        asked.kill()
    until(lambda: not any(one.is_running() and one.status() != "zombie" for one in family), "it is left", 60)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("victim", ["owner", "server"])
def test_all_end_with_the_fork_server_and_that_with_its_owner(tmp_path: Path, victim: str, end: signal.Signals) -> None:
    sleeper = program(tmp_path, "import time; time.sleep(600)")
    owning = f"""
        import os, sys, psutil
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from bundle.forked import SOCKET, fork_server, start
        with fork_server():
            process = start([sys.executable, {str(sleeper)!r}], env=dict(os.environ), session=True, after={FIRST!r})
            print(psutil.Process().children()[0].pid, process.pid, os.environ[SOCKET], flush=True)
            print(process.wait(), flush=True)
    """
    env = {name: value for name, value in os.environ.items() if name != SOCKET}
    command = [sys.executable, "-c", textwrap.dedent(owning)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as owner:
        assert owner.stdout is not None
        server, process, socket = owner.stdout.readline().split()
        both = [psutil.Process(int(server)), psutil.Process(int(process))]
        (owner if victim == "owner" else both[0]).send_signal(end)
        rest = owner.stdout.read()
    assert rest == ("" if victim == "owner" else "-9\n")
    until(lambda: not any(one.is_running() and one.status() != "zombie" for one in both), "one is left", 60)
    assert not Path(socket).parent.exists()


@pytest.mark.parametrize("server", ["on", "off"])
def test_errors_go_to_a_file_of_their_own(tmp_path: Path, forks: psutil.Process, server: str, monkeypatch: Any) -> None:
    if server == "off":
        monkeypatch.setenv(SOCKET, server)
    path = program(tmp_path, "import sys; print(repr(sys.stdin.read())); print('no', file=sys.stderr)")
    with (tmp_path / "output").open("wb") as output, (tmp_path / "errors").open("wb") as errors:
        files = {"output": output.fileno(), "errors": errors.fileno()}
        assert start([sys.executable, str(path)], env=os.environ, refused=not_refused, **files).wait(60) == 0
    assert ((tmp_path / "output").read_text(), (tmp_path / "errors").read_text()) == ("''\n", "no\n")


def test_a_fork_server_that_does_not_answer_is_not_waited_for(tmp_path: Path, forks: psutil.Process) -> None:
    """Nor does it run the same once more when it goes on."""
    path = program(tmp_path, "import time; time.sleep(600)")
    reasons: list[str] = []
    forks.suspend()
    try:
        process = start([sys.executable, str(path)], env=os.environ, patience_s=0.2, refused=reasons.append)
    finally:
        forks.resume()
    assert isinstance(process, subprocess.Popen)
    assert reasons == ["cannot be asked: no answer in time"]
    process.kill()
    process.wait(60)
    assert forked([str(program(tmp_path, ""))]).wait(60) == 0
    until(lambda: forks.children() == [], "it is left", 60)


ARENAS = """
import ctypes, threading
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
ready = threading.Barrier(5)
def hold():
    libc.malloc(100)
    ready.wait()
threads = [threading.Thread(target=hold) for _ in range(4)]
[thread.start() for thread in threads]
ready.wait()
file = ctypes.c_void_p(libc.fopen(OUT, b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.parametrize(("limit", "arenas"), [("1", {1}), ("2", {2}), (None, {3, 4, 5})])
def test_the_number_of_arenas_is_that_of_the_environment(
    tmp_path: Path, forks: psutil.Process, limit: str | None, arenas: set[int]
) -> None:
    """Start scripts of FLARE's kits limit it. Five threads hold memory at once."""
    out = tmp_path / "out"
    command = [sys.executable, str(program(tmp_path, ARENAS.replace("OUT", repr(str(out).encode()))))]
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    process = start(command, env=env | ({"MALLOC_ARENA_MAX": limit} if limit else {}))
    assert isinstance(process, ForkedProcess)
    assert process.wait(60) == 0
    assert out.read_text().count("<heap nr=") in arenas


@pytest.mark.parametrize(
    ("name", "reason"), [("OMP_SCHEDULE", "OMP_SCHEDULE"), ("LC_ALL", "LC_ALL"), ("PYTHONHASHSEED", "PYTHONHASHSEED")]
)
def test_what_is_read_only_once_is_started_as_usual(
    tmp_path: Path, forks: psutil.Process, name: str, reason: str
) -> None:
    reasons: list[str] = []
    command = [sys.executable, str(program(tmp_path, f"import os; assert os.environ[{name!r}] == '77'"))]
    process = start(command, env={**os.environ, name: "77"}, refused=reasons.append)
    assert isinstance(process, subprocess.Popen)
    assert process.wait(60) == 0
    assert reasons == [f"{name} has another value"]


def test_another_copy_of_a_library_on_the_path_is_the_one_that_runs(tmp_path: Path, forks: psutil.Process) -> None:
    (tmp_path / "torch.py").write_text("mine = True")
    command = [sys.executable, str(program(tmp_path / ".", "import torch; assert torch.mine"))]
    reasons: list[str] = []
    process = start(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, refused=reasons.append)
    assert process.wait(60) == 0
    assert reasons == ["there is another torch on the path"]


def test_signals_that_are_read_at_once_all_arrive(tmp_path: Path, forks: psutil.Process) -> None:
    code = """
        import pathlib, signal, sys, time
        seen = []
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: seen.append(number))
        pathlib.Path(sys.argv[1]).touch()
        while len(seen) < 2:
            time.sleep(0.01)
        sys.exit(7)
    """
    process = forked([str(program(tmp_path, code)), str(tmp_path / "ready")])
    until((tmp_path / "ready").exists, "it does not start", 60)
    forks.suspend()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(number)
    forks.resume()
    assert process.wait(60) == 7


def test_the_fork_server_does_not_grow(tmp_path: Path, forks: psutil.Process) -> None:
    path = program(tmp_path, "")
    sizes = []
    for _ in range(2):
        for _ in range(25):
            assert forked([str(path)]).wait(60) == 0
        status = Path(f"/proc/{forks.pid}/status").read_text()
        anonymous_kb = int(status.partition("RssAnon:")[2].split()[0])  # without files, which other processes map, too
        sizes.append((anonymous_kb, forks.num_fds(), len(forks.children())))
    (first, files, _), (second, more_files, children) = sizes
    assert second - first < 1024
    assert more_files <= files + 1  # the last connection is closed after the exit code is told
    assert children == 0


@pytest.mark.parametrize(
    "command", [[sys.executable, "-c", "pass"], [sys.executable, "-u", "-c", "pass"], ["true", "x"]]
)
def test_other_commands_are_started_as_usual(forks: psutil.Process, command: list[str]) -> None:
    process = start(command, env=dict(os.environ), refused=not_refused)
    assert isinstance(process, subprocess.Popen)
    assert process.wait(60) == 0


def test_switched_off_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, str(program(tmp_path, ""))]
    reasons: list[str] = []
    monkeypatch.setenv(SOCKET, "off")
    with fork_server():
        assert os.environ[SOCKET] == "off"
        process = start(command, env=dict(os.environ), refused=reasons.append)
        assert isinstance(process, subprocess.Popen)
        assert process.wait(60) == 0
    assert reasons == []
    monkeypatch.setenv(SOCKET, str(tmp_path / "nothing"))
    process = start(command, env=dict(os.environ), refused=reasons.append)
    assert process.wait(60) == 0
    assert reasons == ["cannot be asked: No such file or directory"]


def test_a_folder_for_temporary_files_with_a_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has at most 107 bytes."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    monkeypatch.delenv(SOCKET, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with fork_server():
        assert os.environ[SOCKET].startswith(str(folder))
        assert forked([str(program(tmp_path, ""))], after=FIRST).wait(60) == 0
    assert list(folder.iterdir()) == []
