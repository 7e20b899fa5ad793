# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor

from controllers.collect import Replies
from controllers.initialize_global_weights import InitializeGlobalWeights
from custom.keys import DATA_INFO, DATA_NOTES, LEFT_OUT, SAMPLES, WARNINGS
from tests.support import Engine, arrays, run_controller

INFO = {"dataset": "points", "embedded": False, "num_classes": 2, "input_shape": [2]}
SITES = ["site-1", "site-2", "site-3"]


def reply(weights: dict[str, np.ndarray], samples: int = 1, **info: Any) -> Shareable:
    meta = {DATA_INFO: {**INFO, **info}, SAMPLES: {"train": samples}, MetaKey.NUM_STEPS_CURRENT_ROUND: samples}
    return DXO(DataKind.WEIGHTS, data=weights, meta=meta).to_shareable()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path, {"persistor": PTFileModelPersistor()}, SITES)


def initialise(engine: Engine, replies: dict[str, Shareable | None], **args: Any) -> dict[str, np.ndarray] | None:
    """Runs the workflow; the weights it left in the context, None if it left none."""
    controller = InitializeGlobalWeights(**args)
    run_controller(engine, controller, lambda site, task, data: replies[site])
    with engine.new_context() as fl_ctx:
        model = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
    return None if model is None else model["weights"]


def values(*numbers: float) -> dict[str, Shareable]:
    return {
        site: reply(arrays(w=[number]), samples=i + 1)
        for i, (site, number) in enumerate(zip(SITES, numbers, strict=True))
    }


def test_client_takes_the_weights_of_the_named_site(engine: Engine) -> None:
    weights = initialise(engine, values(1, 2, 3), weight_method="client", weights_client_name="site-2")
    assert weights is not None
    assert weights["w"].tolist() == [2.0]


def test_first_takes_one_reply_among_the_listed_sites(engine: Engine) -> None:
    weights = initialise(engine, values(1, 2, 3), weight_method="first", weights_client_name=["site-3"])
    assert weights is not None
    assert weights["w"].tolist() == [3.0]


def test_first_takes_the_first_to_arrive(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = values(1, 2, 3)
    controller = InitializeGlobalWeights(weight_method="first")
    arrived, receive = threading.Event(), Replies.receive

    def note(self: Replies, **arguments: Any) -> None:
        receive(self, **arguments)
        arrived.set()

    def answer(site: str, task: str, data: Shareable) -> Shareable:
        assert site == "site-2" or arrived.wait(10)
        return replies[site]

    monkeypatch.setattr(Replies, "receive", note)
    run_controller(engine, controller, answer)
    with engine.new_context() as fl_ctx:
        assert fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)["weights"]["w"].tolist() == [2.0]


def test_average_is_weighted_by_samples(engine: Engine) -> None:
    weights = initialise(engine, values(1, 2, 3), weight_method="average")
    assert weights is not None
    # (1 * 1 + 2 * 2 + 3 * 3) / (1 + 2 + 3)
    assert weights["w"] == pytest.approx([14 / 6])
    assert weights["w"].dtype == np.float32


def test_random_depends_on_the_seed_alone(tmp_path: Path) -> None:
    drawn = []
    for attempt, seed in enumerate([5, 5, 1, 11]):
        engine = Engine(tmp_path / str(attempt), {"persistor": PTFileModelPersistor()}, SITES)
        weights = initialise(engine, values(1, 2, 3), weight_method="random", draw_seed=seed)
        assert weights is not None
        drawn.append(float(weights["w"][0]))
    assert drawn[0] == drawn[1]
    assert set(drawn) == {1.0, 2.0, 3.0}


@pytest.mark.parametrize("weight_method", ["first", "random"])
def test_most_sites_decide(engine: Engine, caplog: pytest.LogCaptureFixture, weight_method: str) -> None:
    """site-1, which answers first, and which some of ten draws would take, begins with other weights."""
    for seed in range(10):
        weights = initialise(engine, values(9, 2, 2), weight_method=weight_method, draw_seed=seed)
        assert weights is not None
        assert weights["w"].tolist() == [2.0]
    assert "initial weights that differ: site-1; most sites have another model" in caplog.text


