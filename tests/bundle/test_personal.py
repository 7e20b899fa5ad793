# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Personal models in the report; the numbers are worked out in fine_tuned.py."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from bundle.live import Live
from bundle.report.before_after import before_after
from bundle.report.html import to_html
from bundle.report.model import Report
from bundle.report.personal import METRIC, elsewhere, table_rows
from bundle.report.reading import read_report
from bundle.report.text import to_text
from tests.bundle.conftest import Event, build, job_events, typed, write_run
from tests.bundle.fine_tuned import SCORES, SUMMARY, events, fine_tuned, matrix, shared, without_site_2


def cells(rows: list[str]) -> list[list[str]]:
    return [re.split(r"\s{2,}", row.strip()) for row in rows]


def test_the_json_has_the_object_of_fine_tune_json() -> None:
    expected = {name: value for name, value in fine_tuned().items() if name not in ("event", "time")}
    assert build(events()).to_json()["personalization"] == expected
    assert build(job_events()).to_json()["personalization"] is None


def test_the_table_has_a_row_a_site_and_what_they_come_to() -> None:
    lines = to_text(build(events())).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("personal models: "))
    assert lines[first].endswith("fine-tuned from the best global model of 2 rounds")
    assert cells(lines[first + 1 : first + 9]) == [
        ["site", "local only", "global", "personal", "gain (points)", "best epoch", "samples"],
        ["site-1", "0.5000", "0.6000", "0.7000", "+10.0", "3 of 6", "1000"],
        ["site-2", "0.8000", "0.5000", "0.9000", "+40.0", "3 of 6", "3000"],
        ["site-3", "0.6000", "0.8000", "0.7500", "-5.0", "3 of 6", "1000"],
        ["all sites", "0.7000", "0.5800", "0.8300", "+25.0", "5000"],
        ["+- over sites", "0.1528", "0.1528", "0.1041", "22.9"],
        ["worst site", "0.5000", "0.5000", "0.7000", "-5.0"],
        ["site-1", "site-2", "site-1", "site-3"],
    ]
    harmed = "33 % (1 of 3 sites) on test, by more than a point; 0 % (0 of 3) on validation"
    assert lines[first + 9].strip() == f"harmed by personalising: {harmed}"
    assert "on the other sites' data" not in "\n".join(lines)


def test_local_only_training_is_a_column_only_where_there_is_some() -> None:
    event = fine_tuned()
    for row in event["sites"].values():
        del row["local_only"]
    summary = {kind: value for kind, value in SUMMARY.items() if kind != "local_only"}
    rows = table_rows(build([event | {"summary": summary}]).personalization or {})
    assert rows[0] == ["site", "global", "personal", "gain (points)", "best epoch", "samples"]
    event["sites"]["site-1"]["local_only"] = {METRIC: 0.5}
    rows = table_rows(build([event | {"summary": summary}]).personalization or {})
    assert [row[1] for row in rows[1:5]] == ["0.5000", "-", "-", "-"]


def test_forgetting_is_measured_on_the_other_sites() -> None:
    """Personal: (300*.4 + 100*.3) + (100*.2 + 100*.5) + (100*.6 + 300*.5) = 430, of 1000 samples scored."""
    report = shared()
    found = elsewhere(report)["elsewhere"]
    assert found == pytest.approx({"personal": 0.43, "global": 0.58})
    assert elsewhere(shared(start_from="final"))["elsewhere"] == pytest.approx({"personal": 0.43, "global": 0.1})
    assert report.personalization is not None
    report.personalization |= elsewhere(report)
    assert "on the other sites' data: personal 43.0 %, global 58.0 % (-15.0 points)" in to_text(report)


def test_both_models_are_compared_on_the_same_pairs() -> None:
    """Without the model of site-2 and without the score of site-1's at site-3: (300*.4 + 100*.6 + 300*.5) / 700."""
    report = shared()
    report.cross_site = matrix(**{"site-1": {"site-1": 0.7, "site-2": 0.4}})
    del report.cross_site["site-2"]
    expected = {"personal": 330 / 700, "global": (150 + 60 + 150) / 700}
    assert elsewhere(report)["elsewhere"] == pytest.approx(expected)


def test_a_model_of_a_site_that_failed_is_not_of_this_job() -> None:
    """Models of sites 1 and 3, scored at site-2 (50 samples) too: (50*.4 + 100*.3 + 100*.6 + 50*.5) / 300."""
    report = build(without_site_2(failed={"site-2": "no"}))
    report.cross_site, report.samples = matrix(), {"site-2": {"test": 50}}
    assert elsewhere(report)["elsewhere"]["personal"] == pytest.approx(135 / 300)


