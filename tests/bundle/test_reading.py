# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""From progress.jsonl to a Report. The job of conftest, two sites with 300 and 100 samples, by hand:

initial:        (300 * 0.1 + 100 * 0.3) / 400 = 0.15
after round 1:  (300 * 0.5 + 100 * 0.7) / 400 = 0.55   (received in round 2)
after round 2:  (30 * 0.8 + 10 * 0.6) / 40    = 0.75   (closing validation)
train_loss 1:   (300 * 2.0 + 100 * 1.0) / 400 = 1.75
train_loss 2:   (300 * 1.0 + 100 * 0.6) / 400 = 0.90
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bundle.events import Follower, read_events
from bundle.report.locate import Run
from bundle.report.model import Score
from bundle.report.reading import NOT_WRITTEN, read_report, read_run
from bundle.report.wording import embedded_warning
from custom.events import NotUnderstood
from custom.metrics import weighted_mean
from tests.bundle.conftest import Event, build, job_events, round_event, typed, write_run


def without(*kinds: str) -> list[Event]:
    return [event for event in job_events() if event["event"] not in kinds]


def test_a_round_shows_the_global_model_after_it() -> None:
    report = build(job_events())
    assert report.initial is not None
    assert report.initial.aggregate == pytest.approx({"val_accuracy": 0.15})
    assert report.initial.sites == {"site-1": {"val_accuracy": 0.1}, "site-2": {"val_accuracy": 0.3}}
    first, second = report.rounds
    assert first.aggregate == pytest.approx({"val_accuracy": 0.55, "train_loss": 1.75})
    assert second.aggregate == pytest.approx({"val_accuracy": 0.75, "train_loss": 0.9})
    assert first.sites["site-2"] == {"val_accuracy": 0.7, "train_loss": 1.0}
    assert second.sites["site-1"] == {"val_accuracy": 0.8, "train_loss": 1.0}
    assert report.best == {"round": 2, "metric": "val_accuracy", "value": 0.75}
    assert (report.status, report.errors, report.finished) == ("completed", [], True)


def test_the_json_has_the_agreed_keys() -> None:
    content = build(job_events()).to_json()
    keys = {"job", "dataset", "initial", "rounds", "cross_site", "personalization", "best", "status", "errors"}
    assert content.keys() == keys | {"left_out", "data_notes", "outliers", "warnings"}
    assert content["personalization"] is None
    assert content["dataset"]["dataset"] == "CIFAR-10"
    keys = {"round", "seconds", "sites", "aggregate", "upload_bytes", "download_bytes"}
    assert content["rounds"][0].keys() == keys | {"dense_upload_bytes", "dense_download_bytes", "site_bytes"}
    assert (content["rounds"][0]["upload_bytes"], content["rounds"][1]["seconds"]) == (2000, 1.5)


def test_what_sites_left_out_is_in_the_report_and_its_json() -> None:
    events = job_events()
    told = {"left_out": {"site-1": {"files with .dcm": 24}}, "data_notes": {"site-2": ["read so"]}}
    events[1] |= told
    report = build(events)
    assert (report.left_out, report.data_notes) == (told["left_out"], told["data_notes"])
    content = report.to_json()
    assert (content["left_out"], content["data_notes"]) == (told["left_out"], told["data_notes"])


def test_a_file_of_an_earlier_version_counts_what_it_left_out_among_the_samples() -> None:
    events = job_events()
    events[1]["samples"]["site-1"] |= {"corrupt_images": 3, "training_images_of_test_patients": 1}
    report = build(events)
    assert report.left_out == {}
    assert report.samples["site-1"]["corrupt_images"] == 3


