# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""From a server's run folder to a Report."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bundle.events import Event, read_events
from bundle.report.causes import RESOURCES, first_cause, lack_of_resources
from bundle.report.evidence import CROSS_SITE, asked_for_embedded, gap, read_json, unrecorded
from bundle.report.locate import Run, find_run, opened
from bundle.report.model import BYTES, COUNTS, Metrics, Report, Round, Score, Sites
from bundle.report.outcome import ENDED_EARLY, judge, what_went_wrong
from bundle.report.personal import elsewhere, latest
from bundle.report.phases import Phases, rounds_behind
from bundle.report.writers import read_writers
from custom.checks.update import is_finite_number
from custom.metrics import weighted_mean
from custom.progress import FILE_NAME

MODELS = {
    "final global model": "app_server/FL_global_model.pt",
    "best global model": "app_server/best_FL_global_model.pt",
    "global model of federated averaging": "app_server/fed_avg_model.pt",
}
ABORTED_BY_USER = "FINISHED:ABORTED"  # FLARE's status
NOT_RECORDED = "not recorded"
TEXT_SUFFIXES = (".json", ".jsonl", ".txt", ".log")
CUT_SHORT = re.compile(r"unexpected pos \d+ vs \d+|PytorchStreamWriter failed writing")  # torch, of a write that failed
LOG_BYTES = 16_384  # of free space
UNEXPLAINED = re.compile(r": its process (gave up|ended with exit code)")
NOT_WRITTEN = (
    "a model could not be written: no space left on the disk, or a quota or limit of the file's size is reached"
)


def read_report(path: Path, job_id: str = "") -> Report:
    """The newest job under `path`, or the one with `job_id`.

    Raises:
        BundleError: there is none.
    """
    run = find_run(path, job_id)
    if run.archive is None:
        return read_run(run)
    with tempfile.TemporaryDirectory() as temporary, opened(run.archive) as archive:
        names = archive.namelist()
        for name in names:
            if name.endswith(TEXT_SUFFIXES):
                archive.extract(name, temporary)  # stays under that folder, whatever the name says
        report = read_run(Run(run.job_id, Path(temporary), run.sites_root))
    report.folder = str(run.archive)
    report.errors = [error.replace(f"{temporary}/", f"{run.archive}: ") for error in report.errors]
    if read_json(run.archive.parent / "meta").get("status") == ABORTED_BY_USER and not report.finished:
        report.status, report.errors = "aborted", [error for error in report.errors if _says_why(error)]
    in_zip = {kind: f"{name} in {run.archive}" for kind, name in MODELS.items() if name in names}
    report.models = in_zip | report.models
    return report


def read_run(run: Run) -> Report:
    """The Report of one run folder; a folder without progress.jsonl gives a report that says what is wrong."""
    events = read_events(run.folder / FILE_NAME)
    report = build(events)
    meta = read_json(run.folder / "meta.json")
    report.job = report.job or str(meta.get("name", ""))
    report.job_id, report.folder = run.job_id, str(run.folder)
    report.cross_site = _cross_site(run.folder / CROSS_SITE)
    if report.personalization:
        report.personalization |= elsewhere(report)
    report.models = _models(run, report)
    report.asked_for_embedded = asked_for_embedded(run)
    if report.finished and (missing := gap(run, events)):
        report.status = "incomplete"
        report.errors.append(f"the job ended, and its result is not whole: {missing}")
    elif not report.finished:
        _explain(run, report)
    return report


def _explain(run: Run, report: Report) -> None:
    """Puts the cause of its end first; what FLARE and our own errors say of a full disk is rarely it."""
    known = report.errors[0] if report.errors else ""
    cause = "" if RESOURCES.search(known) else lack_of_resources(run, report.site_names)
    if not cause and not _says_why(known):
        cause = first_cause(run, report.site_names)
    if not RESOURCES.search(cause) and any(CUT_SHORT.search(text) for text in (*report.errors, cause)):
        cause = NOT_WRITTEN  # the full disk may have held the logs too
    if not cause and not _says_why(known) and (place := _full_disk(run.folder)):
        cause = f"no space left on the disk of {place}, which may be why: the logs could not be written either"
    report.errors = ([cause] if cause else []) + report.errors
    if what := unrecorded(run):
        report.status = NOT_RECORDED
        report.errors.append(what)


