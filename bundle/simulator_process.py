# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE's simulator as a program, with faults of nvflare 2.9.0 fixed.

- Sites that start at once each get their own name, and with fewer threads than sites no site runs twice at a time.
- A path may hold a blank.
- More than 64 sites may send their results at once.
- A workspace that holds nothing but the log and the lock of the run is not removed and made again.
- A site whose process has ended is lost: the server learns it at once, not after time-outs that are none here.
- A process ends with its parent where the system can do that (Linux), whatever the parent ended of.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):  # the modules beside this program are no top-level ones
    sys.path.pop(0)

import argparse
import compileall
import copy
import logging
import os
import re
import runpy
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from functools import partial
from operator import itemgetter
from py_compile import PycInvalidationMode
from types import SimpleNamespace
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, FLMetaKey
from nvflare.apis.job_def import JobMetaKey
from nvflare.fuel.f3.mpm import MainProcessMonitor
from nvflare.fuel.f3.sfm import conn_manager
from nvflare.fuel.f3.streaming import stream_utils
from nvflare.private.fed.app.simulator import simulator, simulator_runner
from nvflare.private.fed.app.simulator.simulator_runner import SimulatorClientRunner, SimulatorRunner
from nvflare.private.fed.server import fed_server
from nvflare.widgets.fed_event import ServerFedEventRunner

HERE = Path(__file__).parent
SITE = HERE / "site_process.py"
in_words = runpy.run_path(str(HERE / "exit_code.py"))["in_words"]
end_with = runpy.run_path(str(HERE / "end_with.py"))["end_with"]
without_waits = runpy.run_path(str(HERE / "waits.py"))["without_waits"]
start, is_forked = itemgetter("start", "is_forked")(runpy.run_path(str(HERE / "forked.py")))

WORKER = ["-m", "nvflare.private.fed.app.simulator.simulator_worker"]
SEPARATORS = re.compile(
    r" (-m) ([\w.]+) (-o) "
    r"| (--(?:logging_config|client|token|port|parent_pid|simulator_root|root_url|parent_url|task_name"
    r"|decomposer_module|gpu)) "
)
MARK = "FLARE_BUNDLE_RUN"  # as in bundle.in_use
NOT_FORKED = "%s: its process is not forked: %s"
OURS = {".lock", "simulator.log"}
LOST_SITES = "bundle_lost_sites"  # property of the server's contexts: by site, why; as in custom.widgets.lost_sites
DYING_S = 0.1
QUIET_S = 0.3  # without an event of a site's before the run ends: what it sent came before its result
_choosing = threading.Lock()
_do_one_task = SimulatorClientRunner.do_one_task
_connect = SimulatorClientRunner._create_connection
_clean_up = SimulatorClientRunner._cleanup_process
_clean = SimulatorRunner._cleanup_workspace
_deploy = SimulatorRunner._deploy_apps
_client_run = SimulatorRunner.client_run
_unpack = simulator_runner.unzip_all_from_bytes


class Losses:
    """The sites of this process's job whose own process has ended before the job; they stay lost."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.processes: dict[str, Any] = {}  # by site, the one that it has now: as subprocess.Popen
        self.server: Any = None
        self._lock = threading.Lock()

    def running(self) -> bool:
        """Does the job run? When it has ended, so do the sites' processes."""
        return self.server is not None and self.server.server_runner.status != "done"

    def add(self, site: str, exit_code: int | None, sites: int) -> str:
        """Tells the server of a site that is lost, and ends the job where too few are left.

        Args:
            site: its name.
            exit_code: of its process; None if that only gave up.
            sites: how many the job was started with.

        Returns:
            Why it is lost; empty if the job has ended.
        """
        with self._lock:
            if not self.running():
                return ""
            left, needed = sites - len(self.reasons) - 1, self._needed(site)
            enough = left >= needed
            ended = "gave up" if exit_code is None else in_words(exit_code)
            are_needed = "" if enough else f", {min(needed, sites)} are needed"
            self.reasons[site] = f"its process {ended}; {left} of {sites} sites are left{are_needed}"
            with self.server.engine.new_context() as fl_ctx:
                fl_ctx.set_prop(LOST_SITES, dict(self.reasons), private=True, sticky=True)
            if not enough:
                self._end_job(site)
            elif len(self.reasons) == 1:
                threading.Thread(target=self._keep_telling, daemon=True).start()
            return self.reasons[site]

    def _needed(self, site: str) -> int:
        """Sites without which the job cannot go on; more than there are if it cannot without this one."""
        runner = self.server.server_runner
        with self.server.engine.new_context() as fl_ctx:
            meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
        if site in (meta.get(JobMetaKey.MANDATORY_CLIENTS) or ()):
            return sys.maxsize
        workflows = [flow.controller for flow in runner.config.workflows[runner.current_wf_index :]]
        numbers = [meta.get(JobMetaKey.MIN_CLIENTS), *(getattr(one, "_min_clients", 0) for one in workflows)]
        return max([1, *(number for number in numbers if isinstance(number, int))])

    def _keep_telling(self) -> None:
        """A workflow has its own list of dead sites, and takes one off it for a message that was sent before."""
        while self.running():
            runner = self.server.server_runner
            with self.server.engine.new_context() as fl_ctx, runner.wf_lock:
                known = runner.current_wf.controller.communicator._dead_clients if runner.current_wf else self.reasons
                for site in [site for site in self.reasons if site not in known]:
                    runner.handle_dead_job(site, fl_ctx)
            time.sleep(1.0)

    def _end_job(self, site: str) -> None:
        with self.server.engine.new_context() as fl_ctx:
            fl_ctx.set_prop(FLContextKey.DISCONNECTED_CLIENT_NAME, site)
            self.server.engine.fire_event(EventType.CLIENT_DISCONNECTED, fl_ctx)
        self.server.abort_run()
        for process in list(self.processes.values()):  # else each would finish its task, of minutes
            process.terminate()


