# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Lines of progress.jsonl that are forged, foreign or damaged: skipped and counted, in all that reads them."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bundle.events
import custom.events
from bundle.events import Follower, read_events
from bundle.live import Live
from bundle.report.html import to_html
from bundle.report.reading import build, read_report
from bundle.report.text import to_text
from custom import progress
from custom.errors import BundleError
from custom.events import KINDS, NotUnderstood, RoundEnded, SiteRound, of_kind, parse, parse_lines, unread
from custom.printable import printable
from tests.bundle.conftest import job_events, write_run
from tests.bundle.fine_tuned import events as fine_tuned_events
from tests.bundle.perfedavg import writers_events

WRONG = [None, True, -1, 1.5, 10**400, 1e308, float("nan"), float("-inf"), "x", "", [], [1], {}, {"a": 1}, [[]]]
WRONG += [{"site-1": []}, {"site-1": None}, {"site-1": {"received": 3}}, {"site-1": {"test_accuracy": "x"}}, "9" * 5000]


def all_events() -> list[dict[str, Any]]:
    """Each kind of event, with each of its fields."""
    more: list[dict[str, Any]] = [
        {"event": "continued", "job_id": "a", "workflow": "rounds", "round": 2, "rounds": {"rounds": 2}},
        {"event": "site_error", "site": "site-2", "task": "train", "reason": "slow"},
        {"event": "warning", "reason": "w"},
        {"event": "workflow_started", "workflow": "rounds"},
    ]
    tuned = next(event for event in fine_tuned_events() if event["event"] == "fine_tuned")
    return [*more, *copy.deepcopy([*job_events(), tuned, *writers_events()]), {"event": "fatal", "reason": "f"}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON value lie, itself left out."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def replaced(events: list[dict[str, Any]], path: tuple[Any, ...], new: Any) -> list[Any]:
    events = copy.deepcopy(events)
    holder: Any = events
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = new
    return events


def test_the_events_of_this_test_are_of_all_kinds_and_understood() -> None:
    lines = [json.dumps(event).encode() for event in all_events()]
    assert not of_kind([parse(line) for line in lines], NotUnderstood)
    assert {json.loads(line)["event"] for line in lines} == set(KINDS)


def test_a_value_of_another_type_anywhere_is_skipped_or_of_no_account(tmp_path: Path) -> None:
    """Tries 120 of some 400 places, each with one wrong value: no reader raises, and strict parsers take the JSON."""
    events, rng = all_events(), random.Random(0)
    found = [path for path in places(events) if len(path) > 1]
    for path in rng.sample(found, 120):
        forged = replaced(events, path, rng.choice(WRONG))
        typed = [parse(json.dumps(event).encode(), line) for line, event in enumerate(forged, 1)]
        skipped = of_kind(typed, NotUnderstood)
        assert len(skipped) <= 1, path
        assert not skipped or skipped[0].line == path[0] + 1
        live = Live(io.StringIO())
        for event in typed:
            live.show(event)
        report = build(typed)
        assert len([w for w in report.warnings if "progress.jsonl" in w]) == len(skipped)
        to_text(report)
        json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("path", "wrong", "where"),
    [
        (("sites", "site-1", "received", "val_accuracy"), "0.9", "round.sites.site-1.received.val_accuracy"),
        (("sites", "site-1", "samples"), float("nan"), "round.sites.site-1.samples"),
        (("round",), -1, "round.round"),
        (("round",), 10**30, "round.round"),
        (("seconds",), float("inf"), "round.seconds"),
        (("failed",), {"site-1": ["slow"]}, "round.failed.site-1"),
        (("time",), True, "round.time"),
    ],
)
def test_the_report_says_which_value(tmp_path: Path, path: tuple[str, ...], wrong: Any, where: str) -> None:
    events = replaced(job_events(), (3, *path), wrong)
    report = read_report(write_run(tmp_path, events))
    (line,) = [warning for warning in report.warnings if "progress.jsonl" in warning]
    assert line.startswith("1 line of progress.jsonl was not understood: line 4 (")
    assert f"({where}: " in line if path != ("time",) else "(time: " in line
    assert [row.round for row in report.rounds] == [1]
    assert report.status == "incomplete"
    for shown in (to_text(report).replace("\n    ", " "), to_html(report), json.dumps(report.to_json())):
        assert "was not understood: line 4 (" in shown


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda content: content, []),
        (lambda content: content.replace(b"\n", b"\r\n"), []),
        (lambda content: b"\xef\xbb\xbf" + content, []),
        (lambda content: content + b"\n\n", []),
        (lambda content: content[:-20], []),  # of a job that runs: the last line is being written
        (lambda content: content.replace(b'"round": 1,', b'"round": 7, "round": 1,'), []),  # as JSON parsers do
        (lambda content: b"[" * 100_000 + b"\n" + content, [1]),
        (lambda content: b'{"event": "round", "round": ' + b"9" * 5000 + b"}\n" + content, [1]),
        (lambda content: content + b"\xff\xfe\n\x00\n", [12, 13]),
        (lambda content: b"\n" + content.decode().encode("utf-16"), None),
        (lambda content: b"", []),
        (lambda content: b"\x00" * 5000 + b"\n", None),
        (lambda content: b"PK\x03\x04\nmore\n", None),
    ],
    ids="as-is CRLF BOM blanks cut key-twice nested huge-number binary UTF-16 empty zeros zip".split(),  # noqa: SIM905
)
def test_foreign_bytes(tmp_path: Path, change: Callable[[bytes], bytes], lines: list[int] | None) -> None:
    run = write_run(tmp_path, job_events())
    path = run / progress.FILE_NAME
    path.write_bytes(change(path.read_bytes()))
    if lines is None:
        with pytest.raises(BundleError) as caught:
            read_report(run)
        assert caught.value.code == "result-damaged"
        return
    read_report(run)
    assert [event.line for event in of_kind(read_events(path), NotUnderstood)] == lines