def test_without_a_majority_it_warns(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    assert initialise(engine, values(1, 2, 3)) is not None
    assert "initial weights that differ: site-1, site-2, site-3; no model is that of most sites" in caplog.text


@pytest.mark.parametrize("samples", ["x", {"train": "many"}, {"train": -1}, {1: 1}, {"train": 1.5}])
def test_what_a_site_says_of_its_data_is_checked(engine: Engine, samples: Any) -> None:
    odd = reply(arrays(w=[1.0]))
    odd["DXO"]["meta"][SAMPLES] = samples
    assert initialise(engine, {**values(1, 1, 1), "site-2": odd}) is None
    assert "site-2 samples: expected whole numbers from 0 to 1e+09 by name" in engine.panic()


@pytest.mark.parametrize(
    "weights", [{"w": [1.0]}, {"w": "1"}, {"w": np.array([None])}, {"w": np.array(["1"])}, {7: np.ones(1, np.float32)}]
)
def test_weights_that_are_no_arrays_of_numbers_are_named(engine: Engine, weights: Any) -> None:
    odd = reply(arrays(w=[1.0]))
    odd["DXO"]["data"] = weights
    assert initialise(engine, {**values(1, 1, 1), "site-2": odd}) is None
    assert "site-2 weights" in engine.panic()
    assert "expected an array of numbers by name" in engine.panic()


def test_facts_that_are_no_dictionary_are_named(engine: Engine) -> None:
    odd = reply(arrays(w=[1.0]))
    odd["DXO"]["meta"][DATA_INFO] = "points"
    assert initialise(engine, {**values(1, 1, 1), "site-2": odd}) is None
    assert "site-2 facts about its data: expected a dictionary of at most 100" in engine.panic()
    assert engine.panic().endswith("got points [reply-malformed]")


@pytest.mark.parametrize("weight", [math.inf, -1, "many"])
def test_weights_of_the_average_are_checked(engine: Engine, weight: Any) -> None:
    odd = reply(arrays(w=[1.0]), samples=weight)
    assert initialise(engine, {**values(1, 1, 1), "site-2": odd}, weight_method="average") is None
    assert "site-2" in engine.panic()


def test_unknown_site_ends_the_job_before_any_task(engine: Engine) -> None:
    asked = []
    controller = InitializeGlobalWeights(weight_method="client", weights_client_name="site-9")
    run_controller(engine, controller, lambda site, task, data: asked.append(site))
    assert "site-9" in engine.panic()
    assert "site-1, site-2, site-3" in engine.panic()
    assert asked == []


def test_a_silent_site_times_out(engine: Engine) -> None:
    replies: dict[str, Shareable | None] = {**values(1, 2, 3), "site-3": None}
    assert initialise(engine, replies, task_timeout=1) is None
    assert "2 of 3 sites" in engine.panic()
    assert "site-3: no reply to get_weights within 1 s" in engine.panic()


@pytest.mark.parametrize(("sites_that_answer", "enough"), [(["site-1", "site-2"], True), (["site-1"], False)])
def test_a_lost_site_is_not_needed(engine: Engine, sites_that_answer: list[str], enough: bool) -> None:
    """The server has heard nothing of site-3 for its time-outs when the task ends."""
    controller = InitializeGlobalWeights(task_timeout=1, weight_method="average")
    replies = values(1, 2, 3)

    def answer(site: str, task: str, data: Shareable) -> Shareable | None:
        if site == "site-3":
            controller.communicator._dead_client_grace = 0
            with engine.new_context() as fl_ctx:
                controller.communicator.process_dead_client_report(site, fl_ctx)
            threading.Event().wait()
        return replies[site] if site in sites_that_answer else None

    run_controller(engine, controller, answer)
    with engine.new_context() as fl_ctx:
        model = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
    if enough:
        assert model["weights"]["w"] == pytest.approx([5 / 3])
    else:
        assert model is None
        assert "1 of 2 sites" in engine.panic()
        assert "site-3: no reply to get_weights within 1 s: the server has no sign of life of it" in engine.panic()


def test_fewer_replies_are_enough_if_so_configured(engine: Engine) -> None:
    replies: dict[str, Shareable | None] = {**values(1, 2, 3), "site-3": None}
    weights = initialise(engine, replies, task_timeout=1, min_responses_required=2, weight_method="average")
    assert weights is not None
    assert weights["w"] == pytest.approx([5 / 3])


def test_the_reason_of_a_failing_site_reaches_the_server(engine: Engine) -> None:
    failed = make_reply(
        ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "alpha: expected more than 0"}
    )
    assert initialise(engine, {**values(1, 2, 3), "site-2": failed}) is None
    assert "site-2: alpha: expected more than 0" in engine.panic()


