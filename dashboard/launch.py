# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""From a filled-in form to a job in FLARE's store: looks at everything again, exports the job, and submits it."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bundle.command import run_bundle
from bundle.initial_model import INITIAL_MODEL, JOB_ID
from bundle.jobs import Job, read_job, read_json
from custom.errors import BundleError
from dashboard.catalog import JobForm
from dashboard.once import Once
from dashboard.system import Snapshot

TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")  # nvflare.apis.utils.job_submit_token.SUBMIT_TOKEN_PATTERN
ALL_SITES, SERVER = "@ALL", "server"
SITE_COUNTS = ("min_clients", "min_responses", "min_responses_required")  # of workflows
CUSTOM_PROPS, LAUNCHED = "custom_props", "launched"  # FLARE keeps the former in the job's meta as it is

_once = Once()


class System(Protocol):
    """What is needed of `dashboard.flare.Flare`."""

    cache: Path

    def snapshot(self) -> Snapshot:
        """The newest reading."""

    def check_right_to_submit(self) -> None:
        """Raises BundleError if this user may not submit jobs."""

    def model_file(self, job_id: str, best: bool = False) -> Path:
        """The global model of a job that ended."""

    def submit(self, folder: Path, token: str) -> str:
        """Submits an exported job; its id."""


@dataclass(frozen=True)
class Request:
    """What a user wants to be launched.

    Attributes:
        job: name of a form.
        settings: by key; what is left out, or the same as the default, is not set.
        sites: to run on, and on no others; empty means all that are connected when the job starts.
        start_from: id of a job that ended, or path of a file under the system's `cache`; empty: from scratch.
        token: the same for all clicks that mean one launch; FLARE keeps it too.
    """

    job: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sites: tuple[str, ...] = ()
    start_from: str = ""
    token: str = ""


def launch(request: Request, forms: Sequence[JobForm], flare: System) -> str:
    """Launches it, once a token; takes seconds. The job's id.

    Raises:
        BundleError: something is not as it must be; its `key` is that of the field, or `job`, `sites`, `start_from`.
    """
    token = request.token or secrets.token_hex(16)
    if not TOKEN.fullmatch(token):
        raise BundleError(
            code="launch-repeated", key="token", expected="up to 128 letters, digits and . _ : -", got=f"{token!r:.80}"
        )
    return _once.do(token, request, lambda: _launch(request, forms, flare, token))


def _launch(request: Request, forms: Sequence[JobForm], flare: System, token: str) -> str:
    form = next((form for form in forms if form.name == request.job), None)
    if form is None:
        raise BundleError(
            code="job-not-found",
            key="job",
            expected=f"one of {', '.join(form.name for form in forms)}",
            got=request.job,
        )
    settings = changed_settings(form, request.settings)
    job, snapshot, sites = read_job(form.name), flare.snapshot(), tuple(sorted(set(request.sites)))
    if snapshot.problem or not snapshot.taken:
        raise BundleError(
            snapshot.problem or "FLARE has not answered yet; try again in a few seconds", code="server-unreachable"
        )
    check_sites(sites, job, snapshot)
    flare.check_right_to_submit()
    model = _starting_model(request.start_from, snapshot, flare)
    launched = {
        "job": form.name,
        "settings": settings,
        "start_from": request.start_from if model is None or _is_job(request.start_from) else model.name,
        "sites": list(sites),
    }
    with tempfile.TemporaryDirectory(prefix="dashboard-launch-") as temporary:
        folder = Path(temporary, job.name)
        _export(form, folder, {**settings, **_site_counts(job, len(sites))}, model)
        _write_meta(folder / "meta.json", sites, launched)
        return flare.submit(folder, token)