def test_without_a_closing_validation_the_last_round_has_no_score() -> None:
    report = build(without("validation"))
    assert report.rounds[1].aggregate == pytest.approx({"train_loss": 0.9})
    assert report.rounds[0].aggregate["val_accuracy"] == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("events", "status", "error"),
    [
        (without("job_ended"), "incomplete", None),
        ([], "incomplete", None),
        (without("workflow_finished"), "incomplete", "the job ended early: workflow pre_train did not finish"),
        ([*job_events(), {"event": "fatal", "reason": "too few sites"}], "failed", "too few sites"),
        (
            [*without("round"), round_event(1, (0.1, 0.3), (2.0, 1.0))],
            "incomplete",
            "the job ended early: it ended after round 1",
        ),
    ],
)
def test_the_status_is_judged_by_evidence(events: list[Event], status: str, error: str | None) -> None:
    report = build(events)
    assert report.status == status
    assert report.errors == ([error] if error else [])
    assert not report.finished


def test_a_site_that_missed_the_last_round_is_named() -> None:
    last = round_event(2, (0.5, 0.7), (1.0, 0.6), failed={"site-2": "norm too large"})
    del last["sites"]["site-2"]
    report = build([last if event.get("round") == 2 and event["event"] == "round" else event for event in job_events()])
    assert report.status == "completed without site-2"
    assert report.errors == ["site-2 in round 2: norm too large"]
    assert report.rounds[0].aggregate["val_accuracy"] == pytest.approx(0.5)  # only site-1 has scored it


def test_a_site_that_came_back_is_no_loss() -> None:
    events = job_events()
    events[2]["failed"] = {"site-2": "slow"}
    del events[2]["sites"]["site-2"]
    report = build(events)
    assert report.status == "completed"
    assert report.errors == ["site-2 in round 1: slow"]


def test_the_first_cause_comes_first_and_is_told_once() -> None:
    reason = "/data/cifar: no such folder, and no network to get it from"
    errors = [{"event": "site_error", "site": f"site-{n}", "task": "get_weights", "reason": reason} for n in (1, 2)]
    fatal = {"event": "fatal", "reason": f"no site answered (site-1: {reason})"}
    report = build([*errors, fatal])
    assert report.errors == [f"site-1, site-2 at get_weights: {reason}", "no site answered (site-1: see above)"]


def test_a_mean_without_weights_is_plain_and_a_site_without_the_metric_is_left_out() -> None:
    sites = {"a": {"x": 1.0}, "b": {"x": 3.0}, "c": {"y": 5.0}}
    assert weighted_mean(sites, {}) == {"x": 2.0, "y": 5.0}
    assert weighted_mean(sites, {"a": 3, "b": 1, "c": 9}) == {"x": 1.5, "y": 5.0}
    assert Score().aggregate == {}


def test_a_file_that_a_crash_cut_short_is_read_up_to_there(workspace: Path) -> None:
    path = workspace / "server" / "simulate_job" / "progress.jsonl"
    whole = path.read_bytes()
    cut = whole[: whole.index(b'"round": 2, "num_rounds"') + 10]
    path.write_bytes(cut)
    report = read_report(workspace)
    assert [row.round for row in report.rounds] == [1]
    assert report.status == "incomplete"


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "round"}',
        '{"event": "round", "round": "1"}',
        '{"event": "round", "round": 1, "num_rounds": NaN}',
        '{"event": "round", "round": 1, "sites": {"site-1": 5}}',
        '{"event": "validation", "sites": 3}',
        '{"event": "initialized", "samples": 4}',
        '{"event": "job_started", "sites": 5}',
        '{"event": "job_started", "workflows": [[]]}',
        '{"event": "continued", "rounds": 5}',
    ],
)
def test_a_line_with_fields_of_another_type_is_a_gap(workspace: Path, line: str) -> None:
    path = workspace / "server" / "simulate_job" / "progress.jsonl"
    assert read_report(workspace).status == "completed"
    path.write_text(f"{line}\n{path.read_text()}")
    report = read_report(workspace)
    assert (report.status, len(report.rounds)) == ("incomplete", 2)


