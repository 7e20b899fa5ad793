# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`--set`: which keys there are, what they change, and what is refused. Uses the job of conftest."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from bundle import settings
from bundle.jobs import JOBS, read_job
from custom.errors import BundleError
from tests.bundle.conftest import CLIENT, SERVER

Configs = dict[Path, dict[str, Any]]


@pytest.fixture
def configs() -> Configs:
    return copy.deepcopy({Path("config_fed_server.json"): SERVER, Path("config_fed_client.json"): CLIENT})


def apply(configs: Configs, *assignments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    settings.apply(configs, settings.parse(assignments))
    server, client = configs.values()
    return server, client


def test_values_are_json_and_else_text() -> None:
    values = settings.parse(
        ["a=1", "b=0.5", "c=true", "d=[1, 2]", "e=iid", "f=x=y", "g=", "h=null", "i=NaN", "j=1e999"]
    )
    assert values == {
        "a": 1, "b": 0.5, "c": True, "d": [1, 2], "e": "iid", "f": "x=y", "g": "", "h": None, "i": "NaN", "j": "1e999",
    }  # fmt: skip


@pytest.mark.parametrize("setting", ["num_rounds", "=3", " =3"])
def test_what_is_no_assignment_is_refused(setting: str) -> None:
    with pytest.raises(BundleError, match="expected key=value"):
        settings.parse([setting])


def test_a_key_twice_is_refused() -> None:
    with pytest.raises(BundleError, match="is set twice"):
        settings.parse(["a=1", "a=2"])


def test_the_name_of_an_argument_is_a_key(configs: Configs) -> None:
    server, client = apply(configs, "num_rounds=3", "alpha=0.1")
    assert server["workflows"][1]["args"]["num_rounds"] == 3
    assert client["components"][0]["args"]["alpha"] == 0.1


@pytest.mark.parametrize("key", ["train.local_epochs", "client.train.local_epochs", "local_epochs"])
def test_an_executor_goes_by_its_task(configs: Configs, key: str) -> None:
    assert apply(configs, f"{key}=7")[1]["executors"][0]["executor"]["args"]["local_epochs"] == 7


@pytest.mark.parametrize("key", ["k", "split.k", "data.split.k"])
def test_a_nested_component_goes_by_its_argument(configs: Configs, key: str) -> None:
    assert apply(configs, f"{key}=4")[1]["components"][0]["args"]["split"]["args"]["k"] == 4


@pytest.mark.parametrize("key", ["sigma", "privacy.sigma", "train.sigma"])
def test_a_filter_goes_by_its_module_or_task(configs: Configs, key: str) -> None:
    assert apply(configs, f"{key}=0.2")[0]["task_result_filters"][0]["filters"][0]["args"]["sigma"] == 0.2


def test_a_whole_number_may_stand_for_a_float(configs: Configs) -> None:
    assert apply(configs, "alpha=1")[1]["components"][0]["args"]["alpha"] == 1


def test_an_argument_that_two_components_have_needs_an_id(configs: Configs) -> None:
    with pytest.raises(BundleError, match=r"2 components of the job have it: rounds\.timeout, selector\.timeout"):
        apply(configs, "timeout=2")
    assert apply(configs, "rounds.timeout=2")[0]["workflows"][1]["args"]["timeout"] == 2


def test_a_parameter_that_the_json_does_not_have_can_be_set_for_our_own_classes(configs: Configs) -> None:
    server, _ = apply(configs, "weight_method=average", "pre_train.task_timeout=9")
    assert server["workflows"][0]["args"] == {"task_name": "get_weights", "weight_method": "average", "task_timeout": 9}


@pytest.mark.parametrize(("setting", "expected"), [("weight_method=3", "str"), ("draw_seed=abc", "int")])
def test_such_a_parameter_has_the_type_of_the_constructor(configs: Configs, setting: str, expected: str) -> None:
    with pytest.raises(BundleError, match=f"expected {expected}, got"):
        apply(configs, setting)


def test_a_union_accepts_each_of_its_types(configs: Configs) -> None:
    for value in ("null", "site-1", '["site-1"]'):
        apply(configs, f"weights_client_name={value}")
    with pytest.raises(BundleError, match="expected str or list or null, got int 3"):
        apply(configs, "weights_client_name=3")


@pytest.mark.parametrize(
    "setting",
    ["num_rounds=two", "num_rounds=2.5", "num_rounds=true", "augment=1", "alpha=NaN", "key_metric=3", "alpha=null"],
)
def test_a_value_of_the_wrong_type_is_refused(configs: Configs, setting: str) -> None:
    before = copy.deepcopy(configs)
    with pytest.raises(BundleError, match=r"expected .*, got"):
        apply(configs, "k=9", setting)
    assert configs == before


def test_an_unknown_key_is_answered_with_the_nearest_and_all_candidates(configs: Configs) -> None:
    with pytest.raises(BundleError, match=r"did you mean num_rounds\?") as caught:
        apply(configs, "num_round=3")
    assert "rounds: num_rounds, min_clients, timeout" in str(caught.value)
    assert "train: local_epochs, augment" in str(caught.value)


SEED = {"id": "seed", "path": "custom.learning.seed.Seed", "args": {"seed": 0}}


def with_seed(configs: Configs, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None) -> None:
    for config, changes in zip(configs.values(), (server, client), strict=True):
        config["components"].insert(0, copy.deepcopy(SEED) | (changes or {}))


def seeds(configs: Configs) -> list[Any]:
    return [config["components"][0]["args"].get("seed") for config in configs.values()]


@pytest.mark.parametrize("key", ["seed", "seed.seed"])
def test_the_same_component_at_the_server_and_the_sites_is_one_setting(configs: Configs, key: str) -> None:
    with_seed(configs)
    apply(configs, f"{key}=1")
    assert seeds(configs) == [1, 1]


@pytest.mark.parametrize(("side", "expected"), [("server", [1, 0]), ("client", [0, 1])])
def test_one_side_of_it_can_be_named(configs: Configs, side: str, expected: list[int]) -> None:
    with_seed(configs)
    apply(configs, f"{side}.seed.seed=1")
    assert seeds(configs) == expected


@pytest.mark.parametrize("changes", [{"server": {"args": {}}}, {"client": {"args": {}}}])
def test_a_side_that_leaves_it_to_the_default_is_set_too(configs: Configs, changes: dict[str, Any]) -> None:
    with_seed(configs, **changes)
    apply(configs, "seed=1")
    assert seeds(configs) == [1, 1]


def test_it_is_set_at_both_sides_where_neither_has_it(configs: Configs) -> None:
    with_seed(configs, {"args": {}}, {"args": {}})
    apply(configs, "seed=1")
    assert seeds(configs) == [1, 1]


@pytest.mark.parametrize("changes", [{"id": "other"}, {"path": "a.Seed"}])
def test_another_id_or_class_is_another_setting(configs: Configs, changes: dict[str, Any]) -> None:
    with_seed(configs, changes)
    with pytest.raises(BundleError, match="2 components of the job have it"):
        apply(configs, "seed=1")
    assert seeds(configs) == [0, 0]


def test_two_components_of_one_side_are_two_settings(configs: Configs) -> None:
    with_seed(configs)
    next(iter(configs.values()))["components"].append(copy.deepcopy(SEED))
    with pytest.raises(BundleError, match="3 components of the job have it"):
        apply(configs, "seed=1")


def test_filters_have_no_id_and_stay_two_settings(configs: Configs) -> None:
    server, client = configs.values()
    client["task_result_filters"] = copy.deepcopy(server["task_result_filters"])
    with pytest.raises(BundleError, match=r"server\.privacy\.sigma, client\.privacy\.sigma"):
        apply(configs, "sigma=1.0")


def test_a_wrong_value_for_both_sides_changes_neither(configs: Configs) -> None:
    with_seed(configs)
    with pytest.raises(BundleError, match="expected int, got str"):
        apply(configs, "seed=a")
    assert seeds(configs) == [0, 0]


def test_what_several_parts_must_have_alike_is_set_in_all(configs: Configs) -> None:
    """The encoder of sparse-bert: its model and its tokenizer. A key with an id still means that one alone."""
    client = configs[Path("config_fed_client.json")]
    client["components"] = [
        {"id": "model", "path": "custom.models.bert_classifier.BertClassifier", "args": {}},
        {"id": "data", "path": "custom.data.text_data.TextData", "args": {"model_name_or_path": "embedded"}},
    ]
    apply(configs, "model_name_or_path=some/encoder", "on_missing=error")
    assert [part["args"] for part in client["components"]] == [
        {"model_name_or_path": "some/encoder", "on_missing": "error"},
        {"model_name_or_path": "some/encoder", "on_missing": "error"},
    ]
    apply(configs, "model.model_name_or_path=another")
    assert [part["args"]["model_name_or_path"] for part in client["components"]] == ["another", "some/encoder"]


@pytest.fixture
def places(configs: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configs:
    """A job with our data and fine-tuning, and a current folder that holds `models/bert`, `data` and `embedded`."""
    for name in ("models/bert", "data", "embedded"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    configs[Path("config_fed_client.json")]["components"] = [
        {"id": "texts", "path": "custom.data.text_data.TextData", "args": {"model_name_or_path": "some/encoder"}},
        {"id": "writers", "path": "custom.data.writer_data.WriterData", "args": {}},
        {"id": "tuner", "path": "custom.executors.fine_tuner.FineTuner", "args": {"personal_dir": "personal_models"}},
        {"id": "other", "path": "a.Data", "args": {"part": {"path": "a.Data", "args": {}}}},
    ]
    return configs


@pytest.mark.parametrize(
    ("key", "value", "here"),
    [
        ("texts.model_name_or_path", "models/bert", "models/bert"),
        ("texts.model_name_or_path", "./models/bert", "models/bert"),
        ("texts.model_name_or_path", "./mistyped", "mistyped"),  # an error at the sites; a name on the Hub has no dot
        ("texts.dataset_path", "data", "data"),
        ("writers.cache_dir", "data", "data"),
    ],
)
def test_a_folder_that_lies_here_becomes_absolute(
    places: Configs, tmp_path: Path, key: str, value: str, here: str
) -> None:
    _, client = apply(places, f"{key}={value}")
    entry = next(part for part in client["components"] if part["id"] == key.partition(".")[0])
    assert entry["args"][key.rpartition(".")[2]] == str(tmp_path / here)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("texts.model_name_or_path", "models/mistyped"),  # a name on the Hub may look like that
        ("texts.model_name_or_path", "embedded"),
        ("texts.dataset_path", "~/data"),
        ("texts.dataset_path", "/data"),
        ("texts.dataset", "data"),
        ("tuner.personal_dir", "data"),  # in the site's workspace
    ],
)
def test_any_other_value_stays_as_it_is(places: Configs, key: str, value: str) -> None:
    _, client = apply(places, f"{key}={value}")
    entry = next(part for part in client["components"] if part["id"] == key.partition(".")[0])
    assert entry["args"][key.rpartition(".")[2]] == value


def test_a_folder_in_a_new_component_becomes_absolute_too(places: Configs, tmp_path: Path) -> None:
    whole = '{"path": "a.Data", "args": {"dataset_path": "data"}}'
    _, client = apply(places, f"texts={whole}", f"part={whole}")
    texts, *_, other = client["components"]
    assert texts["args"] == other["args"]["part"]["args"] == {"dataset_path": str(tmp_path / "data")}


def test_a_whole_component_or_workflow_is_replaced_by_its_id(configs: Configs) -> None:
    server, client = apply(configs, 'data={"path": "b.Data", "args": {"k": 1}}', 'rounds={"path": "b.Rounds"}')
    assert client["components"][0] == {"id": "data", "path": "b.Data", "args": {"k": 1}}
    assert server["workflows"][1] == {"id": "rounds", "path": "b.Rounds", "args": {}}


@pytest.mark.parametrize(
    ("key", "expected"),
    [("seed", ["b.S", "b.S"]), ("server.seed", ["b.S", SEED["path"]]), ("client.seed", [SEED["path"], "b.S"])],
)
def test_it_is_replaced_wherever_the_id_occurs_or_at_one_side(configs: Configs, key: str, expected: list[str]) -> None:
    with_seed(configs)
    apply(configs, f'{key}={{"path": "b.S"}}')
    assert [config["components"][0]["path"] for config in configs.values()] == expected


def test_another_setting_may_be_of_the_new_class(configs: Configs) -> None:
    server, _ = apply(configs, "timeout_s=9", 'rounds={"path": "controllers.fine_tune.FineTune"}')
    assert server["workflows"][1]["args"] == {"timeout_s": 9}


def test_an_argument_that_is_a_component_is_no_id(configs: Configs) -> None:
    _, client = apply(configs, 'split={"path": "b.Split", "args": {}}')
    assert client["components"][0]["args"]["split"] == {"path": "b.Split", "args": {}}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('dat={"path": "b.Data"}', r"--set dat: the job has no such component or argument \(did you mean data\?\)"),
        ('data={"path": "b.Data", "arg": {}}', r'--set data: expected \{"path": \.\.\., "args": \{\.\.\.\}\}, got'),
        ('data={"path": "b.Data", "args": [1]}', r"--set data args: expected a JSON object, got \[1\]"),
        ('split={"path": "b.Split", "args": null}', r"--set split args: expected a JSON object, got null"),
    ],
)
def test_a_component_that_cannot_be_put_anywhere_is_refused(configs: Configs, setting: str, message: str) -> None:
    before = copy.deepcopy(configs)
    with pytest.raises(BundleError, match=message):
        apply(configs, 'rounds={"path": "b.Rounds"}', setting)
    assert configs == before