losses = Losses()
logger = logging.getLogger(__name__)


def do_one_task(self: SimulatorClientRunner, client: Any, *args: Any, **kwargs: Any) -> Any:
    """As FLARE's, but with a `build_ctx` of its own, and with an end of the site's process before that of the job.

    A thread puts its site's name into `build_ctx`, and sends that to the process it has started. The threads share it:
    of two that start in the same milliseconds both may send one name, and the job ends, or waits for ever.
    """
    task = SiteTask(self, client)
    try:
        stop, following, ended = _do_one_task(task.runner, client, *args, **kwargs)
    except Exception as error:  # before FLARE expects any: the process ended while it started
        self.logger.error(f"{client.client_name}: {error}")
        stop, following, ended = True, None, None
        task.clean_up(task.process)
    task.give_back(following)
    if not stop or (ended and following):  # it goes on, or was told that the job has ended
        return stop, following, ended
    if not (reason := losses.add(client.client_name, task.exit_code, len(self.federated_clients))):
        return True, None, client.client_name
    self.logger.error(f"{client.client_name}: {reason}")
    following = self.get_next_run_client(None)
    return following is None, following, None


class SiteTask:
    """One process of a site, from its start to its end, and the part of the runner that is not shared for it.

    With fewer threads than sites that is a process for each task.
    """

    def __init__(self, runner: SimulatorClientRunner, client: Any) -> None:
        self.shared, self.client = runner, client
        self.exit_code: int | None = None  # of a process that ended by itself
        self._picked: list[Any] = []
        self.runner = copy.copy(runner)
        self.runner.build_ctx = dict(runner.build_ctx)
        self.runner.get_next_run_client = self._next_client
        self.runner._create_connection = self._connect
        self.runner._cleanup_process = self.clean_up

    @property
    def process(self) -> Any:
        return losses.processes.get(self.client.client_name)

    def clean_up(self, process: Any) -> None:
        """Ends the process, if it has not ended by itself."""
        if process is not None:
            self.exit_code = process.poll()
            _clean_up(self.shared, process)

    def give_back(self, following: Any) -> None:
        """The sites that were to be next and are not."""
        for one in self._picked:
            if one is not following and one is not self.client:
                one.simulate_running = False

    def _next_client(self, gpu: Any) -> Any:
        self._picked.append(self.shared.get_next_run_client(gpu, self.client))  # which counts on, for all threads
        return self._picked[-1]

    def _connect(self, port: int, timeout: float) -> Any:
        """As FLARE's, but a process that has ended is not waited for."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                connection = _connect(self.shared, port, timeout=0.0)  # one try
                return SimpleNamespace(send=connection.send, recv=partial(self._receive, connection))
            except RuntimeError:
                if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def _receive(self, connection: Any) -> Any:
        try:
            return connection.recv()
        except (EOFError, OSError):  # a process that is killed closes its connection, and is gone a moment later
            with suppress(subprocess.TimeoutExpired):
                if self.process is not None:
                    self.process.wait(DYING_S)
            raise


def get_next_run_client(self: SimulatorClientRunner, gpu: Any, current: Any = None) -> Any:
    """The next site that is neither running nor lost, which is from now on as running; `current` if there is none."""
    with _choosing:
        for _ in self.federated_clients:
            self.run_client_index = (self.run_client_index + 1) % len(self.federated_clients)
            client = self.federated_clients[self.run_client_index]
            if not client.simulate_running and client.client_name not in losses.reasons:
                client.simulate_running = True
                return client
        return current


def start_process(command: list[str], *, env: dict[str, str], **options: Any) -> Any:
    """Starts a site's process, and remembers it as that site's."""
    python, *arguments = command
    site = command[command.index("--client") + 1]
    if arguments[:2] == WORKER:
        command = [python, str(SITE), *arguments[2:]]
    process = start(command, env=env, session=True, refused=partial(logger.warning, NOT_FORKED, site))
    losses.processes[site] = process
    return process


def client_run(self: SimulatorRunner, *args: Any) -> Any:
    losses.server = self.server
    self.server.check_engine_frequency = 0.05
    return _client_run(self, *args)


def run(self: SimulatorRunner) -> int:
    """As FLARE's, but in this process, which is there for nothing else; and nothing pending is waited for in the end.

    Returns:
        What a component has recorded, or else what the run came to.
    """

    def main() -> int:
        code = self.simulator_run_main()
        recorded = Path(self.workspace, FLMetaKey.PROCESS_RC_FILE)
        return int(recorded.read_text()) if recorded.is_file() else code

    return MainProcessMonitor.run(main_func=main, run_dir=self.workspace, shutdown_grace_time=0, cleanup_grace_time=6)


def clean_workspace(self: SimulatorRunner) -> None:
    """As FLARE's, but where there is nothing to remove, nothing is: the folder may be a mount point."""
    root = Path(self.simulator_root)
    if not root.is_dir() or not {path.name for path in root.iterdir()} <= OURS:
        _clean(self)