def test_a_line_without_end_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (custom.events, bundle.events):
        monkeypatch.setattr(module, "LONGEST_LINE", 100)
    path = tmp_path / progress.FILE_NAME
    follower = Follower(path)
    with path.open("wb", buffering=0) as file:
        file.write(b'{"event": "a"}\n' + b"x" * 250)
        assert [event.event for event in follower.poll()] == ["a", "not_understood"]
        file.write(b"x" * 400)
        assert follower.poll() == []
        file.write(b'x\n{"event": "b"}\n')
        assert [event.event for event in follower.poll()] == ["b"]
    assert [getattr(event, "line", event.event) for event in read_events(path)] == ["a", 2, "b"]


def test_many_lines_are_counted_and_a_few_named() -> None:
    text = unread(parse_lines(b"x\x1b[2J\n" * 9), "f")
    assert text.startswith("9 lines of f were not understood: line 1 (")
    assert text.endswith("and 4 more")
    assert "line 5 (" in text
    assert "line 6 (" not in text
    assert "\x1b" not in unread(parse_lines(b'{"event": "round", "round": 1, "sites": {"\\u001b[2J": 3}}'), "f")


def test_what_a_later_version_adds_is_no_fault() -> None:
    line = b'{"event": "round", "round": 1, "colour": "red", "sites": {"a": {"samples": 3, "mood": []}}}'
    (known,) = parse_lines(line)
    assert isinstance(known, RoundEnded)
    assert known.sites == {"a": SiteRound(samples=3.0)}
    (unknown,) = parse_lines(b'{"event": "outliers", "site": ["a"]}')
    assert (unknown.event, isinstance(unknown, NotUnderstood)) == ("outliers", False)


@pytest.mark.parametrize("text", ["\ud800", "\u2028", "\x00\x1b", "é" * 100, "\n", "\r"])
def test_any_text_of_a_site_is_written_so_that_it_is_read_in_printable_letters(tmp_path: Path, text: str) -> None:
    progress.append(tmp_path, "site_error", site="site-1", task="train", reason=text)
    (event,) = read_events(tmp_path / progress.FILE_NAME)
    assert isinstance(event, custom.events.SiteError)
    assert event.reason == printable(text)


def test_a_number_that_no_metric_has_is_left_out_of_tables_and_charts(tmp_path: Path) -> None:
    run = write_run(tmp_path, replaced(job_events(), (3, "sites", "site-1", "received", "val_accuracy"), 1e308))
    (run / "cross_site_val").mkdir()
    matrix = {"site-1": {"SRV_FL_global_model.pt": {"test_accuracy": 1e308, "test_loss": 0.5}}}
    (run / "cross_site_val" / "cross_val_results.json").write_text(json.dumps(matrix))
    report = read_report(run)
    assert (report.status, report.rounds[0].sites["site-1"]) == ("completed", {"train_loss": 2.0})
    assert report.cross_site["SRV_FL_global_model.pt"] == {"site-1": {"test_loss": 0.5}}
    assert "<svg" in to_html(report)
    json.dumps(report.to_json(), allow_nan=False)