def _full_disk(folder: Path) -> Path | None:
    """What there is of the folder's path, if its disk has not even room for a few lines of a log now."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return place if shutil.disk_usage(place).free < LOG_BYTES else None


def _says_why(error: str) -> bool:
    """FLARE's bare return code does not, nor a process's, and neither does the mere fact: the logs may."""
    bare = error.rpartition(": ")[2].isupper() or UNEXPLAINED.search(error)
    return bool(error) and not bare and not error.startswith(ENDED_EARLY)


def build(events: list[Event]) -> Report:
    """The Report of the events of one progress.jsonl."""
    report, behind = Report(), 0
    by_kind: dict[str, list[Event]] = {}
    for event in events:
        by_kind.setdefault(event["event"], []).append(event)
    for started in by_kind.get("job_started", [])[:1]:
        report.job, report.site_names = str(started.get("job", "")), sorted(started.get("sites", []))
    for continued in by_kind.get("continued", [])[:1]:
        behind = rounds_behind(continued)
        report.continued = {name: continued.get(name) for name in ("job_id", "workflow", "round")}
    for initialized in by_kind.get("initialized", []):
        report.dataset, report.samples = initialized.get("dataset"), initialized.get("samples") or {}
        report.left_out, report.data_notes = initialized.get("left_out") or {}, initialized.get("data_notes") or {}
    if events:
        report.seconds = float(events[-1].get("time", 0)) - float(events[0].get("time", 0))
    rounds = {(event.get("task"), event["round"]): event for event in by_kind.get("round", [])}
    _fill_rounds(report, list(rounds.values()), by_kind.get("validation", []), behind)
    best = by_kind.get("best", [])
    report.best = {name: best[-1].get(name) for name in ("round", "metric", "value")} if best else None
    if report.best and (row := report.best_row()) and report.best["metric"] in row.aggregate:
        report.best["value"] = row.aggregate[report.best["metric"]]  # FLARE's own selector weighs all by samples
    report.personalization = latest(by_kind.get("fine_tuned", []))
    report.writers = read_writers(list(rounds.values()), by_kind.get("personalized", []), report.samples, behind)
    report.errors = what_went_wrong(events)
    report.warnings = [str(event.get("reason", "")) for event in by_kind.get("warning", [])]
    report.status = judge(report, events, list(rounds.values()))
    return report


def _fill_rounds(report: Report, rounds: list[Event], validations: list[Event], behind: int) -> None:
    """Gives each round the score of the model after it: what the sites of the next round received."""
    planned = {event.get("task"): int(event.get("num_rounds", 0)) for event in rounds}
    phases = Phases(behind)
    closing = {event.get("round"): _score(event.get("sites", {}), event.get("samples", {})) for event in validations}
    for event, following in zip(rounds, [*rounds[1:], None], strict=False):
        number, task = event["round"], event.get("task")
        if following and (following.get("task") != task or following["round"] == number + 1):
            after = received_score(following)
        else:
            after = closing.get(number) or Score()
        trained = _part(event, "train")
        sites = {
            site: trained.sites.get(site, {}) | after.sites.get(site, {})
            for site in sorted({*trained.sites, *after.sites})
        }
        report.rounds.append(
            Round(
                sites=sites,
                aggregate=trained.aggregate | _counts(trained.sites) | after.aggregate,
                task=str(task or "train"),
                round=number,
                num_rounds=planned[task],
                position=phases.position(event),
                seconds=float(event.get("seconds", 0)),
                **{name: int(event[name]) for name in BYTES if name in event},
                site_bytes=_site_bytes(event),
                failed=dict(event.get("failed") or {}),
            )
        )
    if rounds:
        last = report.rounds[-1]
        report.num_rounds = last.position + last.num_rounds - last.round if last.num_rounds else 0
        initial = received_score(rounds[0])
        report.initial = initial if initial.aggregate else None


def _site_bytes(event: Event) -> dict[str, dict[str, int]]:
    sites = {**event.get("uncounted", {}), **event.get("sites", {})}
    known = {site: facts for site, facts in sorted(sites.items()) if all(name in facts for name in BYTES)}
    return {site: {name: int(facts[name]) for name in BYTES} for site, facts in known.items()}


def _counts(sites: Sites) -> Metrics:
    found = {name: [metrics[name] for metrics in sites.values() if name in metrics] for name in COUNTS}
    return {name: sum(values) for name, values in found.items() if values}


def received_score(event: Event) -> Score:
    """The score of the model that the sites received in that round, so of the global model before it."""
    return _part(event, "received")


def _part(event: Event, name: str) -> Score:
    sites = event.get("sites", {})
    return _score(
        {site: facts.get(name) or {} for site, facts in sites.items()},
        {site: facts.get("samples") for site, facts in sites.items()},
    )


def _score(sites: Sites, samples: dict[str, Any]) -> Score:
    return Score(dict(sorted(sites.items())), weighted_mean(sites, samples))


def _cross_site(path: Path) -> dict[str, Sites]:
    """FLARE's `{site: {model: metrics}}` turned round to `{model: {site: metrics}}`."""
    matrix: dict[str, Sites] = {}
    for site, models in sorted(read_json(path).items()):
        for model, metrics in models.items() if isinstance(models, dict) else ():
            if not isinstance(metrics, dict):
                continue
            numbers = {name: float(value) for name, value in metrics.items() if is_finite_number(value)}
            matrix.setdefault(model, {})[site] = numbers
    return dict(sorted(matrix.items()))


def _models(run: Run, report: Report) -> dict[str, str]:
    found = {kind: run.folder / name for kind, name in MODELS.items() if (run.folder / name).is_file()}
    if run.sites_root:
        # Only of the sites that say so: where fine-tuning failed, an earlier job's model may still lie there.
        for site in (report.personalization or {}).get("sites", {}):
            model = run.sites_root / site / "personal_models" / report.job / "personal_model.pt"
            if model.is_file():
                found[f"personal model of {site}"] = model
        for site in report.site_names:
            for model in sorted((run.sites_root / site).glob(f"{run.job_id}/**/local_model.pt"))[:1]:
                found[f"last model of {site}"] = model
    return {kind: str(path) for kind, path in found.items()}
