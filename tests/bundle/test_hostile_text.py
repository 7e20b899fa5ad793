# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Every text of a job's files, made hostile one after the other: what is printed stays printable, short and ours."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from bundle.live import Live
from bundle.report.causes import first_cause
from bundle.report.html import to_html
from bundle.report.locate import Run
from bundle.report.model import Report
from bundle.report.reading import read_report, read_run
from bundle.report.text import to_text
from tests.bundle.conftest import Event, build, job_events, typed, write_run
from tests.bundle.fine_tuned import SUMMARY as FINE_TUNED
from tests.bundle.fine_tuned import events as fine_tuned_events
from tests.bundle.perfedavg import SUMMARY as PERSONALIZED
from tests.bundle.perfedavg import writers_events
from tests.hostile import EVIL, LONG, READABLE, fit, poisoned

CLEARS_LINE = "\r\x1b[K"  # of our own, on a terminal
MORE: list[Event] = [
    {"event": "continued", "job_id": "a", "workflow": "rounds", "round": 1, "rounds": {"rounds": 1}},
    {"event": "site_error", "site": "site-1", "task": "train", "reason": "no disk"},
    {"event": "workflow_started", "workflow": "rounds"},
    {"event": "warning", "reason": "odd"},
    {"event": "fatal", "reason": "too few sites"},
    {"event": "best", "round": 2, "metric": "val_accuracy", "value": 0.7, "rule": "trimmed mean of the sites"},
]
TOLD = {"left_out": {"site-1": {"files": 3}}, "data_notes": {"site-1": ["read so"]}}
JOBS: dict[str, list[Event]] = {
    "small": [event | (TOLD if event["event"] == "initialized" else {}) for event in job_events()] + MORE,
    "fine-tuned": fine_tuned_events(failed={"site-9": "no data"}),
    "writers": writers_events(failed={"site-9": "no data"}),
}
# Of results, which the server makes; the names of sites and metrics are the sites'.
OWN_KEYS = {*FINE_TUNED, *PERSONALIZED, "summary", "mean", "std", "accuracy", "loss", "p10", "p90", "standard_error"}
KINDS = {name: sorted({event["event"] for event in events}) for name, events in JOBS.items()}


def shown(report: Report, events: list[Event]) -> list[str]:
    """All that a reader gets to see."""
    out = io.StringIO()
    live = Live(out)
    for event in events:
        live.show(typed(event))
    return [to_text(report), json.dumps(report.to_json(), allow_nan=False), out.getvalue()]


@pytest.mark.parametrize(("job", "kind"), [(job, kind) for job, kinds in KINDS.items() for kind in kinds])
def test_no_text_of_an_event_gets_out_as_it_came(job: str, kind: str) -> None:
    events = JOBS[job]
    place = next(index for index, event in enumerate(events) if event["event"] == kind)
    tried = 0
    for bad in poisoned(events[place], EVIL, OWN_KEYS):
        if bad.get("event") != kind:
            continue
        changed = [*events[:place], bad, *events[place + 1 :]]
        for text in shown(build(changed), changed):
            assert fit(text.replace(CLEARS_LINE, "")), (bad, text)
        tried += 1
    assert tried


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """A downloaded job all of whose texts are hostile."""

    def worst(value: Any, keep: bool = False) -> Any:
        if isinstance(value, dict):
            return {key: worst(entry, key == "event") for key, entry in value.items()}
        if isinstance(value, list):
            return [worst(entry) for entry in value]
        return EVIL + value if isinstance(value, str) and not keep else value

    folder = write_run(tmp_path / "workspace", [worst(event) for event in [*JOBS["small"], *MORE]], EVIL)
    (folder / "cross_site_val").mkdir()
    results = {EVIL: {EVIL: {EVIL: 0.5, "huge": 1e308, "digits": 10**400, "loss": float("nan")}}}
    (folder / "cross_site_val" / "cross_val_results.json").write_text(json.dumps(results))
    log = f"2026-01-01 10:00:00,000 - x - ERROR - {EVIL}\nTraceback (most recent call last):\nValueError: {EVIL}\n"
    (folder / "log.txt").write_bytes(log.encode("utf-8", "surrogatepass"))
    return tmp_path


def test_a_forged_job_is_shown_without_its_codes(forged: Path) -> None:
    report = read_report(forged)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = to_html(report)
    for text in (to_text(report), page, json.dumps(report.to_json(), allow_nan=False, ensure_ascii=False)):
        assert fit(text, 10**6)
    assert first_cause(Run("job", forged / "workspace"), []).isprintable()


def test_a_name_of_a_megabyte_is_cut(tmp_path: Path) -> None:
    events = job_events()
    events[1]["dataset"]["dataset"] = LONG
    events[0]["job"] = LONG
    run = Run("job", write_run(tmp_path / "run", events))
    report = read_run(run)
    assert len(to_text(report)) < 20_000
    assert len(json.dumps(report.to_json())) < 30_000


def test_names_of_any_language_stay_readable(tmp_path: Path) -> None:
    events = job_events()
    events[0]["job"] = events[1]["dataset"]["dataset"] = READABLE
    events[3]["sites"]["site-1"]["received"] |= {READABLE: 0.5, r"$\frac{": 0.5, "long" * 25: 0.5}
    report = read_run(Run("job", write_run(tmp_path / "run", events)))
    assert to_text(report).count(READABLE) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = to_html(report)
    assert READABLE in page
    assert r"$\frac{" in page


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e308", "-1e308", "1e999", "1" + "0" * 400]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("job", JOBS)
def test_the_json_of_a_report_is_json_whatever_number_a_file_holds(tmp_path: Path, job: str, number: str) -> None:
    """Such a line is none of ours: the report says that it is not whole, and tables keep their width."""
    lines = [json.dumps(event) for event in JOBS[job]]
    places = [index for index, event in enumerate(JOBS[job]) if event["event"] in ("round", "validation", "best")]
    places += [index for index, event in enumerate(JOBS[job]) if event["event"] in ("fine_tuned", "personalized")]
    for place in places:
        changed = list(lines)
        key = next(k for k in ("val_accuracy", "train_loss", "mean", "value") if f'"{k}": ' in lines[place])
        before, _, after = lines[place].partition(f'"{key}": ')
        changed[place] = f'{before}"{key}": {number}{after[after.index(next(c for c in after if c in ",}")) :]}'
        folder = tmp_path / str(place)
        write_run(folder, []).joinpath("progress.jsonl").write_text("\n".join(changed) + "\n")
        report = read_run(Run("job", folder))
        json.dumps(report.to_json(), allow_nan=False)
        assert report.status != "completed"
        assert fit(to_text(report), 2000)


def test_a_number_as_large_as_float32_takes_no_more_room_than_others() -> None:
    events = job_events()
    events[3]["sites"]["site-1"]["received"]["val_loss"] = 3e38
    report = build(events)
    assert max(map(len, to_text(report).splitlines())) < 120
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_html(report)


def test_what_is_no_number_of_json_is_null() -> None:
    report = build(job_events())
    report.rounds[0].aggregate["val_accuracy"] = float("inf")
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert content["rounds"][0]["aggregate"]["val_accuracy"] is None
