# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from custom.events import RoundEnded, of_kind
from custom.progress import MOST_BYTES, PACKED, STATS, append, pack, read, unpack
from dashboard.live import KEPT, LiveEvents, LiveJobs


def stats(run_dir: Path) -> dict[str, Any]:
    return {"server": {"ServerRunner": {"status": "started"}, STATS: {PACKED: pack(read(run_dir))}}}


def test_events_come_once_each_as_the_file_grows(tmp_path: Path) -> None:
    live = LiveEvents()
    append(tmp_path, "job_started", job="mnist")
    live.update(stats(tmp_path))
    first = live.events
    live.update(stats(tmp_path))
    assert live.events is first
    append(tmp_path, "round", round=1)
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"event": "round", "rou')  # being written
    live.update(stats(tmp_path))
    assert [event.event for event in live.events] == ["job_started", "round"]
    assert live.events[0] is first[0]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"server": {}},
        {"server": 3},
        {"server": {STATS: "none"}},
        {"server": {STATS: {PACKED: 3}}},
        {"server": {STATS: {PACKED: "not packed"}}},
        {"server": {STATS: {PACKED: pack(b"x" * 1000)[:12]}}},
        {"server": {STATS: {PACKED: pack(b"x" * (MOST_BYTES + 1))}}},
        {"server": {STATS: {PACKED: pack(b'no JSON\n[1]\n{"a": 1}\n{"event": 3}\n' * 10)}}},
    ],
)
def test_an_answer_without_progress_leaves_what_was_seen(tmp_path: Path, answer: Any) -> None:
    live = LiveEvents()
    append(tmp_path, "round", round=1)
    live.update(stats(tmp_path))
    live.update(answer)
    assert [event.round for event in of_kind(live.events, RoundEnded)] == [1]


def test_packed_progress_is_small_and_whole(tmp_path: Path) -> None:
    """200 rounds of 24 sites: as large as progress gets."""
    site = {
        "samples": 1000.0,
        "received": {"val_accuracy": 0.51234, "val_loss": 1.23456},
        "train": {"train_loss": 0.77},
    }
    for number in range(200):
        append(tmp_path, "round", round=number, sites={f"site-{index}": site for index in range(24)})
    packed = pack(read(tmp_path))
    assert unpack(packed) == (tmp_path / "progress.jsonl").read_bytes()
    assert len(packed) < 0.15 * (tmp_path / "progress.jsonl").stat().st_size
    json.dumps(packed)


def test_what_ended_long_ago_is_forgotten(tmp_path: Path) -> None:
    live = LiveJobs(None)  # type: ignore[arg-type]
    append(tmp_path, "round", round=1)
    names = [f"job-{index}" for index in range(KEPT + 3)]
    for name in names:
        live._jobs[name] = LiveEvents()
        live._jobs[name].update(stats(tmp_path))
    live.forget(running=names[:1], stored=names[:-1])
    assert list(live.events()) == [names[0], *names[3:-1]]