def test_a_failing_site_is_named_when_the_others_go_on(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "no samples"})
    replies = {**values(1, 2, 3), "site-2": failed}
    weights = initialise(
        engine, replies, min_responses_required=2, wait_time_after_min_received=5, weight_method="average"
    )
    assert weights is not None
    assert weights["w"] == pytest.approx([(1 * 1 + 3 * 3) / 4])
    assert "goes on without the initial weights of site-2: no samples" in caplog.text


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (reply(arrays(w=[1, 2])), "site-2 w: expected (1,) float32 as at site-1, got (2,) float32"),
        (reply(arrays(v=[1])), "site-2 v: expected no such tensor as at site-1, got (1,) float32"),
        (reply({"w": np.ones(1)}), "site-2 w: expected (1,) float32 as at site-1, got (1,) float64"),
        (reply(arrays(w=[np.nan])), "site-2 w: expected finite values, got 1 NaN or infinite"),
        (reply(arrays(w=[1]), dataset="MNIST"), "site-2 dataset: expected points as at site-1, got MNIST"),
        (reply(arrays(w=[1]), num_classes=3), "site-2 num_classes: expected 2 as at site-1, got 3"),
        (reply(arrays(w=[1]), input_shape=[3]), "site-2 input_shape: expected [2] as at site-1, got [3]"),
    ],
)
def test_sites_that_differ_end_the_job(engine: Engine, odd: Shareable, message: str) -> None:
    assert initialise(engine, {**values(1, 2, 3), "site-2": odd}) is None
    assert message in engine.panic()


def test_a_persistor_that_holds_a_model_ends_the_job(tmp_path: Path) -> None:
    persistor = PTFileModelPersistor(model=torch.nn.Linear(1, 1))
    engine = Engine(tmp_path, {"persistor": persistor}, SITES)
    assert initialise(engine, values(1, 2, 3)) is None
    assert engine.panic().startswith("persistor: the persistor already holds a model")


def test_a_persistor_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert initialise(Engine(tmp_path / "a", {}, SITES), values(1, 2, 3), persistor_id="") is not None
    engine = Engine(tmp_path / "b", {}, SITES)
    assert initialise(engine, values(1, 2, 3)) is None
    assert "persistor_id: expected the id of the persistor" in engine.panic()


def test_initial_model_is_used_after_the_comparison(engine: Engine, tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.tensor([7.0])}}, tmp_path / "start.pt")
    weights = initialise(engine, values(1, 2, 3), initial_model="start.pt")
    assert weights is not None
    assert weights["w"].tolist() == [7.0]


def test_initial_model_of_another_shape_ends_the_job(engine: Engine, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(4)}, tmp_path / "start.pt")
    assert initialise(engine, values(1, 2, 3), initial_model="start.pt") is None
    assert "initial_model start.pt w: expected (1,) as at the sites, got (4,)" in engine.panic()
    assert engine.panic().endswith("[model-mismatch]")


def test_an_initial_model_is_fitted_to_the_sites_and_that_is_said(engine: Engine, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"module.w": torch.tensor([7.0]).half()}}, tmp_path / "last.ckpt")
    weights = initialise(engine, values(1, 2, 3), initial_model="last.ckpt")
    assert weights is not None
    assert (weights["w"].dtype, weights["w"].tolist()) == (np.float32, [7.0])
    assert warnings(engine) == ["initial_model last.ckpt: names without module.; converted float16 to float32"]


@pytest.mark.parametrize("weights", [{}, {"n": np.array(3)}], ids=["none", "integers"])
@pytest.mark.parametrize("method", ["first", "average"])
def test_a_model_without_weights_is_refused(engine: Engine, weights: dict[str, np.ndarray], method: str) -> None:
    assert initialise(engine, {site: reply(weights) for site in SITES}, weight_method=method) is None
    assert engine.panic().startswith("site-1 weights:")
    assert engine.panic().endswith("[model-unfit]")


