# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The report as text and as a page."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bundle.live import Live
from bundle.report.html import to_html
from bundle.report.model import Report, Round
from bundle.report.reading import read_report
from bundle.report.text import to_text
from bundle.report.wording import human_bytes, human_seconds
from tests.bundle.conftest import build, job_events, typed


def many_sites(count: int) -> Report:
    sites = {f"site-{n}": {"val_accuracy": n / 100} for n in range(1, count + 1)}
    row = Round(sites=sites, aggregate={"val_accuracy": 0.25}, round=1, seconds=1.0, upload_bytes=10, download_bytes=10)
    cross = {"SRV_FL_global_model.pt": {site: {"test_accuracy": 0.5} for site in sites}}
    return Report(job="big", site_names=sorted(sites), num_rounds=1, rounds=[row], cross_site=cross, status="completed")


def test_the_table_has_a_line_a_round_and_a_column_a_site(workspace: Path) -> None:
    lines = to_text(read_report(workspace)).splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith("round "))
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[header : header + 4]] == [
        ["round", "all sites", "site-1", "site-2", "seconds", "up", "down"],
        ["start", "0.1500", "0.1000", "0.3000"],
        ["1/2", "0.5500", "0.5000", "0.7000", "1.5", "2.0 kB", "1.0 kB"],
        ["2/2 *", "0.7500", "0.8000", "0.6000", "1.5", "2.0 kB", "1.0 kB"],
    ]
    assert "* best: round 2, val_accuracy 0.7500" in lines
    assert "global, last round (also the best)  0.7000" in lines
    assert "status    completed" in lines


def test_what_was_left_out_is_shown_everywhere() -> None:
    """Sites with the same counts share a line; the live lines have it before the first round."""
    events = job_events()
    events[1]["left_out"] = {"site-1": {"<b>": 1200, "files": 3}, "site-2": {"<b>": 1200, "files": 3}}
    events[1]["data_notes"] = {"site-2": ["16-bit images"]}
    report = build(events)
    line = "site-1, site-2: <b>: 1,200; files: 3"
    assert f"left out of the data\n  {line}\nhow the data were read\n  site-2: 16-bit images" in to_text(report)
    page = to_html(report)
    assert "<p>site-1, site-2: &lt;b&gt;: 1,200; files: 3</p>" in page
    assert "<p>site-2: 16-bit images.</p>" in page
    out = io.StringIO()
    Live(out).show(typed(events[1]))
    assert out.getvalue().splitlines()[1].endswith(f"! left out of the data: {line}")
    assert "left out" not in to_text(build(job_events())) + to_html(build(job_events()))


def test_an_embedded_data_set_is_loud() -> None:
    events = job_events()
    events[1]["dataset"] = {"dataset": "digits", "embedded": True}
    report = build(events)
    assert to_text(report).startswith("!!! EMBEDDED DATA SET: these are results on digits")
    assert "EMBEDDED DATA SET" in to_html(report)
    assert "EMBEDDED" not in to_text(build(job_events()))


@pytest.mark.parametrize("embedded", [False, True])
def test_an_embedded_encoder_is_loud_whatever_the_data_set(embedded: bool) -> None:
    events = job_events()
    events[1]["dataset"] = {"dataset": "AG News", "embedded": embedded, "encoder_embedded": True}
    report = build(events)
    report.asked_for_embedded = set()
    told = " ".join(to_text(report).split())
    assert told.startswith("!!! EMBEDDED DATA SET: " if embedded else "!!! EMBEDDED ENCODER: ")
    encoder = "EMBEDDED ENCODER: these are results of a small BERT for trying things out, not pretrained. If the job"
    assert encoder in told
    assert encoder in to_html(report)
    assert ("EMBEDDED DATA SET" in told) is embedded
    assert report.to_json()["dataset"]["encoder_embedded"] is True


@pytest.mark.parametrize(
    ("facts", "end"),
    [
        ({"embedded": True}, "  (EMBEDDED data set, for trying things out)"),
        ({"encoder_embedded": True}, "  (EMBEDDED encoder, for trying things out)"),
        ({"embedded": True, "encoder_embedded": True}, "  (EMBEDDED data set and encoder, for trying things out)"),
        ({"embedded": False, "encoder_embedded": False}, ""),
    ],
)
def test_the_live_line_names_what_is_embedded(facts: dict[str, bool], end: str) -> None:
    out = io.StringIO()
    Live(out).show(typed(job_events()[1] | {"dataset": {"dataset": "AG News"} | facts}))
    assert out.getvalue().rstrip("\n").endswith(f"data: AG News, 400 training samples{end}")


@pytest.mark.parametrize(
    ("best_round", "best_scored", "names"),
    [
        (2, False, ["global, last round (also the best)"]),
        (1, False, ["global, last round"]),
        (2, True, ["global, last round", "global, best"]),
    ],
)
def test_a_best_model_that_was_not_scored_apart(best_round: int, best_scored: bool, names: list[str]) -> None:
    report = build(job_events())
    report.best = {"round": best_round, "metric": "val_accuracy", "value": 0.75}
    models = ["SRV_FL_global_model.pt", *(["SRV_best_FL_global_model.pt"] if best_scored else [])]
    report.cross_site = {model: {"site-1": {"test_accuracy": 0.5}} for model in models}
    for shown in (to_text(report), to_html(report)):
        assert [name for name in names if name in shown] == names
        assert ("also the best" in shown) is ("also the best" in names[0])


def test_fifty_sites_fit_in_120_columns() -> None:
    text = to_text(many_sites(50))
    assert max(len(line) for line in text.splitlines() if not line.startswith("sites")) <= 120
    assert "0.0100 site-1" in text
    assert "0.5000 site-50" in text
    assert to_html(many_sites(50)).count("<svg") == 3


def test_a_job_that_did_nothing_still_has_a_report() -> None:
    text = to_text(Report(errors=["ValueError: no"]))
    assert "no round was finished" in text
    assert "ValueError: no" in text
    assert "No round was finished" in to_html(Report())


class Resources(HTMLParser):
    """Collects what a browser would load, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loaded += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]


def test_the_page_is_one_file_with_curves_and_a_heat_map(workspace: Path) -> None:
    page = to_html(read_report(workspace))
    found = Resources()
    found.feed(page)
    assert found.loaded == []
    assert not re.search(r"url\((?!#)|@import", page)
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles == [
        "val_accuracy by round",
        "train_loss by round",
        "Bytes by round",
        "test_accuracy: models at sites",
    ]
    assert page.count("<svg") == 4
    assert "<td>0.5500</td>" in page


def test_what_a_site_sends_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    report = build(job_events())
    report.job, report.errors, report.models = evil, [evil], {"x": evil}
    report.cross_site = {evil: {evil: {evil: 0.5}}}
    report.rounds[0].sites[evil] = {evil: 0.5}
    report.rounds[0].aggregate['">' + evil] = 0.5
    found = Resources()
    found.feed(to_html(report))
    assert found.scripts == 0


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (496_048, "496 kB"),
        (1_310_000, "1.3 MB"),
        (99_960_000, "100 MB"),
        (999_950, "1.0 MB"),
        (5e12, "5000 GB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(3.14, "3.1 s"), (59, "59 s"), (125, "2 min 5 s"), (3780, "1 h 3 min")])
def test_seconds(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text