def deploy(self: SimulatorRunner, *args: Any) -> None:
    """As FLARE's; of what went wrong with many files, such as on a full disk, the first."""
    try:
        _deploy(self, *args)
    except shutil.Error as error:
        raise OSError(error.args[0][0][2]) from error


def unpack(job: bytes, folder: str) -> None:
    """As FLARE's; then compiles the code, from where it is copied to the server and all sites: else each would."""
    _unpack(job, folder)
    compileall.compile_dir(folder, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)


def make_room(sites: int) -> None:
    """Threads for the results of all sites at once, each of which waits in one for arrays that come through another.

    FLARE has 64 for them. With 100 sites one run of three stood still.
    """
    for pool in (stream_utils.stream_thread_pool, stream_utils.callback_thread_pool):
        pool._max_workers = max(pool._max_workers, 2 * sites)
    conn_manager.FRAME_THREAD_POOL_SIZE = max(conn_manager.FRAME_THREAD_POOL_SIZE, 2 * sites)


def split_command(command: str, comments: bool = False) -> list[str]:
    """The arguments of a site's process, from the line that FLARE writes without quotes: a path may hold a blank."""
    return [part for part in SEPARATORS.split(command) if part is not None]


SimulatorClientRunner.do_one_task = do_one_task
SimulatorClientRunner.get_next_run_client = get_next_run_client
SimulatorRunner.run = run
SimulatorRunner.client_run = client_run
SimulatorRunner._cleanup_workspace = clean_workspace
SimulatorRunner._deploy_apps = deploy
simulator_runner.unzip_all_from_bytes = unpack
simulator_runner.shlex = SimpleNamespace(split=split_command)
simulator_runner.subprocess = SimpleNamespace(Popen=start_process, TimeoutExpired=subprocess.TimeoutExpired)
fed_server.ServerFedEventRunner = partial(ServerFedEventRunner, grace_period=QUIET_S, queue_empty_period=QUIET_S)
without_waits(simulator_runner)


def main() -> None:
    os.umask(0o077)  # FLARE's persistor leaves models readable to all, and ours are not
    if MARK in os.environ and not is_forked():  # who is forked does so already
        end_with(int(os.environ[MARK].partition(" ")[0]))
    parser = argparse.ArgumentParser()
    simulator.define_simulator_parser(parser)
    args = parser.parse_args()
    make_room(args.n_clients or len((args.clients or "").split(",")))
    code = simulator.run_simulator(args)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # threads of FLARE's may still wait


if __name__ == "__main__":
    main()
