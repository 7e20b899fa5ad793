# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What is saved at a round's end, what comes of it in a continuation, and what stays where it cannot be saved."""

from __future__ import annotations

import json
import logging
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.widgets.intime_model_selector import IntimeModelSelector

from custom import checkpoint
from custom.aggregators.server_optimizer import ServerAdam, ServerSGD
from custom.aggregators.sparse import SparseAggregator
from custom.errors import BundleError
from custom.keys import ROUNDS_BEFORE
from custom.learning.weights import load_weights
from custom.widgets.save_checkpoint import SaveCheckpoint
from tests.support import Engine, arrays

CONTINUED = "continued.pt"


def make_engine(root: Path, optimizer: Any = None, continue_from: str = "") -> Engine:
    parts = {
        "optimizer": optimizer or ServerSGD(0.5, 0.9),
        "aggregator": SparseAggregator(),
        "selector": IntimeModelSelector(key_metric="val_accuracy"),
        "checkpoint": SaveCheckpoint(continue_from),
    }
    engine = Engine(root, parts, ["site-1"])
    config = Path(engine.workspace.get_app_config_dir("job"))
    config.mkdir(parents=True, exist_ok=True)
    entries = [{"id": name, "path": f"{type(part).__module__}.x"} for name, part in parts.items()]
    (config / "config_fed_server.json").write_text(json.dumps({"components": entries, "workflows": []}))
    fire(engine, EventType.START_RUN)
    fire(engine, EventType.START_WORKFLOW, **{FLContextKey.WORKFLOW: "sag"})
    return engine


def fire(engine: Engine, event: str, **props: Any) -> None:
    with engine.new_context() as fl_ctx:
        for key, value in props.items():
            fl_ctx.set_prop(key, value, private=True, sticky=True)
        engine.fire_event(event, fl_ctx)


def one_round(engine: Engine, number: int, mean: float, num_rounds: int = 4) -> float:
    """Round `number`, counted from 0, of a model of one weight; what the server's step makes of it."""
    with engine.new_context() as fl_ctx:
        if fl_ctx.get_prop(AppConstants.GLOBAL_MODEL) is None:
            start = make_model_learnable(arrays(w=[10.0]), {})
            fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, start, private=True, sticky=True)
        aggregate = DXO(DataKind.WEIGHT_DIFF, data=arrays(w=[mean])).to_shareable()
        model = engine.components["optimizer"].shareable_to_learnable(aggregate, fl_ctx)
    context = {AppConstants.CURRENT_ROUND: number, AppConstants.START_ROUND: 0, AppConstants.NUM_ROUNDS: num_rounds}
    fire(engine, AppEventType.ROUND_DONE, **context, **{AppConstants.GLOBAL_MODEL: model, FLContextKey.WORKFLOW: "sag"})
    return float(model[ModelLearnableKey.WEIGHTS]["w"][0])


def saved(engine: Engine) -> Path:
    return engine.run_dir / checkpoint.FILE_NAME


