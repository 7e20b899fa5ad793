# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Launching: what is refused, and what is submitted, as FLARE's own validator of the server sees it."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.apis.utils.job_submit_token import canonical_job_content_hash
from nvflare.fuel.utils.zip_utils import zip_directory_to_bytes
from nvflare.private.fed.server.job_meta_validator import JobMetaValidator

from bundle.connection import Refused
from bundle.form import names, read_form
from bundle.jobs import Job as JobFolder
from bundle.jobs import read_job
from custom.errors import BundleError
from dashboard.launch import SITE_COUNTS, Request, changed_settings, check_sites, launch
from dashboard.system import COMPLETED, Client, Job, Snapshot

FORMS = tuple(read_form(name) for name in names())
FINISHED_JOB, RUNNING_JOB, NO_JOB = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
SITES = ("site-1", "site-2", "site-3")


class Store:
    """Takes jobs as a FLARE server does: its validator looks at each, and one token is one job."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        clients = (*(Client(name, 1000.0) for name in SITES), Client("asleep", 900.0))
        jobs = (Job(FINISHED_JOB, "mnist", COMPLETED), Job(RUNNING_JOB, "mnist", "RUNNING"))
        self.now = Snapshot(1, 1001.0, clients=clients, jobs=jobs)
        self.accepted: dict[str, tuple[str, dict[str, Any], JobFolder]] = {}  # hash, meta and job by token
        self.refused: BundleError | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        return self.now

    def check_right_to_submit(self) -> None:
        if self.refused:
            raise self.refused

    def model_file(self, job_id: str, best: bool = False) -> Path:
        assert (job_id, best) == (FINISHED_JOB, False)
        return self.cache / "results" / "FL_global_model.pt"

    def submit(self, folder: Path, token: str) -> str:
        data = zip_directory_to_bytes(str(folder.parent), folder.name)
        good, problem, meta = JobMetaValidator().validate(folder.name, data)
        assert good, problem
        with self._lock:
            assert token not in self.accepted
            self.accepted[token] = (canonical_job_content_hash(str(folder)), meta, read_job(str(folder)))
        return f"job of {token}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "cache" / "results").mkdir(parents=True)
    return Store(tmp_path / "cache")


def new_token() -> str:
    return uuid.uuid4().hex


def launched(store: Store, **request: Any) -> tuple[dict[str, Any], JobFolder]:
    """Launches, and gives what the server got."""
    request.setdefault("job", "mnist")
    token = new_token()
    assert launch(Request(token=token, **request), FORMS, store) == f"job of {token}"
    return store.accepted[token][1:]


def argument(job: JobFolder, side: str, place: str, name: str) -> Any:
    """Of the executor of a task, a component or a workflow."""
    config = next(config for path, config in job.configs.items() if path.stem.endswith(side))
    executors = {task: rule["executor"] for rule in config.get("executors", []) for task in rule["tasks"]}
    parts = {part["id"]: part for part in (*config.get("components", []), *config.get("workflows", []))}
    return (executors | parts)[place]["args"].get(name)


def test_settings_arrive_and_what_is_not_changed_is_left_out(store: Store) -> None:
    settings = {"num_rounds": 2.0, "local_steps": None, "local_lr": 0.1, "batch_size": 64, "partition": "k_classes"}
    meta, job = launched(store, settings=settings)
    assert meta["custom_props"]["launched"] == {
        "job": "mnist",
        "settings": {"num_rounds": 2, "local_lr": 0.1, "partition": "k_classes"},
        "start_from": "",
        "sites": [],
    }
    assert argument(job, "server", "scatter_and_gather", "num_rounds") == 2
    assert argument(job, "client", "train", "local_lr") == 0.1
    assert argument(job, "client", "data", "partition") == "k_classes"
    assert (meta["deploy_map"], meta["min_clients"]) == ({"app": ["@ALL"]}, 2)


def test_a_text_is_a_text_whatever_it_looks_like(store: Store) -> None:
    text = '{"path": "os.system", "args": {"command": "touch /tmp/x=y"}}'
    meta, job = launched(store, job="sparse-bert", settings={"model_name_or_path": text})
    assert argument(job, "client", "model", "model_name_or_path") == text
    assert argument(job, "client", "data", "model_name_or_path") == text
    assert meta["custom_props"]["launched"]["settings"] == {"model_name_or_path": text}


@pytest.mark.parametrize(("name", "sites"), [("fl-plus-ft", ("site-2",)), ("mnist", SITES)])
def test_chosen_sites_and_no_others(store: Store, name: str, sites: tuple[str, ...]) -> None:
    meta, job = launched(store, job=name, sites=(*sites, sites[0]))
    assert (meta["deploy_map"], meta["min_clients"]) == ({"app": ["server", *sites]}, len(sites))
    assert meta["custom_props"]["launched"]["sites"] == list(sites)
    before = {flow["id"]: flow["args"] for flow in read_job(name).workflows}
    for flow in job.workflows:
        counts = {count: before[flow["id"]].get(count) for count in SITE_COUNTS}
        wanted = {count: None if number is None else min(number, len(sites)) for count, number in counts.items()}
        assert {count: flow["args"].get(count) for count in SITE_COUNTS} == wanted


def test_every_number_of_sites_that_a_workflow_waits_for_is_known() -> None:
    arguments = {name for job in names() for flow in read_job(job).workflows for name in flow["args"]}
    assert {name for name in arguments if name.startswith("min_")} == set(SITE_COUNTS)


@pytest.mark.parametrize("start", ["job", "file"])
def test_an_earlier_model_is_put_into_the_job(store: Store, start: str) -> None:
    file = store.cache / "results" / "FL_global_model.pt"
    torch.save({"model": {"w": torch.ones(3)}}, file)
    meta, job = launched(store, start_from=FINISHED_JOB if start == "job" else str(file))
    assert (job.folder / "app" / "initial_model.pt").exists() is False  # the folder is gone by now
    assert argument(job, "server", "pre_train", "initial_model") == "initial_model.pt"
    said = FINISHED_JOB if start == "job" else "FL_global_model.pt"
    assert meta["custom_props"]["launched"]["start_from"] == said


@pytest.mark.parametrize(
    ("start_from", "message"),
    [
        ("no model", r"cannot be loaded safely: it is cut short, or not written by torch"),
        ("missing", "there is no such uploaded file"),
        ("/etc/passwd", "there is no such uploaded file"),
        ("outside", "there is no such uploaded file"),
        (RUNNING_JOB, "mnist has not ended yet"),
        (NO_JOB, "there is no job .* any more"),
    ],
)
def test_what_is_no_model_is_an_error_at_its_field(store: Store, tmp_path: Path, start_from: str, message: str) -> None:
    (store.cache / "no model").write_text("hello")
    torch.save({"w": torch.ones(3)}, tmp_path / "outside")
    (store.cache / "link").symlink_to(tmp_path / "outside")
    places = {"no model": store.cache / "no model", "missing": store.cache / "missing", "outside": store.cache / "link"}
    with pytest.raises(BundleError, match=message) as caught:
        launched(store, start_from=str(places.get(start_from, start_from)))
    assert caught.value.key == "start_from"
    assert str(tmp_path) not in str(caught.value)
    assert store.accepted == {}


@pytest.mark.parametrize(
    ("request_", "key", "message"),
    [
        ({"job": "nope"}, "job", "expected one of chest-xray, .*, got nope"),
        ({"settings": {"num_rounds": 0}}, "num_rounds", "expected a whole number, 1 or more, got 0"),
        ({"settings": {"num_rounds": None}}, "num_rounds", "got None"),
        ({"settings": {"partition": "Iid"}}, "partition", "expected iid, dirichlet, k_classes or none, got 'Iid'"),
        ({"settings": {"dataset_path": "/"}}, "dataset_path", "is not a setting of mnist in this form"),
        ({"settings": {"model": '{"path": "os.system"}'}}, "model", "is not a setting of mnist"),
        ({"sites": ("site-9",)}, "sites", "expected some of site-1, site-2, site-3, asleep, got 'site-9'"),
        ({"sites": ("site-1", "asleep")}, "sites", "asleep is connected no more, or does not answer"),
        ({"sites": ("server",)}, "sites", "expected some of"),
        ({"token": "a b"}, "token", "expected up to 128 letters"),
    ],
)
def test_what_is_wrong_is_an_error_at_its_field(
    store: Store, request_: Mapping[str, Any], key: str, message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        launch(Request(**{"job": "mnist", **request_}), FORMS, store)
    assert caught.value.key == key
    assert store.accepted == {}


def test_what_only_export_finds_is_an_error_at_its_field(store: Store) -> None:
    """The form takes any text."""
    with pytest.raises(BundleError, match=r"^model_name_or_path: ") as caught:
        launched(store, job="sparse-bert", settings={"model_name_or_path": ""})
    assert caught.value.key == "model_name_or_path"


def test_all_sites_are_not_enough_if_the_job_wants_more() -> None:
    job, one = read_job("mnist"), Snapshot(1, 10.0, clients=(Client("site-1", 10.0), Client("site-2", -90.0)))
    with pytest.raises(BundleError, match="expected at least 2 connected sites for mnist, got 1"):
        check_sites((), job, one)
    check_sites((), read_job("perfedavg"), one)
    check_sites(("site-1",), job, one)


def test_a_job_that_says_where_it_runs_runs_there() -> None:
    job = read_job("mnist")
    own = replace(job, meta={**job.meta, "deploy_map": {"one": ["server"], "two": ["site-1", "site-2"]}})
    snapshot = Snapshot(1, 10.0, clients=(Client("site-1", 10.0), Client("site-2", 10.0)))
    check_sites((), own, snapshot)
    with pytest.raises(BundleError, match="says itself where it runs"):
        check_sites(("site-1",), own, snapshot)


def test_who_may_not_submit_is_told_before_anything_is_packed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it looked for the model to start from, of which there is none here."""
    packed: list[object] = []
    monkeypatch.setattr("dashboard.launch.run_bundle", lambda *arguments: packed.append(arguments))
    store.refused = Refused("no", code="not-allowed")
    with pytest.raises(Refused) as caught:
        launched(store, start_from=NO_JOB)
    assert caught.value is store.refused
    assert packed == []
    assert store.accepted == {}


