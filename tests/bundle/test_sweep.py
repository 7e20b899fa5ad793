# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`sweep`, with a stand-in for FLARE's simulator: a process that takes its arguments and writes its files.

The stand-in scores `10 * timeout` of the job's workflow `rounds` (0.1 for a timeout of 0.01) and uploads 2000 bytes a
round; a timeout of 13 fails, and one of 60 hangs.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from bundle import simulator
from bundle.__main__ import main
from bundle.forked import OFF, SOCKET
from bundle.in_use import held
from bundle.sweep import Asked, sweep
from bundle.sweep_grid import points
from custom.errors import BundleError
from tests.bundle.conftest import Cli, job_events
from tests.jobs.flare import bundle, environment, export

SCRIPT = """#!{python}
import json, os, pathlib, shutil, subprocess, sys, time
job = pathlib.Path(sys.argv[sys.argv.index("-w") - 1])
workspace = pathlib.Path(sys.argv[sys.argv.index("-w") + 1])
run = workspace / "server" / "simulate_job"
run.mkdir(parents=True)
config = json.loads((job / "app" / "config" / "config_fed_server.json").read_text())
timeout = config["workflows"][1]["args"]["timeout"]
with open("{starts}", "a") as starts:
    starts.write(f"{{timeout}} {{os.environ['OMP_NUM_THREADS']}}\\n")
events = json.loads(pathlib.Path("{events}").read_text())
if timeout == 13:
    events = events[:3] + [{{"event": "fatal", "time": 14.0, "reason": "too few\\nsites"}}]
for event in events:
    if event["event"] == "best":
        event["value"] = 10 * timeout
    if event["event"] == "validation":
        event["sites"] = {{site: {{"val_accuracy": 10 * timeout}} for site in event["sites"]}}
if timeout == 60:
    site = subprocess.Popen(["sleep", "60"], start_new_session=True)
    (workspace / "pid").write_text(str(site.pid))
    site.wait()
(run / "progress.jsonl").write_text("".join(json.dumps(event) + "\\n" for event in events))
"""


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the bundle start the stand-in; the file has a line a start: timeout and OMP_NUM_THREADS."""
    events, starts, script = (tmp_path / name for name in ("events.json", "starts", "simulator"))
    events.write_text(json.dumps(job_events()))
    script.write_text(SCRIPT.format(python=sys.executable, starts=starts, events=events))
    script.chmod(0o755)
    starts.touch()
    monkeypatch.setattr(simulator.sys, "executable", str(script))
    monkeypatch.setenv(SOCKET, OFF)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    return starts


def labels(*grid: str) -> list[str]:
    return [point.label for point in points(grid, {})]


def test_a_grid_is_every_combination_and_the_last_key_changes_fastest() -> None:
    assert labels("a=1,0.5", "b=x, y") == ["a=1, b=x", "a=1, b=y", "a=0.5, b=x", "a=0.5, b=y"]


def test_values_are_json_where_they_can_be_and_text_elsewhere() -> None:
    def values(text: str) -> list[object]:
        return [point.settings["k"] for point in points([f"k={text}"], {})]

    assert values("1,0.5,1e-3,true,null") == [1, 0.5, 0.001, True, None]
    assert values("iid,dirichlet,3") == ["iid", "dirichlet", 3]
    assert values('"a,b","c"') == ["a,b", "c"]
    assert values("[1,2]") == [[1, 2]]
    assert values("[1,2],[3]") == [[1, 2], [3]]
    assert values("1e999,NaN") == ["1e999", "NaN"]  # text, which is refused where a number belongs


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], "nothing to sweep"),
        (["a"], "expected key=v1,v2"),
        (["=1"], "expected key=v1,v2"),
        (["a="], "has an empty value"),
        (["a=1,,2"], "has an empty value"),
        (["a=1,2", "a=3"], "is given twice"),
        (["fixed=1"], "is in --set and in --grid"),
        (["a=1,1.0"], "has the value 1.0 twice"),
        (["a=x,x"], "has the value x twice"),
        (['a="x,y",z'], "mixes plain text and JSON"),
    ],
)
def test_a_bad_grid_is_refused(grid: list[str], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        points(grid, {"fixed": 2})


def test_a_folder_has_the_settings_in_its_name_and_nothing_that_a_path_cannot_have() -> None:
    first, second, swapped = (points(grid, {})[0] for grid in (["b=1", "a=x/ y"], ["b=1", "a=x- y"], ["a=x/ y", "b=1"]))
    assert first.name.startswith("a=x-y,b=1-")
    assert first.name != second.name
    assert first.name == swapped.name  # the order in which the keys were given is no setting
    assert len(points([f"a={'x' * 500}"], {})[0].name) < 120
    assert len({point.name for point in points(['a="1",1,"true",true'], {})}) == 4


def test_a_sweep_runs_every_point_and_ranks_them(
    job: Path, tmp_path: Path, starts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    arguments = ["sweep", str(job), "--grid", "rounds.timeout=0.01,0.05,0.03", "--set", "num_rounds=2", "-o", str(out)]
    assert main(arguments) == 0
    # 8 cores: 4 points of 2 sites at a time, so 3, and each of the 6 processes has one core
    assert sorted(starts.read_text().splitlines()) == ["0.01 1", "0.03 1", "0.05 1"]
    assert (out / "results.csv").read_text() == (
        "rounds.timeout,status,best_val_accuracy,final_val_accuracy,upload_bytes,download_bytes,"
        "dense_upload_bytes,dense_download_bytes,seconds,dataset,folder,error\n"
        "0.05,completed,0.5,0.5,4000,2000,,,10.0,CIFAR-10,rounds.timeout=0.05,\n"
        "0.03,completed,0.3,0.3,4000,2000,,,10.0,CIFAR-10,rounds.timeout=0.03,\n"
        "0.01,completed,0.1,0.1,4000,2000,,,10.0,CIFAR-10,rounds.timeout=0.01,\n"
    )
    results = json.loads((out / "results.json").read_text())
    assert (results["best"], results["metric"]) == ("rounds.timeout=0.05", "val_accuracy")
    assert (results["sites"], results["settings"]) == (2, {"num_rounds": 2})
    assert [row["settings"] for row in results["points"]] == [{"rounds.timeout": v} for v in (0.05, 0.03, 0.01)]
    printed = capsys.readouterr().out
    assert "best: rounds.timeout=0.05  (val_accuracy 0.5000, 4.0 kB up)" in printed
    folder = out / "rounds.timeout=0.03"
    config = json.loads((folder / "job" / "app" / "config" / "config_fed_server.json").read_text())
    assert config["workflows"][1]["args"] == {"num_rounds": 2, "min_clients": 2, "timeout": 0.03}
    assert json.loads((folder / "report.json").read_text())["status"] == "completed"
    assert (folder / "workspace" / "simulator.log").is_file()
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "results.html").read_text()
    assert "OMP_NUM_THREADS" not in os.environ


def test_seeds_are_repeats_of_a_setting(
    tmp_path: Path, starts: Path, capsys: pytest.CaptureFixture[str], job: Path
) -> None:
    """The component with the id `seed` of every job of the bundle; the score depends on the other setting alone."""
    client = job / "app" / "config" / "config_fed_client.json"
    config = json.loads(client.read_text())
    config["components"].append({"id": "seed", "path": "a.Data", "args": {"seed": 0}})
    client.write_text(json.dumps(config))
    out = tmp_path / "out"
    grid = ["--grid", "seed=0,1,2", "--grid", "rounds.timeout=0.02,0.04"]
    assert main(["sweep", str(job), *grid, "-o", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["repeats_over"] == ["seed"]
    assert [(row["settings"], row["seeds"]) for row in results["rows"]] == [
        ({"rounds.timeout": 0.04}, 3),
        ({"rounds.timeout": 0.02}, 3),
    ]
    assert results["best"] == "rounds.timeout=0.04"
    assert len(results["points"]) == 6
    assert "best: rounds.timeout=0.04  (val_accuracy 0.4000 +- 0.0000 over 3 seeds" in capsys.readouterr().out


def test_whole_components_are_swept(
    job: Path, tmp_path: Path, starts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [{"path": "a.Selector", "args": {"key_metric": "val_accuracy", "timeout": number}} for number in (1, 2)]
    grid = "selector=" + ",".join(json.dumps(part) for part in parts)
    assert main(["sweep", str(job), "--grid", grid, "-j", "1", "-o", str(tmp_path / "out")]) == 0
    assert len(starts.read_text().splitlines()) == 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert str(parts[0]["args"]["timeout"]) in capsys.readouterr().out
    assert sorted(json.dumps(row["settings"]["selector"]) for row in results["points"]) == [
        json.dumps(part) for part in parts
    ]


def test_a_component_without_such_an_id_is_named_before_the_sweep(job: Path, tmp_path: Path, starts: Path) -> None:
    with pytest.raises(BundleError, match=r"--grid selectr: the job has no such component .*did you mean selector\?"):
        sweep(Asked(str(job), ['selectr={"path": "a.Selector"}'], tmp_path / "out"))
    assert starts.read_text() == ""


def test_what_finished_is_not_run_again_and_a_larger_grid_adds_points(job: Path, tmp_path: Path, starts: Path) -> None:
    def run(grid: str) -> list[float]:
        starts.write_text("")
        results = sweep(Asked(str(job), [grid], tmp_path / "out", jobs=1))
        assert results is not None
        assert len(results) == grid.count(",") + 1
        return [float(line.split()[0]) for line in starts.read_text().splitlines()]

    assert run("rounds.timeout=0.01,13") == [0.01, 13]
    assert run("rounds.timeout=0.01,13") == [13]  # failed: tried again
    assert run("rounds.timeout=0.01,0.02") == [0.02]
    assert run("rounds.timeout=0.02,0.01") == []
    (tmp_path / "out" / "rounds.timeout=0.02" / "point.json").write_text('{"cut')
    assert run("rounds.timeout=0.02,0.01") == [0.02]


def test_a_failed_point_is_recorded_and_the_others_go_on(
    job: Path, tmp_path: Path, starts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", str(job), "--grid", "rounds.timeout=13,0.01", "-j", "1", "-o", str(out)]) == 1
    with (out / "results.csv").open() as file:
        good, bad = csv.DictReader(file)
    assert (good["rounds.timeout"], good["status"]) == ("0.01", "completed")
    assert (bad["rounds.timeout"], bad["status"], bad["error"]) == ("13", "failed", "too few sites")
    assert (bad["best_val_accuracy"], bad["upload_bytes"]) == ("", "2000")
    assert "failed: rounds.timeout=13: too few sites" in capsys.readouterr().out


def test_another_sweep_in_the_same_folder_is_refused(job: Path, tmp_path: Path, starts: Path) -> None:
    asked = {"job": str(job), "grid": ["rounds.timeout=0.01"], "out": tmp_path / "out"}
    sweep(Asked(**asked))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"other settings, expected \{\}, got \{\"num_rounds\": 3\}"):
        sweep(Asked(**asked, assignments=["num_rounds=3"]))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="other sites, expected 2, got 3"):
        sweep(Asked(**asked, sites=3))  # type: ignore[arg-type]
    client = job / "app" / "config" / "config_fed_client.json"
    client.write_text(client.read_text().replace('"local_epochs": 1', '"local_epochs": 2'))
    with pytest.raises(BundleError, match="the job's files have changed since this point finished"):
        sweep(Asked(**asked))  # type: ignore[arg-type]
    assert len(starts.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--grid", "num_rouns=1,2"), "--grid num_rouns: the job has no such argument (did you mean num_rounds?)"),
        (("--grid", "timeout=1,2"), "--grid timeout: 2 components of the job have it"),
        (("--grid", "num_rounds=1,two"), "--grid num_rounds: expected int, got str"),
        (("--grid", "num_rounds=1,2", "--grid", "rounds.num_rounds=1,2"), "do two keys name one argument?"),
        (("--grid", "min_clients=2,3"), "expected at least 3 sites (rounds.min_clients), got 2"),
        (("--grid", "num_rounds=1,2", "-j", "0"), "expected 1 or more points at a time, got 0"),
        (("--grid", "num_rounds=1,2", "-t", "3"), "expected 1 to 2"),
        (("--grid", "num_rounds=1,2", "--set", "nope=3"), "--set nope"),
        (("--grid", "num_rounds=1,2", "-o", "a\tb"), "[workspace-unusable]"),
        (("--grid", "num_rounds=1,2", "-o", "full"), "exists, and holds no sweep"),
    ],
)
def test_everything_is_checked_before_the_first_run(
    job: Path,
    tmp_path: Path,
    starts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    folder = tmp_path / "cwd"
    (folder / "full").mkdir(parents=True)
    (folder / "full" / "thesis.txt").touch()
    monkeypatch.chdir(folder)
    assert main(["sweep", str(job), "-o", "out", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert starts.read_text() == ""
    assert [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))] == ["full", "full/thesis.txt"]


def test_an_unknown_metric_ends_the_sweep_at_its_first_point_and_keeps_that(
    job: Path, tmp_path: Path, starts: Path
) -> None:
    asked = {"job": str(job), "grid": ["rounds.timeout=0.01,0.02"], "out": tmp_path / "out", "jobs": 1}
    with pytest.raises(BundleError, match="--metric f1: the job has no such metric; it has train_loss, val_accuracy"):
        sweep(Asked(**asked, metric="f1"))  # type: ignore[arg-type]
    assert len(starts.read_text().splitlines()) == 1
    results = sweep(Asked(**asked, metric="train_loss"))  # type: ignore[arg-type]
    assert results is not None
    # by hand: (300 * 2 + 100 * 1) / 400, then (300 * 1 + 100 * 0.6) / 400
    assert results[0].metrics["train_loss"] == {"best": pytest.approx(0.9), "final": pytest.approx(0.9)}
    assert len(starts.read_text().splitlines()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_what_it_started_and_the_sweep_goes_on_later(
    job: Path, tmp_path: Path, starts: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    pid_file = out / "rounds.timeout=60" / "workspace" / "pid"

    def interrupt() -> None:
        while not (pid_file.exists() and pid_file.read_text() and (out / "rounds.timeout=0.01/report.json").exists()):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=interrupt, daemon=True).start()
    command = ["sweep", str(job), "-j", "2", "-o", str(out), "--grid"]
    assert main([*command, "rounds.timeout=0.01,60,0.02,61"]) == 130
    assert not psutil.pid_exists(int(pid_file.read_text()))
    assert signal.getsignal(number) == before
    assert "stopped; the same command goes on from here" in capsys.readouterr().out
    statuses = {
        row["settings"]["rounds.timeout"]: row["status"]
        for row in json.loads((out / "results.json").read_text())["points"]
    }
    assert (statuses[0.01], statuses[60]) == ("completed", "not run")
    starts.write_text("")
    assert main([*command, "rounds.timeout=0.01"]) == 0
    assert starts.read_text() == ""


class Gone(io.StringIO):
    """A pipe whose reader has gone, from the moment on that `gone` is set."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise BrokenPipeError
        return super().write(text)

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)