def test_without_sharing_there_is_nothing_elsewhere() -> None:
    report = shared()
    report.cross_site = {model: row for model, row in matrix().items() if model.startswith("SRV_")}
    assert elsewhere(report) == {}
    assert elsewhere(Report()) == {}


@pytest.mark.parametrize(
    ("site_error", "errors"),
    [
        ([], ["site-2 at fine_tune: no test split"]),
        ([{"event": "site_error", "site": "site-2", "task": "fine_tune", "reason": "no test split"}], None),
    ],
)
def test_a_site_that_failed_at_fine_tune_is_missing(site_error: list[Event], errors: list[str] | None) -> None:
    report = build([*site_error, *without_site_2(failed={"site-2": "no test split"})])
    assert report.errors == (errors or ["site-2 at fine_tune: no test split"])
    assert report.status == "completed without site-2"
    text = to_text(report)
    assert "site-2 has no personal model: no test split" in text
    assert re.search(r"^site-2 failed +-  ", text, re.MULTILINE)
    assert '<td class="failed">site-2 failed</td>' in to_html(report)


def test_a_site_that_failed_at_scoring_only_or_came_back_is_not_missing() -> None:
    scoring = {"event": "site_error", "site": "site-2", "task": "validate", "reason": "slow"}
    report = build([*events(), scoring])
    assert (report.status, report.errors) == ("completed", ["site-2 at validate: slow"])
    found = events()
    found[2]["failed"] = {"site-2": "slow"}
    assert build(found).status == "completed"


def test_when_every_site_failed_the_reasons_are_left() -> None:
    failed = {"site-1": "<b>", "site-2": "b"}
    report = build([*events(sites={}, summary={}, failed=failed), {"event": "fatal", "reason": "too few"}])
    assert report.status == "failed"
    assert "site-1 has no personal model: <b>" in to_text(report)
    assert "site-1 has no personal model: &lt;b&gt;" in to_html(report)


def test_a_workspace_shows_forgetting_and_where_the_personal_models_lie(tmp_path: Path) -> None:
    run = write_run(tmp_path / "server" / "simulate_job", without_site_2(failed={"site-2": "no"}))
    (run / "cross_site_val").mkdir()
    by_site = {site: {model: row[site] for model, row in matrix().items()} for site in SCORES}
    (run / "cross_site_val" / "cross_val_results.json").write_text(json.dumps(by_site))
    for site in ("site-1", "site-2"):  # that of site-2 is of an earlier job
        (tmp_path / site / "personal_models" / "small").mkdir(parents=True)
        (tmp_path / site / "personal_models" / "small" / "personal_model.pt").touch()
    report = read_report(tmp_path)
    path = tmp_path / "site-1" / "personal_models" / "small" / "personal_model.pt"
    assert report.models == {"personal model of site-1": str(path)}
    assert report.to_json()["personalization"]["elsewhere"].keys() == {"personal", "global"}
    assert "site-1, personal    0.7000  0.4000  0.3000" in to_text(report)


@pytest.mark.parametrize("count", [1, 3, 30])
def test_the_plot_has_a_row_a_site(count: int) -> None:
    rows = {f"site_{n} $a$ <b>": fine_tuned()["sites"]["site-1"] for n in range(count)}
    report = build(events(sites=rows))
    assert report.personalization is not None
    svg = before_after(report.personalization)
    assert len(re.findall(r"site_\d+ \$a\$ &lt;b&gt;</text>", svg)) == count
    assert all(f">{label}</text>" in svg for label in ("local only", "global", "personal", METRIC))
    assert svg in to_html(report)


def test_a_site_is_followed_live() -> None:
    out = io.StringIO()
    live = Live(out)
    live.show(typed({"event": "workflow_started", "workflow": "fine_tune"}))
    live.show(typed(fine_tuned(failed={"site-4": "slow"})))
    live.show(typed(fine_tuned(sites={}, summary={})))
    phase, line, none = (line.partition(" s  ")[2] for line in out.getvalue().splitlines())
    assert phase == "fine_tune: every site makes the global model its own"
    assert line == "personal models of 3 sites: test_accuracy 0.580 -> 0.830 (+25.0 points)  site-4 FAILED"
    assert none == "personal models of 0 sites"