def test_a_class_may_answer_to_another_key(configs: Configs) -> None:
    configs[Path("config_fed_client.json")]["components"][0] = {
        "id": "data",
        "path": "custom.data.xray_data.XrayData",
        "args": {"dataset": "auto"},
    }
    assert apply(configs, "data=synthetic")[1]["components"][0]["args"] == {"dataset": "synthetic"}


def test_nothing_of_a_stranger_is_imported(configs: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting somebody's job must not run what lies beside it."""
    (tmp_path / "evil.py").write_text("raise RuntimeError('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for config in configs.values():
        config["components"].append({"id": "e", "path": "evil.Thing", "args": {"k": 1}})
    with pytest.raises(BundleError, match=r"2 components of the job have it: server\.e\.k, client\.e\.k"):
        apply(configs, "e.k=2")
    apply(configs, "client.e.k=2")


ROW = re.compile(r"\| ((?:`[\w.]+`(?:, )?)+) \| (.*?) \|")
WORDS = ("none", "all", "by device", "by model")  # for a default that has no value
ALSO = {"criterion": "MagnitudeChange", "model": ""}  # components, not arguments


@pytest.mark.parametrize("job", sorted(path.parent.name for path in JOBS.glob("*/README.md")))
def test_the_table_of_settings_in_a_job_s_readme_is_true(job: str) -> None:
    configs = read_job(job).configs
    table = (JOBS / job / "README.md").read_text().partition("\n| key | default |")[2].partition("\n\n")[0]
    rows = ROW.findall(table)
    assert len(rows) >= 3
    for keys_text, defaults_text in rows:
        keys, defaults = re.findall(r"`([\w.]+)`", keys_text), defaults_text.split(", ")
        defaults = defaults * len(keys) if len(defaults) == 1 else defaults
        for key, told in zip(keys, defaults, strict=True):
            if key not in ALSO:
                (part, name), *_ = settings.find(configs, key)
                parameter = part.parameters().get(name)
                value = part.arguments.get(name, parameter.default if parameter else None)
                assert (not value) if told in WORDS else settings.parse([f"k={told.strip('`')}"])["k"] == value, key


@pytest.fixture
def apps() -> Configs:
    """An app for the server, and one for each of two sites."""
    paths = {"app_server": ("server", SERVER), "app_site-1": ("client", CLIENT), "app_site-2": ("client", CLIENT)}
    return {
        Path(app, "config", f"config_fed_{side}.json"): copy.deepcopy(config) for app, (side, config) in paths.items()
    }


@pytest.mark.parametrize(
    ("key", "epochs"),
    [
        ("local_epochs", [9, 9]),
        ("train.local_epochs", [9, 9]),
        ("client.train.local_epochs", [9, 9]),
        ("site-1.train.local_epochs", [9, 1]),
        ("app_site-2.local_epochs", [1, 9]),
        ("site-2.client.train.local_epochs", [1, 9]),
    ],
)
def test_a_key_is_for_all_apps_or_for_one(apps: Configs, key: str, epochs: list[int]) -> None:
    settings.apply(apps, settings.parse([f"{key}=9"]))
    _, *clients = apps.values()
    assert [client["executors"][0]["executor"]["args"]["local_epochs"] for client in clients] == epochs


def test_a_component_of_one_app_is_replaced(apps: Configs) -> None:
    settings.apply(apps, settings.parse(['site-2.data={"path": "b.Data"}']))
    _, *clients = apps.values()
    assert [client["components"][0]["path"] for client in clients] == ["a.Data", "b.Data"]


def test_an_app_that_is_not_there_is_refused(apps: Configs) -> None:
    with pytest.raises(BundleError) as caught:
        settings.apply(apps, settings.parse(["site-3.data.alpha=1"]))
    assert caught.value.code == "setting-unknown"
    assert "app_site-2." in str(caught.value)
