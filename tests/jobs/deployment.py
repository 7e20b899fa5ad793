# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A provisioned system on loopback: its server and sites as processes of their own, ended by their ids."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from bundle.forked_jobs import fork_jobs
from bundle.provision import provision
from bundle.templates import Wanted
from tests.jobs.flare import environment, run
from tests.ports import free_port

LEAD = "lead-site-1@flare.example"  # in the templates for production, with the right to submit jobs
SUBMIT = """
import sys
from nvflare.fuel.flare_api.flare_api import new_secure_session
kit, user, job, out, limit = sys.argv[1:]
session = new_secure_session(user, kit)
try:
    job_id = session.submit_job(job)
    session.monitor_job(job_id, timeout=float(limit), poll_interval=0.3)
    print("ENDED", job_id, session.get_job_meta(job_id)["status"], session.download_job_result(job_id) if out else "")
finally:
    session.close()  # else its threads keep the process alive
"""

ASK = """
import sys
from nvflare.fuel.flare_api.flare_api import new_secure_session
kit, user, command, *arguments = sys.argv[1:]
session = new_secure_session(user, kit, timeout=60)
try:
    print("DONE", getattr(session, command)(*arguments))
except Exception as error:
    print("REFUSED", type(error).__name__, error)
finally:
    session.close()
"""


class NotReady(Exception):
    """The system did not come up, or a job did not end; the message is for people."""


def tls_answer(port: int, root: Path, certificate: tuple[Path, Path] | None) -> str:
    """What a server says to HTTP over TLS of somebody with that certificate and key; nothing where it refuses them."""
    context = ssl.create_default_context(cafile=str(root))
    if certificate:
        context.load_cert_chain(*certificate)
    try:
        with (
            socket.create_connection(("localhost", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return secure.recv(100).decode()  # in TLS 1.3, only now does a client learn that it is refused
    except OSError:
        return ""


class Deployment:
    """Processes of the kits in `folder` (OUT/PROJECT/prod_NN), started by FLARE's own script; a context manager.

    Args:
        folder: with one kit a folder.
        server, sites: their names.
        work: a folder for the home, the logs of the processes, and an empty one to start in.
        data_root: FLARE_DATA_ROOT, where a kit does not set it.
        forked: the processes of jobs are forked from the tests' fork server.
    """

    def __init__(
        self,
        folder: Path,
        server: str,
        sites: Sequence[str],
        work: Path,
        data_root: Path | str,
        forked: bool = False,
    ) -> None:
        if forked:
            fork_jobs(folder)
        self.folder, self.server, self.sites, self.work = folder, server, tuple(sites), work
        (work / "home").mkdir(parents=True)
        (work / "empty").mkdir()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = environment(data_root, HOME=str(work / "home"), PATH=path)
        self.env.pop("PYTHONPATH", None)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Deployment:
        try:
            self.start(self.server)
            self.wait_for("Server started", [self.server])
            for site in self.sites:
                self.start(site)
            self.wait_for("Successfully registered client", self.sites)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, **environment: str) -> None:
        """In the foreground of a process of its own, without FLARE's watchdog; `environment` is for this one alone."""
        with (self.work / f"{name}.log").open("wb") as output:
            self.processes[name] = subprocess.Popen(
                ["bash", str(self.folder / name / "startup" / "sub_start.sh"), "--once"],
                cwd=self.work / "empty",
                env={**self.env, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        """FLARE's log of the server or a site, all of it; empty if there is none yet."""
        path = self.folder / name / "log.txt"
        return path.read_text(errors="replace") if path.is_file() else ""

    def submit(self, user: str, job: Path, limit_s: float = 900, download: bool = False) -> str:
        """As `user`, through FLARE's API, to the end; what that printed."""
        arguments = [str(self.folder / user), user, str(job), "yes" if download else "", str(limit_s)]
        return run([sys.executable, "-c", SUBMIT, *arguments], self.work / "empty", self.env, limit_s + 60).stdout

    def ask(self, user: str, command: str, *arguments: str) -> str:
        """A method of a session of FLARE's API, as `user`: "DONE" and what it returned, or "REFUSED" and why."""
        script = [sys.executable, "-c", ASK, str(self.folder / user), user, command, *arguments]
        return run(script, self.work / "empty", self.env, 120).stdout

    def audit(self, name: str) -> str:
        """FLARE's audit log of the server or a site."""
        path = self.folder / name / "audit.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def job_file(self, job_id: str, name: str, limit_s: float = 300) -> str:
        """A file of the server's run folder of a job that has ended, which FLARE then packs into a zip."""
        archive = self.folder / self.server / "jobs-storage" / job_id / "workspace"
        deadline = time.monotonic() + limit_s
        while not zipfile.is_zipfile(archive):
            if time.monotonic() > deadline:
                raise NotReady(f"no {archive} within {limit_s:.0f} s")
            time.sleep(0.5)
        with zipfile.ZipFile(archive) as content:
            return content.read(name).decode(errors="replace")

    def stop(self) -> None:
        """Ends all that was started here, and what that has started."""
        processes = []
        for started in self.processes.values():
            try:
                parent = psutil.Process(started.pid)
                processes += [parent, *parent.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        _each(processes, psutil.Process.terminate)
        _, alive = psutil.wait_procs(processes, timeout=10)
        _each(alive, psutil.Process.kill)
        psutil.wait_procs(alive, timeout=10)
        for started in self.processes.values():
            started.wait(10)

    def wait_for(self, text: str, names: Sequence[str], limit_s: float = 300) -> None:
        """Until the log of each of them has it; NotReady if that takes too long, or one of them ends."""
        deadline = time.monotonic() + limit_s
        while not all(text in self.log(name) for name in names):
            ended = [name for name in names if self.processes[name].poll() is not None]
            if ended or time.monotonic() > deadline:
                why = f"{ended[0]} ended" if ended else f"no {text!r} within {limit_s:.0f} s"
                logs = "\n".join(f"{name}: {(self.work / f'{name}.log').read_text()[-2000:]}" for name in names)
                raise NotReady(f"{why}\n{logs}")
            time.sleep(0.5)


@contextlib.contextmanager
def provisioned(template: str, folder: Path, forked: bool = False) -> Iterator[Deployment]:
    """The template's two sites and server run, from kits in `folder`, without data; `forked` as in `Deployment`."""
    kits = provision(template, folder / "kits", Wanted(port=free_port()))
    with Deployment(kits.folder, kits.server, kits.sites, folder / "work", "/nowhere", forked) as system:
        yield system


def _each(processes: Sequence[psutil.Process], action: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        try:
            action(process)
        except psutil.NoSuchProcess:
            continue
