# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Runs a grid of settings of a job in FLARE's simulator; can be stopped, and goes on where it stopped.

A seed is a repeat and no setting: settings are compared by their means over the seeds of the grid. A point's identity
is its settings, seeds included, and it has a folder of that name under OUT: `job` (exported), `workspace` (FLARE's,
with simulator.log), `report.json`, and `point.json`, which says whether it finished. The same command again runs what
did not finish; with another grid it adds points, and the results are those of the grid that was asked for. A sweep of
another job, `--set` or `-n` in the same OUT is refused, and so is one whose code has changed since a point finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import settings
from bundle.arguments import is_component
from bundle.command import packed
from bundle.in_use import LOCK, held
from bundle.jobs import Job, read_job, read_json
from bundle.run import check_printable, check_sites
from bundle.sweep_grid import Point, points
from bundle.sweep_plot import to_html, write_png
from bundle.sweep_results import Result, choose_metric, load
from bundle.sweep_running import Size, run_all
from bundle.sweep_table import group, ranked, to_csv, to_json, to_text
from custom.data.folders import without_tilde
from custom.errors import BundleError
from custom.progress import write_atomically

SWEEP_FILE = "sweep.json"
PLOT = "plot.png"
SEED = "seed"


@dataclass(frozen=True)
class Asked:
    """What the user asked for.

    Attributes:
        job: name or path.
        grid: `key=v1,v2` each.
        out: folder of the sweep: new, empty, or that of the same sweep.
        assignments: `key=value` each, the same for all points.
        sites: how many.
        threads: sites of a point that run at a time; all if None.
        jobs: points that run at a time; as many as there are cores for if None.
        metric: to compare by; the job's key metric if empty.
    """

    job: str
    grid: Sequence[str]
    out: Path
    assignments: Sequence[str] = ()
    sites: int = 2
    threads: int | None = None
    jobs: int | None = None
    metric: str = ""