def test_what_sites_found_is_in_the_report(engine: Engine) -> None:
    """Sites that warn of the same share an event."""
    replies = values(1, 1, 1)
    for site, notes in zip(SITES, (["a"], ["a", "b c"], []), strict=True):
        meta = {DATA_INFO: INFO, SAMPLES: {"train": 1}, MetaKey.NUM_STEPS_CURRENT_ROUND: 1, WARNINGS: notes}
        replies[site] = DXO(DataKind.WEIGHTS, data=arrays(w=[1.0]), meta=meta).to_shareable()
    assert initialise(engine, replies) is not None
    assert warnings(engine) == ["site-1, site-2: a", "site-2: b c"]


def warnings(engine: Engine) -> list[str]:
    events = map(json.loads, (engine.run_dir / "progress.jsonl").read_text().splitlines())
    return [event["reason"] for event in events if event["event"] == "warning"]


@pytest.mark.parametrize(("kept", "problem"), [(None, "no such file"), (0.5, "cut short"), (0.0, "is empty")])
def test_an_initial_model_missing_or_cut_short_ends_the_job_before_any_task(
    engine: Engine, tmp_path: Path, kept: float | None, problem: str
) -> None:
    if kept is not None:
        path = tmp_path / "start.pt"
        torch.save({"model": {"w": torch.tensor([7.0])}}, path)
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    asked: list[str] = []
    controller = InitializeGlobalWeights(initial_model="start.pt")
    run_controller(engine, controller, lambda site, task, data: asked.append(site))
    assert "start.pt: " in engine.panic()
    assert problem in engine.panic()
    assert asked == []


def test_what_happened_is_written_down(engine: Engine) -> None:
    initialise(engine, values(1, 2, 3), weight_method="client", weights_client_name="site-3")
    event = json.loads((engine.run_dir / "progress.jsonl").read_text())
    assert event["source"] == "site-3"
    assert event["dataset"] == INFO
    assert event["samples"] == {"site-1": {"train": 1}, "site-2": {"train": 2}, "site-3": {"train": 3}}


def test_what_sites_left_out_and_warn_of_is_written_down_and_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    replies = values(1, 1, 1)
    meta = {LEFT_OUT: {"files with .dcm": 24}, WARNINGS: ["one class is 16-bit"], DATA_NOTES: ["scaled"]}
    replies["site-2"]["DXO"]["meta"] |= meta
    assert initialise(engine, replies) is not None
    events = [json.loads(line) for line in (engine.run_dir / "progress.jsonl").read_text().splitlines()]
    (initialized,) = (event for event in events if event["event"] == "initialized")
    assert initialized["left_out"] == {"site-2": {"files with .dcm": 24}}
    assert initialized["data_notes"] == {"site-2": ["scaled"]}
    assert warnings(engine) == ["site-2: one class is 16-bit"]
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("site-2" in line and "files with .dcm: 24" in line for line in warned)
    assert any("site-2: one class is 16-bit" in line for line in warned)


@pytest.mark.parametrize(("key", "odd"), [(LEFT_OUT, {"x": -1}), (WARNINGS, ["\n"]), (DATA_NOTES, "text")])
def test_remarks_that_are_malformed_end_the_job(engine: Engine, key: str, odd: Any) -> None:
    replies = values(1, 1, 1)
    replies["site-2"]["DXO"]["meta"][key] = odd
    assert initialise(engine, replies) is None
    assert "[reply-malformed]" in engine.panic()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"weight_method": "best"}, "weight_method: expected one of first, client, random, average, got 'best'"),
        ({"weight_method": "client"}, "weights_client_name: expected the name of one site, got []"),
        (
            {"min_responses_required": -1},
            "min_responses_required: expected a whole number of at least 0, got -1",
        ),
        (
            {"min_responses_required": "2"},
            "min_responses_required: expected a whole number of at least 0, got '2'",
        ),
        ({"task_timeout": 0}, "task_timeout: expected a whole number of at least 1 seconds, got 0"),
    ],
)
def test_a_setting_out_of_range_ends_the_job_with_a_reason(engine: Engine, args: dict[str, Any], message: str) -> None:
    run_controller(engine, InitializeGlobalWeights(**args), lambda site, task, data: None)
    assert engine.panic() == f"{message} [setting-value]"