def test_one_file_holds_the_last_round_and_is_a_file_of_weights(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    seen = [one_round(engine, number, 1.0) for number in range(2)]
    assert seen == pytest.approx([10.5, 11.45])  # as in tests.aggregators.test_server_optimizer
    state = checkpoint.load(saved(engine))
    assert (state.job_id, state.workflow, state.round, state.num_rounds, state.rounds) == (
        "job",
        "sag",
        2,
        4,
        {"sag": 2},
    )
    assert load_weights(saved(engine))["w"] == pytest.approx(11.45)
    assert [path.name for path in engine.run_dir.iterdir() if "checkpoint" in path.name] == [checkpoint.FILE_NAME]


@pytest.mark.parametrize("make", [lambda: ServerSGD(0.5, 0.9), lambda: ServerAdam(0.1)])
def test_a_continuation_steps_as_the_job_would_have(tmp_path: Path, make: Any) -> None:
    """Momentum 0.9: 10.5, 11.45, then m = -1.71 - 0, so 12.305, by hand; Adam against itself."""
    means = (1.0, 1.0, 0.0, -0.5)
    whole = make_engine(tmp_path / "whole", make())
    expected = [one_round(whole, number, mean) for number, mean in enumerate(means)]

    early = make_engine(tmp_path / "early", make())
    for number in range(2):
        one_round(early, number, means[number])
    (tmp_path / "late").mkdir()
    saved(early).rename(tmp_path / "late" / CONTINUED)
    late = make_engine(tmp_path / "late", make(), CONTINUED)
    start = make_model_learnable(load_weights(tmp_path / "late" / CONTINUED), {})
    fire(late, "test.initialized", **{AppConstants.GLOBAL_MODEL: start})
    assert [one_round(late, number, means[number]) for number in (2, 3)] == expected[2:]
    if isinstance(make(), ServerSGD):
        assert expected[2] == pytest.approx(12.305)
    assert checkpoint.load(saved(late)).rounds == {"sag": 4}


def test_the_best_score_what_was_taken_and_the_rounds_go_on(tmp_path: Path) -> None:
    early = make_engine(tmp_path / "early")
    early.components["selector"].best_val_metric = np.float64(0.75)
    early.components["selector"].best_raw_val_metric = np.float64(0.75)
    early.components["aggregator"]._taken = {("sag", "site-1"): 1}
    best = {"best_round": 1, "best_metrics": {"val_accuracy": np.float64(0.75)}}
    fire(early, AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, **{AppConstants.METRICS_SELECTION_INFO: best})
    one_round(early, 0, 1.0)
    one_round(early, 1, 1.0)
    (tmp_path / "late").mkdir()
    saved(early).rename(tmp_path / "late" / CONTINUED)

    late = make_engine(tmp_path / "late", continue_from=CONTINUED)
    assert late.panic() == ""
    assert late.components["selector"].best_val_metric == 0.75
    assert late.components["aggregator"]._taken == {("sag", "site-1"): 1}
    with late.new_context() as fl_ctx:
        assert fl_ctx.get_prop(AppConstants.CURRENT_ROUND) == 1
        assert fl_ctx.get_prop(ROUNDS_BEFORE) == {"sag": 2}
    events = [json.loads(line) for line in (late.run_dir / "progress.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in event.items() if name != "time"} for event in events]
    assert kept == [
        {"event": "continued", "job_id": "job", "workflow": "sag", "round": 2, "rounds": {"sag": 2}},
        {"event": "best", "round": 1, "metric": "val_accuracy", "value": 0.75},
    ]


@pytest.mark.parametrize("content", [None, b"", b"cut short", "other"])
def test_a_checkpoint_that_is_missing_or_cut_short_ends_the_job_before_any_workflow(
    tmp_path: Path, content: bytes | str | None
) -> None:
    if content == "other":
        torch.save({"model": {"w": torch.zeros(1)}}, tmp_path / CONTINUED)
    elif isinstance(content, bytes):
        (tmp_path / CONTINUED).write_bytes(content)
    engine = make_engine(tmp_path, continue_from=CONTINUED)
    assert CONTINUED in engine.panic()
    with pytest.raises(BundleError):
        checkpoint.load(tmp_path / CONTINUED)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_the_earlier_round_and_says_so(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = make_engine(small_disk)
    one_round(engine, 0, 1.0)
    before = saved(engine).read_bytes()
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1024))
        except OSError:
            pass
    with caplog.at_level(logging.WARNING):
        one_round(engine, 1, 1.0)
    assert "round 2 of sag could not be saved" in caplog.text
    assert saved(engine).read_bytes() == before
    assert checkpoint.load(saved(engine)).round == 1
    assert not list(engine.run_dir.glob(".checkpoint*"))
    assert engine.panic() == ""
    (small_disk / "filler").unlink()
    one_round(engine, 2, 1.0)
    assert checkpoint.load(saved(engine)).round == 3


def test_a_file_that_cannot_be_written_whole_leaves_the_earlier_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A real write error wherever the tests run: this process may write 512 bytes a file."""
    engine = make_engine(tmp_path)
    one_round(engine, 0, 1.0)
    before = saved(engine).read_bytes()
    assert len(before) > 512
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.WARNING):
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))  # Python ignores the signal that comes with it
        try:
            one_round(engine, 1, 1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "round 2 of sag could not be saved" in caplog.text
    assert saved(engine).read_bytes() == before
    assert not list(engine.run_dir.glob(".checkpoint*"))
    assert engine.panic() == ""