@pytest.mark.parametrize("problem", ["The FLARE server does not answer.", ""])
def test_nothing_is_launched_without_a_reading_of_the_system(store: Store, problem: str) -> None:
    store.now = Snapshot(problem=problem)
    with pytest.raises(BundleError, match=problem or "FLARE has not answered yet"):
        launched(store)


def test_a_double_click_is_one_job_and_two_launches_are_two(store: Store) -> None:
    """`Store.submit` fails on a second submission with the same token."""
    one, two = (Request("mnist", {"num_rounds": 2}, token=new_token()) for _ in range(2))
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda request: launch(request, FORMS, store), (one, two, one, two)))
    assert ids == [f"job of {request.token}" for request in (one, two, one, two)]
    hashes = {content for content, _, _ in store.accepted.values()}
    assert len(hashes) == 1  # after a restart of the dashboard FLARE compares the content by it


def test_settings_are_kept_in_the_order_of_the_form() -> None:
    form = read_form("mnist")
    assert list(changed_settings(form, {"seed": 1, "num_rounds": 2})) == ["num_rounds", "seed"]
    assert changed_settings(form, {"num_rounds": 5.0, "augment": False}) == {}


def test_a_form_is_json_all_through() -> None:
    for form in FORMS:
        for field in form.fields:
            assert json.loads(json.dumps(field.default)) == field.default