@pytest.mark.parametrize(
    "event",
    [
        {
            "event": "fine_tuned",
            "rounds": 2,
            "start_from": "best",
            "sites": {"site-1": {"best_epoch": 1}},
            "failed": {},
        },
        {"event": "personalized", "rounds": {"w": 3}, "sites": {"site-1": {"query": []}}, "failed": {"site-2": "no"}},
        {"event": "continued", "job_id": "a", "workflow": "w", "round": 2, "rounds": {"w": 2}},
        {"event": "initialized", "dataset": None, "samples": {}},
    ],
)
def test_the_events_that_jobs_write_are_read(event: Event) -> None:
    assert typed(event).given() == {name: value for name, value in event.items() if name != "event"}


def test_a_last_line_without_its_newline_counts_and_rubbish_does_not(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_bytes(b'{"event": "a"}\n\xff\xfe\n[1]\n{"no": 1}\n\n{"event": "b"}')
    found = [event.line if isinstance(event, NotUnderstood) else event.event for event in read_events(path)]
    assert found == ["a", 2, 3, 4, "b"]
    assert read_events(tmp_path / "none") == []


def test_a_follower_gives_each_event_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "progress.jsonl")
    assert follower.poll() == []
    with follower.path.open("w") as file:
        for text, expected in (('{"event": "a"}\n{"eve', ["a"]), ('nt": "b"}', []), ("\n", ["b"]), ("", [])):
            file.write(text)
            file.flush()
            assert [event.event for event in follower.poll()] == expected


def test_the_cross_site_matrix_has_models_as_rows_and_models_are_found(workspace: Path) -> None:
    report = read_report(workspace)
    assert report.cross_site == {
        "SRV_FL_global_model.pt": {"site-1": {"test_accuracy": 0.7}},
        "site-2": {"site-1": {"test_accuracy": 0.4}},
    }
    run = workspace / "server" / "simulate_job"
    assert report.models == {
        "final global model": str(run / "app_server" / "FL_global_model.pt"),
        "last model of site-1": str(workspace / "site-1" / "simulate_job" / "local_model.pt"),
    }


def test_a_run_without_progress_is_reported_with_its_traceback(tmp_path: Path) -> None:
    run = write_run(tmp_path / "server" / "simulate_job", [])
    (run / "progress.jsonl").unlink()
    (tmp_path / "server" / "log.txt").write_text("Traceback (most recent call last):\nTypeError: bad argument\n")
    report = read_report(tmp_path)
    assert (report.job, report.status) == ("small", "incomplete")
    assert report.errors[0].startswith("TypeError: bad argument (see ")


KILLED = "2026-01-01 10:00:09,000 - ERROR - FLARE's simulator was killed by signal 9 (SIGKILL)"
# FLARE 2.9.0 where a nested component misses an argument, shortened: the job ends with no word to the server.
UNBUILT = """\
2026-11-21 12:08:31,012 - INFO - ClientTaskWorker started to run
2026-11-21 12:08:33,760 - ERROR - Traceback (most recent call last):
  File "/opt/nvflare/fuel/utils/class_utils.py", line 43, in instantiate_class
    instance = c()
               ^^^
TypeError: Mine.__init__() missing 1 required positional argument: 'power'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/nvflare/fuel/utils/component_builder.py", line 116, in build_component
    raise ValueError(f"failed to instantiate class: {secure_format_exception(e)} ")
ValueError: failed to instantiate class: ValueError: Class mine.Mine has parameters error
2026-11-21 12:08:33,765 - ERROR - do_one_task execute exception: ConfigError: Error processing
"""


def test_a_job_that_ended_early_without_a_word_is_reported_with_its_traceback(tmp_path: Path) -> None:
    write_run(tmp_path / "server" / "simulate_job", without("round", "workflow_finished"))
    (tmp_path / "simulator.log").write_text(UNBUILT)
    missing = "TypeError: Mine.__init__() missing 1 required positional argument: 'power'"
    assert read_report(tmp_path).errors == [
        f"{missing}, raised in class_utils.py line 43 (see {tmp_path / 'simulator.log'})",
        "the job ended early: workflow pre_train did not finish",
    ]


