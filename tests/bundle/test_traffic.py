# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Bytes beside those of dense exchange, in the report and in a sweep. The job of conftest, by hand:

round   site     up    dense up   down   dense down
1       site-1    400      4000    4000        4000
        site-2    500      4000    4000        4000
2       site-1    300      4000     100        4000
        site-2   4000      4000     900        4000   failed: what it sent was refused
all     site-1    700      8000    4100        8000
        site-2   4500      8000    4900        8000
sum              5200     16000    9000       16000   3.08x and 1.78x less
"""

from __future__ import annotations

import re

import pytest

from bundle.report.html import to_html
from bundle.report.model import BYTES, Report, Round
from bundle.report.text import to_text
from bundle.report.traffic import compared, notes, summary, table_rows
from bundle.report.wording import against_dense
from bundle.sweep_results import Result
from bundle.sweep_table import group, to_csv
from bundle.sweep_table import to_text as sweep_text
from tests.bundle.conftest import Event, build, job_events

LINE = "sent up 5.2 kB, 3.1x less than dense exchange (16.0 kB); down 9.0 kB, 1.8x less (16.0 kB)"
DENSE = {"dense_upload_bytes": 8000, "dense_download_bytes": 8000}


def site(up: int, down: int, dense: int = 4000) -> dict[str, int]:
    return dict(zip(BYTES, (up, down, dense, dense), strict=True))


def sparse_events() -> list[Event]:
    events = job_events()
    first, second = (event for event in events if event["event"] == "round")
    first |= {"upload_bytes": 900, "download_bytes": 8000, "uncounted": {}} | DENSE
    first["sites"]["site-1"] |= site(400, 4000)
    first["sites"]["site-2"] |= site(500, 4000)
    second |= {"upload_bytes": 4300, "download_bytes": 1000, "failed": {"site-2": "norm"}} | DENSE
    second["sites"]["site-1"] |= site(300, 100)
    del second["sites"]["site-2"]
    second["uncounted"] = {"site-2": site(4000, 900)}
    return events


def many(sites: int, rounds: int) -> Report:
    """Site n sends n bytes a round, where dense exchange sends 100."""
    counts = {f"site-{n}": site(n, n, 100) for n in range(1, sites + 1)}
    total = {name: sum(count[name] for count in counts.values()) for name in BYTES}
    return Report(rounds=[Round(round=n, num_rounds=rounds, site_bytes=counts, **total) for n in range(1, rounds + 1)])


def cells(text: str) -> list[list[str]]:
    """The rows below the title of the table, up to its last line."""
    lines = text.partition("bytes by round and site")[2].splitlines()[1:]
    return [re.split(r"\s{2,}", line.strip()) for line in lines[: lines.index(f"  {LINE}")]]


def test_the_table_and_the_line_below_it() -> None:
    assert cells(to_text(build(sparse_events()))) == [
        ["round", "site", "up", "dense up", "down", "dense down"],
        ["1/2", "site-1", "400 B", "4.0 kB", "4.0 kB", "4.0 kB"],
        ["site-2", "500 B", "4.0 kB", "4.0 kB", "4.0 kB"],
        ["2/2", "site-1", "300 B", "4.0 kB", "100 B", "4.0 kB"],
        ["site-2 failed", "4.0 kB", "4.0 kB", "900 B", "4.0 kB"],
        ["all", "site-1", "700 B", "8.0 kB", "4.1 kB", "8.0 kB"],
        ["site-2", "4.5 kB", "8.0 kB", "4.9 kB", "8.0 kB"],
        ["all sites", "5.2 kB", "16.0 kB", "9.0 kB", "16.0 kB"],
    ]


def test_the_page_and_the_json() -> None:
    report = build(sparse_events())
    page = to_html(report)
    assert f"<p>{LINE}</p>" in page
    assert '<td class="failed">site-2 failed</td><td>4.0 kB</td>' in page
    assert "5.2 kB up, 9.0 kB down; 32.0 kB in dense exchange" in page
    second = report.to_json()["rounds"][1]
    assert [second[name] for name in BYTES] == [4300, 1000, 8000, 8000]
    assert second["site_bytes"] == {"site-1": site(300, 100), "site-2": site(4000, 900)}
    assert second["sites"].keys() == {"site-1", "site-2"}  # scored by the closing validation
    assert second["sites"]["site-1"] == {"val_accuracy": 0.8, "train_loss": 1.0}


def test_a_way_that_is_dense_has_no_second_column() -> None:
    events = sparse_events()
    for event in events:
        if event["event"] == "round":
            event["download_bytes"] = event["dense_download_bytes"] + 80  # 1 % more
    report = build(events)
    assert table_rows(report, 24)[0] == ["round", "site", "up", "dense up", "down"]
    assert summary(report).endswith("; down 16.2 kB, the same")


@pytest.mark.parametrize("change", [0, 40, -40])
def test_where_all_is_dense_nothing_is_added(change: int) -> None:
    """A job whose traffic is within 1 % of dense exchange looks as one of an earlier version, which has no figures."""
    events = job_events()
    for event in events:
        if event["event"] == "round":
            event |= {"upload_bytes": 4000 + change, "download_bytes": 4000}
    before = build(events)
    assert not compared(before)
    for event in events:
        if event["event"] == "round":
            event |= {"dense_upload_bytes": 4000, "dense_download_bytes": 4000, "uncounted": {}}
            for facts in event["sites"].values():
                facts |= site(2000, 2000, 2000)
    after = build(events)
    assert after.rounds[0].site_bytes["site-1"] == site(2000, 2000, 2000)
    assert to_text(after) == to_text(before)
    assert to_html(after) == to_html(before)


def test_a_file_of_an_earlier_version_has_no_dense_figures() -> None:
    report = build(job_events())
    first = report.to_json()["rounds"][0]
    assert (first["upload_bytes"], first["dense_upload_bytes"], first["site_bytes"]) == (2000, None, {})
    assert not compared(report)
    mixed = sparse_events()
    del mixed[2]["dense_upload_bytes"], mixed[2]["dense_download_bytes"]
    assert not compared(build(mixed))  # half of the rounds would compare with all of them


def test_of_many_rounds_and_sites_only_some_are_shown() -> None:
    report = many(sites=3, rounds=20)
    rows = table_rows(report, most_rows=24)
    shown = [f"{number}/20" for number in (1, 4, 6, 9, 12, 15, 17, 20)]  # 8 rounds of 3 sites are 24 rows
    assert [row[0] for row in rows if row[0]] == ["round", *shown, "all"]
    assert notes(report, 24) == ["12 of 20 rounds are left out here; --json has them all"]
    report = many(sites=50, rounds=2)
    assert table_rows(report, 24)[1:3] == [
        ["1/2", "site-1", "1 B", "100 B", "1 B", "100 B"],
        ["", "site-50", "50 B", "100 B", "50 B", "100 B"],
    ]
    assert table_rows(report, 24)[-1] == ["", "all sites", "2.5 kB", "10.0 kB", "2.5 kB", "10.0 kB"]
    assert notes(report, 24) == ["of 50 sites, those with the fewest and with the most bytes"]


@pytest.mark.parametrize(
    ("sent", "dense", "text"),
    [
        (12, 954, "79.5x less"),
        (990, 1000, "the same"),
        (1010, 1000, "the same"),
        (980, 1000, "1.02x less"),
        (1500, 1000, "1.5x as much"),
        (0, 1000, "100 % less"),
        (0, 0, "the same"),
        (1000, 0, ""),
        (1000, None, ""),
    ],
)
def test_how_many_times_less(sent: int, dense: int | None, text: str) -> None:
    assert against_dense(sent, dense) == text


def test_a_sweep_compares_what_differs() -> None:
    metrics = {"val_accuracy": {"best": 0.5, "final": 0.5}}
    results = [
        Result({"k": k}, "", "completed", "", metrics, "val_accuracy", up, 1000, 5.0, "", "", dense, dense)
        for k, up, dense in ((0.1, 125, 1000), (1.0, 1000, 1000), (0.5, 500, None))
    ]
    results.append(Result({"k": 9}, status="failed"))
    lines = [re.split(r"\s{2,}", line.strip()) for line in sweep_text(group(results), "val_accuracy").splitlines()[:5]]
    assert [line[4:] for line in lines] == [
        ["up", "vs dense", "down", "time"],
        ["125 B", "8.0x less", "1.0 kB", "5.0 s"],
        ["1.0 kB", "the same", "1.0 kB", "5.0 s"],
        ["500 B", "-", "1.0 kB", "5.0 s"],
        ["-", "-", "-", "-"],
    ]
    header, first, *_ = to_csv(group(results), "val_accuracy").splitlines()
    assert header.split(",")[4:8] == list(BYTES)
    assert first.split(",")[4:8] == ["125", "1000", "1000", "1000"]


def test_a_point_of_a_sweep_takes_the_figures_of_its_report() -> None:
    result = Result({"k": 1})
    result.fill(build(sparse_events()))
    assert [getattr(result, name) for name in BYTES] == [5200, 9000, 16000, 16000]
    result.fill(build(job_events()))
    assert (result.upload_bytes, result.dense_upload_bytes) == (4000, None)