def test_an_interrupt_ends_what_it_started_although_nobody_listens(
    job: Path, tmp_path: Path, starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `... | tee log`, which Ctrl-C ends, too."""
    out, gone = tmp_path / "out", Gone()
    pid_file = out / "rounds.timeout=60" / "workspace" / "pid"
    monkeypatch.setattr(sys, "stdout", gone)

    def interrupt() -> None:
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.05)
        gone.gone = True
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert main(["sweep", str(job), "-o", str(out), "--grid", "rounds.timeout=60"]) == 1
    assert not psutil.pid_exists(int(pid_file.read_text()))


def test_two_sweeps_do_not_share_a_folder(job: Path, tmp_path: Path, starts: Path) -> None:
    asked = Asked(str(job), ["rounds.timeout=0.01"], tmp_path / "out")
    sweep(asked)
    with held(tmp_path / "out", "-o"), pytest.raises(BundleError, match=f"process {os.getpid()}") as refused:
        sweep(asked)
    assert refused.value.code == "workspace-unusable"


def test_the_command_line_knows_it(cli: Cli, job: Path) -> None:
    done = cli("sweep", job, "-o", "out")
    assert done.returncode == 2
    assert "nothing to sweep" in done.stderr


@pytest.mark.e2e
def test_two_points_of_hello_pt(tmp_path: Path) -> None:
    """One round on the embedded digits, both at a time; the sweep again repeats nothing."""
    job = export("hello-pt", tmp_path / "job", "dataset=digits", drop_workflows=("cross_site_validate",))
    command = ["sweep", str(job), "--grid", "local_lr=0.05,0.0001", "--grid", "local_steps=20", "-j", "2"]
    command += ["--set", "num_rounds=1", "-o", str(tmp_path / "out")]
    done = bundle(*command, cwd=tmp_path / "empty", env=environment(tmp_path / "nothing"))
    assert done.returncode == 0, done.stdout[-4000:]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["best"] == "local_lr=0.05,local_steps=20"
    first, second = results["points"]
    assert first["best"] > second["best"]
    assert first["upload_bytes"] > 100_000
    again = bundle(*command, cwd=tmp_path / "empty", env=environment(tmp_path / "nothing"))
    assert again.returncode == 0
    assert "2 points, 2 finished before" in again.stdout
    assert "EMBEDDED DATA SET" in again.stdout
