# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Where the server's run folder of a job lies: in a simulator workspace, a kit, FLARE's job store or a download."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.progress import FILE_NAME

SIMULATED = "simulate_job"
PORT_IN_USE = re.compile(r"bind on address \('[^']*', (?P<port>\d+)\): address already in use")


@dataclass(frozen=True)
class Run:
    """One job's run at the server.

    Attributes:
        job_id: FLARE's id of the job.
        folder: the server's run folder, with progress.jsonl and app_server; the folder of `archive` if that is set.
        sites_root: the folder that holds a folder a site, if they are on this machine.
        archive: the zip in FLARE's job store that a server moves the run folder into when the job has ended.
    """

    job_id: str
    folder: Path
    sites_root: Path | None = None
    archive: Path | None = None

    def modified(self) -> float:
        """Unix seconds of the last sign of life."""
        places = (self.archive, self.folder / FILE_NAME, self.folder)
        return max((path.stat().st_mtime for path in places if path and path.exists()), default=0.0)


@contextmanager
def opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """A job's zip in FLARE's store.

    Raises:
        BundleError: it is damaged, as far as the caller has read.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            yield content
    except (zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"the job's archive is damaged ({error})", code="result-damaged", key=str(archive)) from error


def unpack(archive: Path, folder: Path, suffixes: tuple[str, ...] = ("",)) -> list[str]:
    """Extracts what ends with one of `suffixes`, and returns the names of all there is.

    Raises:
        BundleError: it is damaged, or there is no room for it.
    """
    with opened(archive) as content:
        parts = [part for part in content.infolist() if part.filename.endswith(suffixes)]
        needed, free = sum(part.file_size for part in parts), shutil.disk_usage(folder.parent).free
        if needed > free:
            expected, got = f"{needed} bytes", f"{free} free"
            raise BundleError("no room to unpack it", code="disk-full", key=str(archive), expected=expected, got=got)
        try:
            for part in parts:
                content.extract(part, folder)  # stays in that folder, whatever the name says
        except (EOFError, NotImplementedError, RuntimeError, ValueError) as error:  # cut, unknown method, password
            raise BundleError(
                f"the job's archive is damaged ({error})", code="result-damaged", key=str(archive)
            ) from error
        return content.namelist()


def find_run(path: Path, job_id: str = "") -> Run:
    """The newest run under `path`, or the one with `job_id`.

    Raises:
        BundleError: nothing of that kind is there; the message says what was looked for.
    """
    path = without_tilde(path)
    if not path.is_dir():
        raise BundleError(
            "no such folder",
            code="run-not-found",
            key=str(path),
            remedy="give a simulator workspace, a kit or a downloaded job",
        )
    runs = sorted({run.job_id: run for run in _runs(path.resolve())}.values(), key=Run.modified)
    if job_id:
        matches = [run for run in runs if run.job_id == job_id]
        if not matches:
            ids = ", ".join(run.job_id for run in runs) or "none"
            raise BundleError(
                "no such job", code="run-not-found", key=f"--job {job_id}", remedy=f"the jobs under {path} are: {ids}"
            )
        return matches[-1]
    if not runs:
        _check_server_started(path)
        raise BundleError(
            "there is no job here",
            code="run-not-found",
            key=str(path),
            remedy="looked for server/simulate_job (simulator), <server kit>/<job id> and the job store (POC or "
            "production), workspace/ (nvflare job download), and progress.jsonl",
        )
    return runs[-1]


def _runs(path: Path) -> Iterator[Run]:
    if _is_run(path):
        yield _run_at(path)
        return
    if (path / "server").is_dir() and ((path / "simulator.log").is_file() or _is_run(path / "server" / SIMULATED)):
        yield Run(SIMULATED, path / "server" / SIMULATED, path)
    for download in (path, *_folders(path)):
        if _is_run(download / "workspace"):
            yield Run(download.name, download / "workspace", download / "workspace")
    kits = {file.parent.parent for depth in range(4) for file in path.glob("*/" * depth + "startup/fed_server.json")}
    for store in [path, path / "jobs-storage", *(store for kit in kits for store in _job_store(kit))]:
        yield from _archived(store, kits)
    for kit in sorted(kits | {path, path / "server"}):
        yield from (Run(folder.name, folder, kit.parent) for folder in _folders(kit) if _is_job_run(folder))


def _is_job_run(folder: Path) -> bool:
    return folder.name != "workspace" and _is_run(folder)  # that one is a download, named by the folder above it


def _is_run(folder: Path) -> bool:
    return (folder / FILE_NAME).is_file() or (folder / "app_server").is_dir()


def _run_at(folder: Path) -> Run:
    if folder.name == "workspace":
        return Run(folder.parent.name, folder, folder)
    return Run(folder.name, folder, folder.parent.parent)


def _folders(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []


def _job_store(kit: Path) -> list[Path]:
    """The folder in which the server of `kit` keeps finished jobs."""
    for name in ("resources.json", "resources.json.default"):
        try:
            resources = json.loads((kit / "local" / name).read_text(encoding="utf-8"))
            arguments = {entry.get("id"): entry.get("args", {}) for entry in resources["components"]}
            folder = arguments.get("job_store", {}).get("folder", "")  # of kit_storage.KitStorage, relative to the kit
            return [kit / folder / arguments["job_manager"]["uri_root"]]
        except (AttributeError, OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return []


def _archived(store: Path, kits: set[Path]) -> Iterator[Run]:
    sites_root = next((kit.parent for kit in sorted(kits)), None)
    for folder in (store, *_folders(store)):  # or an entry of the store itself
        archive = folder / "workspace"
        if (folder / "meta").is_file() and archive.is_file() and zipfile.is_zipfile(archive):
            yield Run(folder.name, folder, sites_root, archive)


def _check_server_started(path: Path) -> None:
    """A server that could not get its port has no job, and FLARE's own message does not say why."""
    for log in sorted(path.rglob("server*/log.txt")):
        busy = PORT_IN_USE.search(log.read_text(encoding="utf-8", errors="replace"))
        if busy:
            raise BundleError(
                f"the server could not start: port {busy['port']} is in use by another program",
                code="port-unusable",
                key=str(log),
                remedy=f"find it (ss -ltnp 'sport = :{busy['port']}'), stop it, then stop and start the system again",
            )