def changed_settings(form: JobForm, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that differ from their defaults, in the order of the form.

    Raises:
        BundleError: one is not in the form, or its value is none that it takes.
    """
    for key in settings:
        if form.field(key) is None:
            raise BundleError(f"is not a setting of {form.name} in this form", code="setting-unknown", key=key)
    values = {field.key: field.checked(settings[field.key]) for field in form.fields if field.key in settings}
    return {
        field.key: values[field.key] for field in form.fields if values.get(field.key, field.default) != field.default
    }


def check_sites(sites: Sequence[str], job: Job, snapshot: Snapshot) -> None:
    """Are they there, and enough?

    Raises:
        BundleError: names the first that is not.
    """
    silent = {client.name: client.is_silent(snapshot.taken) for client in snapshot.clients}
    connected = [name for name, is_silent in silent.items() if not is_silent]
    for site in sites:
        if site not in silent:
            raise BundleError(
                code="too-few-sites",
                key="sites",
                expected=f"some of {', '.join(silent) or 'no sites'}",
                got=f"{site!r:.80}",
            )
        if silent[site]:
            problem = f"{site} is connected no more, or does not answer"
            raise BundleError(
                problem, code="too-few-sites", key="sites", remedy="wait until it is back, or leave it out"
            )
    if not sites and len(connected) < job.min_clients:
        raise BundleError(
            code="too-few-sites",
            key="sites",
            expected=f"at least {job.min_clients} connected sites for {job.name}",
            got=len(connected),
            remedy="wait for the others, or choose the sites by name: then the job is content with these",
        )
    if sites and list(job.meta["deploy_map"].values()) != [[ALL_SITES]]:
        raise BundleError(
            "the job says itself where it runs (deploy_map)",
            code="too-few-sites",
            key="sites",
            remedy="choose all sites",
        )


def _site_counts(job: Job, sites: int) -> dict[str, int]:
    """Settings of workflows that wait for more sites than were chosen."""
    counts = {f"{flow['id']}.{name}": flow.get("args", {}).get(name) for flow in job.workflows for name in SITE_COUNTS}
    return {key: sites for key, count in counts.items() if isinstance(count, int) and 0 < sites < count}


def _is_job(start_from: str) -> bool:
    return bool(JOB_ID.fullmatch(start_from))


def _starting_model(start_from: str, snapshot: Snapshot, flare: System) -> Path | None:
    """The file to start from.

    Whether it is a model is seen when it is exported: that takes torch, which stays out of this process.
    """
    if not start_from:
        return None
    if not _is_job(start_from):
        file = Path(start_from).resolve()
        if not file.is_relative_to(flare.cache.resolve()) or not file.is_file():
            raise BundleError(
                "there is no such uploaded file", code="model-file-missing", key="start_from", remedy="upload it again"
            )
        return file
    job = snapshot.job(start_from)
    if job is None or not job.ended:
        problem = f"there is no job {start_from} any more" if job is None else f"{job.name} has not ended yet"
        raise BundleError(problem, code="model-file-missing", key="start_from", remedy="choose another one")
    try:
        return flare.model_file(start_from)
    except BundleError as error:
        raise BundleError(str(error), code=error.code, key="start_from") from error


def _export(form: JobForm, folder: Path, settings: Mapping[str, Any], model: Path | None) -> None:
    # As JSON each value is what it is: a text that looks like a number, or like a component, stays a text.
    assignments = {key: json.dumps(value) for key, value in settings.items()}
    if model is not None:
        assignments[INITIAL_MODEL] = json.dumps(str(model))
    options = [part for key, value in assignments.items() for part in ("--set", f"{key}={value}")]
    try:
        run_bundle("export", form.name, str(folder), *options)
    except BundleError as error:
        message = str(error) if model is None else str(error).replace(str(model), model.name)
        raise _at_field(message, error.code, form) from error


def _at_field(message: str, code: str, form: JobForm) -> BundleError:
    """The error of `bundle export`, which begins with the setting that it is about, at the field of the form."""
    where, _, rest = message.partition(": ")
    argument = where.removeprefix("--set ").partition("=")[0].rpartition(".")[2].rpartition(" ")[2]
    if argument == INITIAL_MODEL:
        return BundleError(rest, code=code, key="start_from")
    keys = [field.key for field in form.fields if field.key.rpartition(".")[2] == argument]
    return BundleError(rest, code=code, key=keys[0]) if len(keys) == 1 else BundleError(message, code=code)


def _write_meta(path: Path, sites: Sequence[str], launched: Mapping[str, Any]) -> None:
    meta = read_json(path)
    meta[CUSTOM_PROPS] = {**meta.get(CUSTOM_PROPS, {}), LAUNCHED: launched}
    if sites:
        meta["deploy_map"] = {app: [SERVER, *sites] for app in meta["deploy_map"]}
        meta["min_clients"] = len(sites)  # the user wants these, so the job waits for them
    path.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
