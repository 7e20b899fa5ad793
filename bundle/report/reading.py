# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""From a server's run folder to a Report."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bundle.events import check_events, read_events
from bundle.report.causes import RESOURCES, first_cause, lack_of_resources
from bundle.report.claims import doubtful_scores
from bundle.report.evidence import CROSS_SITE, asked_for_embedded, gap, keeps_models, misread, read_json, unrecorded
from bundle.report.locate import Run, find_run, unpack
from bundle.report.model import COUNTS, Metrics, Report, Round, Score, Sites
from bundle.report.outcome import ENDED_EARLY, judge, warnings, what_went_wrong
from bundle.report.outliers import broken_together, find_outliers
from bundle.report.personal import elsewhere, latest
from bundle.report.phases import Phases, rounds_behind
from bundle.report.writers import read_writers
from custom.events import (
    BYTES,
    Best,
    Continued,
    Event,
    FineTuned,
    Initialized,
    JobStarted,
    Personalized,
    RoundEnded,
    Validated,
    of_kind,
    unread,
)
from custom.metric_ranges import LARGEST, finite
from custom.metrics import weighted_mean
from custom.names import is_name
from custom.progress import FILE_NAME

FINAL, BEST = "final global model", "best global model"
MODELS = {
    FINAL: "app_server/FL_global_model.pt",
    BEST: "app_server/best_FL_global_model.pt",
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
        return read_run(run, run.folder.parent / "meta.json")  # as `nvflare job download` leaves it
    with tempfile.TemporaryDirectory() as temporary:
        names = unpack(run.archive, Path(temporary), TEXT_SUFFIXES)
        report = read_run(Run(run.job_id, Path(temporary), run.sites_root), run.archive.parent / "meta", names)
    report.folder = str(run.archive)
    report.errors = [error.replace(f"{temporary}/", f"{run.archive}: ") for error in report.errors]
    in_zip = {kind: f"{name} in {run.archive}" for kind, name in MODELS.items() if name in names}
    report.models = in_zip | report.models
    return report


def read_run(run: Run, listed: Path | None = None, packed: Collection[str] = ()) -> Report:
    """The Report of one run folder; a folder without progress.jsonl gives a report that says what is wrong.

    Args:
        run: its folder, not packed.
        listed: FLARE's own notes on the job, which say whether a user ended it; the consequences are not errors.
        packed: names of files that belong to the run and were not unpacked.
    """
    events = read_events(run.folder / FILE_NAME)
    check_events(events, run.folder / FILE_NAME)
    report = build(events)
    meta = read_json(run.folder / "meta.json")
    report.job = report.job or str(meta.get("name", ""))
    report.job_id, report.folder = run.job_id, str(run.folder)
    report.cross_site = _cross_site(run.folder / CROSS_SITE, report.warnings)
    report.warnings += [*misread(run), *doubtful_scores(report)]
    if report.personalization:
        report.personalization |= elsewhere(report)
    report.models = _models(run, report)
    report.asked_for_embedded = asked_for_embedded(run)
    if report.finished and report.rounds and keeps_models(run):
        expected = {FINAL, *((BEST,) if report.best else ())}
        lost = sorted(MODELS[kind] for kind in expected - report.models.keys() if MODELS[kind] not in packed)
        report.warnings += [f"{name} is not there any more: it was moved or deleted" for name in lost]
    if report.finished and (missing := gap(run, events)):
        report.status = "incomplete"
        report.errors.append(f"the job ended, and its result is not whole: {missing}")
    elif not report.finished and listed and read_json(listed).get("status") == ABORTED_BY_USER:
        report.status, report.errors = "aborted", [error for error in report.errors if _says_why(error)]
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


def build(events: Sequence[Event]) -> Report:
    """The Report of the events of one progress.jsonl."""
    report, behind = Report(), 0
    for started in of_kind(events, JobStarted)[:1]:
        report.job, report.site_names = started.job, sorted(started.sites)
    for continued in of_kind(events, Continued)[:1]:
        behind = rounds_behind(continued)
        report.continued = {name: getattr(continued, name) for name in ("job_id", "workflow", "round")}
    for initialized in of_kind(events, Initialized):
        report.dataset, report.samples = initialized.dataset, initialized.samples
        report.left_out, report.data_notes = initialized.left_out, initialized.data_notes
    if times := [event.time for event in events if event.time]:
        report.seconds = max(times[-1] - times[0], 0.0)
    rounds = list({(event.task, event.round): event for event in of_kind(events, RoundEnded)}.values())
    _fill_rounds(report, rounds, of_kind(events, Validated), behind)
    for best in of_kind(events, Best)[-1:]:
        report.best = best.given()
    if report.best and (row := report.best_row()) and report.best["metric"] in row.aggregate:
        if rule := report.best.pop("rule", ""):
            report.best["chosen_by"] = {"rule": rule, "value": report.best["value"]}
        report.best["value"] = row.aggregate[report.best["metric"]]  # FLARE's own selector weighs all by samples
    report.personalization = latest(of_kind(events, FineTuned))
    report.writers = read_writers(rounds, of_kind(events, Personalized), report.samples, behind)
    report.errors = what_went_wrong(events)
    report.outliers = find_outliers(events)
    report.warnings = warnings(events) + list(filter(None, [unread(events, FILE_NAME)]))
    report.warnings += [*(outlier.sentence for outlier in report.outliers), *broken_together(events)]
    report.status = judge(report, events, rounds)
    return report


def _fill_rounds(report: Report, rounds: list[RoundEnded], validations: list[Validated], behind: int) -> None:
    """Gives each round the score of the model after it: what the sites of the next round received."""
    planned = {event.task: event.num_rounds for event in rounds}
    phases = Phases(behind)
    closing = {event.round: _score(event.sites, event.samples) for event in validations}
    for event, following in zip(rounds, [*rounds[1:], None], strict=False):
        if following and (following.task != event.task or following.round == event.round + 1):
            after = received_score(following)
        else:
            after = closing.get(event.round) or Score()
        trained = _score({site: facts.train for site, facts in event.sites.items()}, event.samples())
        sites = {
            site: trained.sites.get(site, {}) | after.sites.get(site, {})
            for site in sorted({*trained.sites, *after.sites})
        }
        report.rounds.append(
            Round(
                sites=sites,
                aggregate=trained.aggregate | _counts(trained.sites) | after.aggregate,
                task=event.task,
                round=event.round,
                num_rounds=planned[event.task],
                position=phases.position(event),
                seconds=event.seconds,
                **{name: getattr(event, name) for name in BYTES},
                site_bytes=_site_bytes(event),
                failed=event.failed,
            )
        )
    if rounds:
        last = report.rounds[-1]
        report.num_rounds = last.position + last.num_rounds - last.round if last.num_rounds else 0
        initial = received_score(rounds[0])
        report.initial = initial if initial.aggregate else None


def _site_bytes(event: RoundEnded) -> dict[str, dict[str, int]]:
    sites = sorted((event.uncounted | event.sites).items())
    return {site: counts for site, facts in sites if (counts := facts.counts())}


def _counts(sites: Sites) -> Metrics:
    found = {name: [metrics[name] for metrics in sites.values() if name in metrics] for name in COUNTS}
    return {name: sum(values) for name, values in found.items() if values}


def received_score(event: RoundEnded) -> Score:
    """The score of the model that the sites received in that round, so of the global model before it."""
    return _score({site: facts.received for site, facts in event.sites.items()}, event.samples())


def _score(sites: Sites, samples: Mapping[str, float]) -> Score:
    return Score(dict(sorted(sites.items())), weighted_mean(sites, samples))


def _cross_site(path: Path, warnings: list[str]) -> dict[str, Sites]:
    """FLARE's `{site: {model: metrics}}` turned round to `{model: {site: metrics}}`; adds to the warnings."""
    matrix: dict[str, Sites] = {}
    odd = 0
    for site, models in sorted(read_json(path).items()):
        odd += not isinstance(models, dict)
        for model, metrics in models.items() if isinstance(models, dict) else ():
            if not isinstance(metrics, dict):
                odd += 1
                continue
            found = {name: finite(value) for name, value in metrics.items()}
            numbers = {name: value for name, value in found.items() if value is not None and abs(value) <= LARGEST}
            matrix.setdefault(model, {})[site] = numbers
    if odd:
        warnings.append(f"{CROSS_SITE}: {odd} of its values are not metrics by model, and were not understood")
    return dict(sorted(matrix.items()))


def _models(run: Run, report: Report) -> dict[str, str]:
    found = {kind: run.folder / name for kind, name in MODELS.items() if (run.folder / name).is_file()}
    if run.sites_root:
        # Only of the sites that say so: where fine-tuning failed, an earlier job's model may still lie there.
        for site in filter(is_name, (report.personalization or {}).get("sites", {}) if is_name(report.job) else ()):
            model = run.sites_root / site / "personal_models" / report.job / "personal_model.pt"
            if model.is_file():
                found[f"personal model of {site}"] = model
        for site in filter(is_name, report.site_names):
            for model in sorted((run.sites_root / site).glob(f"{run.job_id}/**/local_model.pt"))[:1]:
                found[f"last model of {site}"] = model
    return {kind: str(path) for kind, path in found.items()}