def sweep(asked: Asked) -> list[Result] | None:
    """Runs what is not done yet, prints the table, writes results.json, results.csv, plot.png and results.html.

    Returns:
        A result a point, those of the best setting first, or None if the user stopped the sweep.

    Raises:
        BundleError: a point, or `out`, is not as it must be; nothing has run then. Or no point has the metric.
    """
    fixed, out = settings.parse(asked.assignments), without_tilde(asked.out).absolute()
    grid = points(asked.grid, fixed)
    size = _size(asked)
    facts = {"job": read_job(asked.job).name, "sites": asked.sites, "settings": fixed}
    _check_out(out, facts)
    place = next(folder for folder in (out, *out.parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".flare-bundle-", dir=place) as temporary:
        exported = _export_all(asked, grid, size, Path(temporary))
        with _held(out, facts):
            results = [_known(out / point.name, point, digest) for point, digest in zip(grid, exported, strict=True)]
            choose_metric(results, asked.metric)
            waiting = [result for result in results if not result.finished]
            for result in waiting:
                _prepare(out / result.point.name, Path(temporary, result.point.name), result)
            print(f"job {facts['job']}: {len(results)} points, {len(results) - len(waiting)} finished before; {out}")
            complete = run_all(waiting, out, size, lambda: choose_metric(results, asked.metric))
            results = _show(out, facts, results, asked.metric, _seeds(asked, grid))
    if not complete:
        print("stopped; the same command goes on from here")
        return None
    return results


def _seeds(asked: Asked, grid: Sequence[Point]) -> list[str]:
    """The keys of the grid that name an argument `seed`, of whatever component."""
    configs = read_job(asked.job).configs
    keys = [key for key in grid[0].settings if not all(is_component(point.settings[key]) for point in grid)]
    return [key for key in keys if all(argument == SEED for _, argument in settings.find(configs, key))]


def _size(asked: Asked) -> Size:
    threads = asked.sites if asked.threads is None else asked.threads
    jobs = max(1, (os.cpu_count() or 1) // max(1, threads)) if asked.jobs is None else asked.jobs
    if jobs < 1:
        raise BundleError(code="option-value", key=f"-j {jobs}", expected="1 or more points at a time", got=jobs)
    return Size(asked.sites, threads, jobs)


def _check_out(out: Path, facts: dict[str, Any]) -> None:
    check_printable(out, "-o")
    if (out / SWEEP_FILE).is_file():
        known = read_json(out / SWEEP_FILE)
        for name, value in facts.items():
            if known.get(name) != value:
                raise BundleError(
                    f"holds a sweep with other {name}",
                    code="workspace-unusable",
                    key=f"-o {out}",
                    expected=json.dumps(known.get(name)),
                    got=json.dumps(value),
                    remedy="choose another -o",
                )
    elif out.is_file() or (out.is_dir() and any(path.name != LOCK for path in out.iterdir())):
        raise BundleError(
            "exists, and holds no sweep", code="workspace-unusable", key=f"-o {out}", remedy="choose a new folder"
        )


def _export_all(asked: Asked, grid: Sequence[Point], size: Size, folder: Path) -> list[str]:
    """Exports every point, so that a bad one is found before any runs; the digest of each."""
    digests: dict[str, Point] = {}
    for point in grid:
        try:
            job = packed(asked.job, folder / point.name, [*asked.assignments, *point.assignments])
            check_sites(job, size.sites, size.threads)
        except BundleError as error:
            about = str(error).partition(": ")[0]  # of a job that another process packs only the message arrives
            if about.removeprefix("--set ") in point.settings:
                raise BundleError(str(error).replace("--set", "--grid", 1), code=error.code) from error
            raise BundleError(f"{point.label}: {error}", code=error.code) from error
        digest = _digest(job)
        if digest in digests:
            raise BundleError(
                f"is the same job as {digests[digest].label}",
                code="setting-syntax",
                key=point.label,
                remedy="do two keys name one argument?",
            )
        digests[digest] = point
    return list(digests)


def _digest(job: Job) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in job.folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(job.folder)} {content}\n".encode())
    return digest.hexdigest()


def _known(folder: Path, point: Point, digest: str) -> Result:
    """The result of a point that has finished, else an empty one."""
    result = load(folder)
    if result is None or not result.finished:
        return Result(point.settings, digest)
    if result.job_sha256 != digest:
        raise BundleError(
            "the job's files have changed since this point finished",
            code="workspace-unusable",
            key=str(folder),
            remedy="choose another -o, or remove that folder to run the point again",
        )
    return Result(**(vars(result) | {"settings": point.settings}))  # in the order of today's grid


@contextmanager
def _held(out: Path, facts: dict[str, Any]) -> Iterator[None]:
    """`out` as ours alone: two sweeps would delete each other's points."""
    with held(out, "-o"):
        write_atomically(out / SWEEP_FILE, json.dumps(facts, indent=2) + "\n")
        yield


def _prepare(folder: Path, job: Path, result: Result) -> None:
    """An empty folder with the exported job; what an earlier try left is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    shutil.move(job, folder / "job")
    result.save(folder)


def _show(
    out: Path, facts: dict[str, Any], results: Sequence[Result], asked_metric: str, seeds: Sequence[str]
) -> list[Result]:
    """Prints the table and writes the files; the results in the order of the table."""
    metric = choose_metric(results, asked_metric)
    rows = ranked(group(results, seeds), metric)
    content = json.dumps(facts | {"repeats_over": list(seeds)} | to_json(rows, metric), indent=2, allow_nan=False)
    write_atomically(out / "results.json", content + "\n")
    write_atomically(out / "results.csv", to_csv(rows, metric))
    repeats = f" of {len(rows)} settings" if seeds else ""
    write_atomically(out / "results.html", to_html(f"{facts['job']}: {len(results)} points{repeats}", rows, metric))
    files = ["results.json", "results.csv", "results.html"]
    (out / PLOT).unlink(missing_ok=True)
    if rows[0].value(metric) is not None:
        write_png(out / PLOT, rows, metric)
        files.append(PLOT)
    print(f"\n{to_text(rows, metric)}\nwrote {', '.join(files)} to {out}")
    return [result for row in rows for result in row.repeats]