@pytest.mark.parametrize(
    ("reason", "first"),
    [
        ("Exception: [enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534", NOT_WRITTEN),
        ("Exception: [Errno 28] No space left on device", "Exception: [Errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_named_though_the_logs_were_on_it(tmp_path: Path, reason: str, first: str) -> None:
    fatal = {"event": "fatal", "time": 1.0, "reason": reason}
    report = read_report(write_run(tmp_path, [*without("job_ended"), fatal]))
    assert report.errors[0] == first


def test_a_disk_that_is_full_now_is_named_where_no_log_says_anything(tmp_path: Path) -> None:
    """A run that could not write a single line; /dev/full is for files, so this needs a file system of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        (disk / "server").mkdir()
        (disk / "simulator.log").touch()
        report = read_report(disk)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert report.status == "incomplete"
    assert report.errors[0].startswith(f"no space left on the disk of {disk / 'server'},")
    assert not any("no space" in error for error in read_run(Run("simulate_job", tmp_path, tmp_path)).errors)


def test_a_job_that_ended_early_and_said_why_needs_no_log(tmp_path: Path) -> None:
    told = {"event": "site_error", "site": "site-1", "task": "train", "reason": "no such folder"}
    write_run(tmp_path / "server" / "simulate_job", [*without("workflow_finished"), told])
    (tmp_path / "simulator.log").write_text(UNBUILT)
    assert read_report(tmp_path).errors == [
        "site-1 at train: no such folder",
        "the job ended early: workflow pre_train did not finish",
    ]


def test_a_signal_that_ended_the_simulator_comes_first_whatever_went_wrong_before(tmp_path: Path) -> None:
    write_run(tmp_path / "server" / "simulate_job", without("job_ended", "workflow_finished"))
    (tmp_path / "simulator.log").write_text(UNBUILT + f"{KILLED}\n")
    report = read_report(tmp_path)
    assert (report.status, report.errors[0]) == ("incomplete", f"{KILLED} (see {tmp_path / 'simulator.log'})")


@pytest.mark.parametrize(("ended", "explained"), [("ended with exit code 1", False), ("was killed by signal 9", True)])
def test_the_exit_code_of_a_site_is_explained_by_its_log(tmp_path: Path, ended: str, explained: bool) -> None:
    lost = {"event": "site_error", "site": "site-1", "task": "pre_train", "reason": f"its process {ended}; 1 of 2 left"}
    write_run(tmp_path / "server" / "simulate_job", [*without("workflow_finished"), lost])
    (tmp_path / "simulator.log").write_text(UNBUILT)
    errors = read_report(tmp_path).errors
    assert errors[0].startswith("site-1 at pre_train" if explained else "TypeError: Mine.__init__() missing")
    assert f"site-1 at pre_train: {lost['reason']}" in errors


def lacking(what: str) -> list[Event]:
    """The events of a job that ended, with something missing."""
    if what == "a round":
        rest = [event for event in job_events() if (event["event"], event.get("round")) != ("round", 2)]
        return [*rest[:-1], round_event(3, (0.5, 0.7), (1.0, 0.6), num_rounds=3), rest[-1]]
    if what == "the end of the last of two starts":
        return [*job_events(), *job_events()[:-1]]
    if what == "its beginning":
        return job_events()[1:]
    return [*without("job_ended", "workflow_finished"), {"event": "job_ended", "aborted": True}]


@pytest.mark.parametrize("what", ["a round", "the end of the last of two starts", "its beginning", "an abort"])
def test_a_record_with_a_gap_is_not_completed(what: str) -> None:
    assert build(lacking(what)).status == "incomplete"


@pytest.mark.parametrize(
    ("workflow", "component", "gone"),
    [
        ("controllers.fine_tune.FineTune", "a.B", ""),
        ("controllers.initialize_global_weights.InitializeGlobalWeights", "a.B", "initialized"),
        ("controllers.closing_validation.ClosingValidation", "a.B", '"validation"'),
        ("nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather", "a.B", '"round": 1, "num_rounds"'),
        ("a.CrossSiteModelEval", "a.ValidationJsonGenerator", "cross_site_val/cross_val_results.json"),
    ],
)
def test_a_result_that_a_workflow_should_have_left_is_missed(
    workspace: Path, workflow: str, component: str, gone: str
) -> None:
    run = workspace / "server" / "simulate_job"
    config = {"workflows": [{"path": workflow, "args": {"num_rounds": 2}}], "components": [{"path": component}]}
    (run / "app_server" / "config").mkdir(parents=True)
    (run / "app_server" / "config" / "config_fed_server.json").write_text(json.dumps(config))
    if gone.endswith(".json"):
        assert read_report(workspace).status == "completed"
        (run / gone).write_text((run / gone).read_text()[:-1])
        assert read_report(workspace).status == "incomplete"
        (run / gone).unlink()
    elif gone:
        lines = (run / "progress.jsonl").read_text().splitlines(keepends=True)
        assert read_report(workspace).status == "completed"
        (run / "progress.jsonl").write_text("".join(line for line in lines if gone not in line))
    assert read_report(workspace).status == "incomplete"


def test_a_damaged_line_is_a_gap(workspace: Path) -> None:
    path = workspace / "server" / "simulate_job" / "progress.jsonl"
    path.write_text(path.read_text().replace('"initialized"', "initialized", 1))
    report = read_report(workspace)
    assert report.status == "incomplete"
    assert "line 2 " in report.errors[-1]


def test_a_job_that_records_nothing_says_so(workspace: Path) -> None:
    run = workspace / "server" / "simulate_job"
    (run / "progress.jsonl").unlink()
    assert read_report(workspace).status == "incomplete"
    (run / "app_server" / "config").mkdir(parents=True)
    (run / "app_server" / "config" / "config_fed_server.json").write_text('{"workflows": [{"path": "a.FedAvg"}]}')
    (workspace / "server" / "log.txt").write_text("Round 0 started.\nRound 1 started.\nServer runner finished.\n")
    report = read_report(workspace)
    assert (report.status, report.finished) == ("not recorded", False)
    assert "2 rounds" in report.errors[-1]


@pytest.mark.parametrize(("dataset", "asked"), [("digits", True), ("cifar10", False)])
def test_embedded_data_that_were_asked_for_were_not_missing(workspace: Path, dataset: str, asked: bool) -> None:
    config = workspace / "server" / "simulate_job" / "app_server" / "config"
    config.mkdir(parents=True)
    content = {"components": [{"id": "data", "path": "a.Data", "args": {"dataset": dataset}}]}
    (config / "config_fed_client.json").write_text(json.dumps(content))
    report = read_report(workspace)
    report.dataset = {"dataset": "digits", "embedded": True}
    assert ("The job asked for it" in embedded_warning(report)) == asked


@pytest.mark.parametrize(("first_round", "status"), [(1, "completed"), (0, "incomplete")])
def test_a_continued_workflow_begins_in_its_middle(workspace: Path, first_round: int, status: str) -> None:
    run = workspace / "server" / "simulate_job"
    arguments = {"num_rounds": 2, "first_round": first_round}
    config = {"workflows": [{"path": "controllers.continued_rounds.ContinuedRounds", "args": arguments}]}
    (run / "app_server" / "config").mkdir(parents=True)
    (run / "app_server" / "config" / "config_fed_server.json").write_text(json.dumps(config))
    lines = (run / "progress.jsonl").read_text().splitlines(keepends=True)
    (run / "progress.jsonl").write_text("".join(line for line in lines if '"round": 1, "num_rounds"' not in line))
    assert read_report(workspace).status == status
