# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`bundle provision` with FLARE's own provisioning: who gets which kit, what is in it, and who can read it."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.workspace import Workspace

from bundle.allow_list import ADDED_BY_FLARE, ADDED_BY_RESUME, allowed_classes
from bundle.export import export
from bundle.handover import to_text
from bundle.jobs import JOBS
from bundle.preflight import Check
from bundle.provision import Kits, is_here, provision, renew
from bundle.templates import TEMPLATES, Wanted, fill_in, find_template, split_names
from controllers.initialize_global_weights import InitializeGlobalWeights
from custom.errors import BundleError
from custom.models.bert_classifier import BertClassifier
from custom.models.emnist_cnn import EmnistCnn
from custom.models.lenet import LeNet
from custom.models.linear import LinearClassifier
from custom.models.resnet18 import ResNet18
from custom.models.small_cnn import SmallCnn
from tests.bundle.conftest import Cli
from tests.jobs.deployment import free_port
from workspace_templates.common.named_classes import NamedClasses, named

NAMES = ("poc", "privacy", "secure", "secure-no-byoc")
HOST = "server.invalid"  # resolves nowhere (RFC 6761), so no port of this machine is looked at


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kits]:
    """Of every template, with the same two sites."""
    root = tmp_path_factory.mktemp("kits")
    return {name: provision(name, root / name, Wanted(("north", "site_2"), HOST)) for name in NAMES}


def resources(kits: Kits, name: str) -> dict:
    return json.loads((kits.folder / name / "local" / "resources.json").read_text())


def test_a_kit_for_everybody(kits: dict[str, Kits]) -> None:
    assert kits["poc"].admins == {"admin@flare.example": "project_admin"}
    roles = {
        "lead-north@flare.example": "lead",
        "lead-site_2@flare.example": "lead",
        "admin@flare.example": "project_admin",
        "member@flare.example": "member",
    }
    for name in ("secure", "secure-no-byoc", "privacy"):
        made = kits[name]
        assert (made.server, made.port, made.sites, made.admins) == (HOST, 8002, ("north", "site_2"), roles)
        assert {path.name for path in made.folder.iterdir()} == {HOST, "north", "site_2", *roles}


def test_nobody_else_can_read_a_kit_and_no_key_is_readable_to_others(kits: dict[str, Kits]) -> None:
    for made in kits.values():
        root = made.folder.parents[1]
        keys = [*root.rglob("*.key"), made.state / "cert.json"]
        assert len(keys) == 4 + len(made.admins)
        assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
        folders = [root, made.state, *(path for path in made.folder.iterdir())]
        assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_certificates_name_the_server_and_the_root_outlives_the_others(kits: dict[str, Kits]) -> None:
    startup = kits["secure"].folder / HOST / "startup"
    server, root = (x509.load_pem_x509_certificate((startup / f).read_bytes()) for f in ("server.crt", "rootCA.pem"))
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOST]
    assert (server.not_valid_after_utc - server.not_valid_before_utc).days == 360
    assert (root.not_valid_after_utc - root.not_valid_before_utc).days == 3650


def test_mutual_tls(kits: dict[str, Kits]) -> None:
    for made in kits.values():
        server = json.loads((made.folder / HOST / "startup" / "fed_server.json").read_text())["servers"][0]
        client = json.loads((made.folder / "north" / "startup" / "fed_client.json").read_text())
        assert server["connection_security"] == client["client"]["connection_security"] == "mtls"
        assert client["servers"][0]["service"]["target"] == f"{HOST}:8002"


def test_nothing_is_stored_in_tmp(kits: dict[str, Kits]) -> None:
    for made in kits.values():
        assert "/tmp" not in json.dumps(resources(made, HOST))
        assert (made.folder / HOST / "local" / "custom" / "kit_storage.py").is_file()


def test_time_outs_and_the_environment_of_a_site(kits: dict[str, Kits]) -> None:
    secure = kits["secure"]
    assert resources(secure, HOST)["servers"][0]["heart_beat_timeout"] == 600
    assert resources(secure, "north")["client"]["retry_timeout"] == 60
    assert resources(secure, "north")["client"]["communication_timeout"] == 120  # FLARE takes the larger of the two
    script = "set -a; . local/site.env; echo $FLARE_ON_MISSING $FLARE_DATA_ROOT $NVFLARE_GET_TASK_TIMEOUT"
    script += " $NVFLARE_NP_STREAMING_PER_REQUEST_TIMEOUT"
    site = subprocess.run(
        ["bash", "-c", script], cwd=secure.folder / "north", capture_output=True, text=True, check=True
    )
    assert site.stdout.split() == ["error", "/srv/flare-data", "120", "60"]
    start = (secure.folder / "north" / "startup" / "sub_start.sh").read_text()
    assert start.index("local/site.env") < start.index("start_python()")
    assert "\nOMP_NUM_THREADS=" not in (secure.folder / "north" / "local" / "site.env").read_text()  # on a machine each
    assert "FLARE_ON_MISSING" not in (kits["poc"].folder / "north" / "local" / "site.env").read_text()


@pytest.mark.parametrize("template", [name for name in NAMES if name != "poc"])
def test_the_first_workflow_waits_until_a_lost_site_is_known(kits: dict[str, Kits], template: str) -> None:
    server = kits[template].folder / HOST / "local"
    silence = json.loads((server / "resources.json").read_text())["servers"][0]["heart_beat_timeout"]
    grace = next(line for line in (server / "site.env").read_text().splitlines() if "GRACE" in line).partition("=")[2]
    assert InitializeGlobalWeights().task_timeout > silence + float(grace)


def test_every_kit_has_its_guards(kits: dict[str, Kits]) -> None:
    for template, made in kits.items():
        for name in (HOST, *made.sites):
            local = made.folder / name / "local"
            classes = {one["path"] for one in resources(made, name)["components"]}
            guards = {"audit_refusals.AuditRefusals"}
            guards |= {"message_guard.MessageGuard" if name == HOST else "site_commands.SiteCommands"}
            guards |= {"named_classes.NamedClasses"} if template == "secure-no-byoc" else set()
            guards |= {"kit_storage.KitStorage", "site_logs.SiteLogs"} if name == HOST else set()
            assert {path for path in classes if not path.startswith("nvflare.")} == guards
            for path in guards:
                assert (local / "custom" / f"{path.partition('.')[0]}.py").is_file()
            assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD=1" in (local / "site.env").read_text().splitlines()


def test_classes_in_arguments_are_found_at_any_depth() -> None:
    nested = {"model": {"path": "a.B", "args": {"parts": [{"class_path": "c.D"}, {"path": 3}]}}, "file": "x.y"}
    assert sorted(named(nested)) == ["3", "a.B", "c.D"]
    assert list(named(None)) == []
    for _ in range(10_000):
        nested = {"parts": [nested]}
    assert sorted(named(nested)) == ["3", "a.B", "c.D"]
    nested["itself"] = nested
    assert sorted(named(nested)) == ["3", "a.B", "c.D"]


@pytest.mark.parametrize(
    ("resources", "reason"),
    [({"class_allow_list": ["a."]}, "'b.C' in the arguments of 'a.B' is not in allow_list"), ({}, "class_allow_list")],
)
def test_what_cannot_be_checked_is_refused(tmp_path: Path, resources: dict[str, Any], reason: str) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "startup").mkdir()
    (tmp_path / "local" / "resources.json").write_text(json.dumps(resources))
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(tmp_path)))
    fl_ctx.set_prop(FLContextKey.COMPONENT_CONFIG, {"path": "a.B", "args": {"model": {"path": "b.C"}}})
    with pytest.raises(UnsafeComponentError, match=reason):
        NamedClasses().handle_event(EventType.BEFORE_BUILD_COMPONENT, fl_ctx)


def test_one_line_a_round(kits: dict[str, Kits]) -> None:
    for made in kits.values():
        config = json.loads((made.folder / "north" / "local" / "log_config.json").read_text())
        assert "roundFileHandler" in config["loggers"]["root"]["handlers"]
        assert config["handlers"]["roundFileHandler"]["filename"] == "log_rounds.txt"


def test_the_allow_list_is_what_the_jobs_name() -> None:
    """Independent of `bundle.arguments`: every "path" in the text of the jobs' JSON, and what FLARE adds."""
    named: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                named.add(value["path"])
            list(map(walk, value.values()))
        elif isinstance(value, list):
            list(map(walk, value))

    for file in JOBS.glob("*/app/config/config_fed_*.json"):
        walk(json.loads(file.read_text()))
    allowed = allowed_classes()
    assert set(allowed) == named | {*ADDED_BY_FLARE, *ADDED_BY_RESUME}
    assert "custom.executors.trainer.Trainer" in allowed
    assert len(allowed) == len(set(allowed))
    assert not any(path.endswith(".") for path in allowed)  # a prefix would let in more than the jobs name


def test_sites_without_byoc_have_the_code_and_the_list_and_nobody_the_right(kits: dict[str, Kits]) -> None:
    made = kits["secure-no-byoc"]
    for name in (HOST, *made.sites):
        local = made.folder / name / "local"
        assert resources(made, name)["class_allow_list"] == allowed_classes()
        assert resources(made, name)["class_list_enforcement_mode"] == "enforce"
        assert (local / "custom" / "custom" / "executors" / "trainer.py").is_file()
        assert (local / "custom" / "controllers" / "fine_tune.py").is_file()
        rights = json.loads((local / "authorization.json").read_text())["permissions"]
        assert {role: right.get("byoc", "none") for role, right in rights.items()} == dict.fromkeys(rights, "none")
    assert not (made.folder / "admin@flare.example" / "local" / "custom").exists()


def test_more_classes_can_be_allowed_and_nonsense_cannot() -> None:
    more = ["custom.compression.criteria.", "mine.Mine"]
    assert set(allowed_classes(more)) - set(allowed_classes()) == set(more)
    for nonsense in ("*", "", "Mine", "a b.C"):
        with pytest.raises(BundleError, match="allow: expected the path of a class"):
            allowed_classes([nonsense])


def test_the_filters_of_a_private_site_are_its_own(kits: dict[str, Kits]) -> None:
    made = kits["privacy"]
    scope = json.loads((made.folder / "north" / "local" / "privacy.json").read_text())["scopes"][0]
    assert [entry["path"].rpartition(".")[2] for entry in scope["task_result_filters"]] == [
        "KeepLocalModel",
        "ExcludeVars",
        "PercentilePrivacy",
    ]
    assert (made.folder / "north" / "local" / "custom" / "keep_local_model.py").is_file()
    assert not (made.folder / HOST / "local" / "privacy.json").exists()
    assert resources(made, "north")["allow_log_streaming"] is False
    assert resources(kits["secure"], "north")["allow_log_streaming"] is True


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_a_private_site_keeps_the_last_bias_of_every_model(pooling: str) -> None:
    """Of every model here: the bias with as many entries as there are classes."""
    filters = json.loads((TEMPLATES / "privacy" / "privacy.json").read_text())["scopes"][0]["task_result_filters"]
    pattern = next(one["args"]["exclude_vars"] for one in filters if "exclude_vars" in one["args"])
    bert = BertClassifier(model_name_or_path="embedded", num_classes=7, pooling=pooling)
    for model in (bert, *(kind(num_classes=7) for kind in (LeNet, SmallCnn, EmnistCnn, ResNet18, LinearClassifier))):
        last = [name for name, value in model.state_dict().items() if value.shape == (7,)]
        assert [bool(re.search(pattern, name)) for name in last] == [True], last


def test_new_keys_for_all_under_the_same_root_and_a_site_that_came_later(tmp_path: Path) -> None:
    before = provision("poc", tmp_path / "out", Wanted(("a",), HOST))
    project = tmp_path / "out" / "project.yml"
    block = '  - name: "a"\n    type: client\n    org: "a"\n'
    project.write_text(project.read_text().replace(block, block + block.replace('"a"', '"b"')))
    after = renew(tmp_path / "out")
    assert (after.folder.name, after.sites) == ("prod_01", ("a", "b"))

    def read(kits: Kits, name: str) -> bytes:
        return (kits.folder / "a" / "startup" / name).read_bytes()

    assert read(before, "rootCA.pem") == read(after, "rootCA.pem")
    assert read(before, "client.key") != read(after, "client.key")
    assert read(before, "client.crt") != read(after, "client.crt")

    project.write_text("participants: nobody\n")
    state = (after.state / "cert.json").read_text()
    with pytest.raises(BundleError, match="FLARE refuses it"):
        renew(tmp_path / "out")
    assert (after.state / "cert.json").read_text() == state
    with pytest.raises(BundleError, match="was it provisioned there"):
        renew(tmp_path / "nothing")


def test_the_root_key_survives_a_full_disk_and_damage_is_named(tmp_path: Path) -> None:
    """This process may write 512 bytes a file meanwhile."""
    made = provision("poc", tmp_path / "out", Wanted(("a",), HOST))
    state = made.state / "cert.json"
    before = state.read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            renew(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert state.read_text() == before
    assert list(made.state.iterdir()) == [state]
    state.rename(made.state / "cert.json.before")  # as a renewal leaves it that is killed at its worst moment
    state.write_text("{}")
    renew(tmp_path / "out")
    assert json.loads(state.read_text())["root_pri_key"] == json.loads(before)["root_pri_key"]
    state.write_text(before[:100])
    with pytest.raises(BundleError, match=r"cert\.json: expected the root certificate and its key"):
        renew(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sites": ()}, "--sites: expected the name of at least one site"),
        ({"sites": ("a", "b", "A")}, "--sites: .* cannot have one name, .*, got a"),
        ({"sites": ("server",)}, "--sites: .* cannot have one name, .*, got server"),
        ({"sites": ("host",), "host": "host"}, "--sites: .* cannot have one name, .*, got host"),
        ({"sites": ("a/b",)}, "--sites: expected names of letters"),
        ({"sites": ("a\n",)}, "--sites: expected names of letters"),
        ({"sites": ("st-mary", "St_Mary")}, "--sites: .* cannot have one name, .*, got st-mary"),
        ({"sites": ("x" * 46,)}, "--sites: expected names of letters, digits, '-' and '_', at most 45 long"),
        ({"host": "0.0.0.0"}, "--host: expected the name or IPv4 address"),
        ({"domain": f"{'d' * 37}.org"}, "--domain: expected a domain such as hospital.example, at most 40 long"),
        ({"host": "a b"}, "--host: expected the name or IPv4 address"),
        ({"host": "a_b"}, "--host: expected the name or IPv4 address"),
        ({"port": 0}, "--port: expected a number from 1 to 65535, got 0"),
        ({"port": 70000}, "--port: expected a number from 1 to 65535, got 70000"),
        ({"domain": "example"}, "--domain: expected a domain"),
    ],
)
def test_what_is_refused(changes: dict, problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        Wanted(**changes).check()


def test_names_with_commas_and_blanks() -> None:
    assert split_names(["a,b", "c", " d ,"]) == ("a", "b", "c", "d")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BundleError, match=f"--port {port}: localhost: Address already in use"):
            provision("poc", tmp_path / "out", Wanted(port=port))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_and_an_unknown_template(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="exists and is not empty"):
        provision("poc", tmp_path, Wanted(host=HOST))
    with pytest.raises(BundleError, match="sekure: no such template; there are poc, privacy, secure, secure-no-byoc"):
        find_template("sekure")


def test_a_template_of_ones_own_and_its_mistakes(tmp_path: Path) -> None:
    mine = shutil.copytree(TEMPLATES / "poc", tmp_path / "mine")
    project = mine / "project.yml"
    text = project.read_text()
    project.write_text(text.replace("federation", "mine"))
    made = provision(str(mine), tmp_path / "out", Wanted(host=HOST))
    assert made.folder == tmp_path / "out" / "mine" / "prod_00"
    project.write_text(text.replace("$port", "$prot"))
    with pytest.raises(BundleError, match="expected no placeholders but"):
        fill_in(mine, Wanted())
    project.write_text(text.replace("'$template'}", "'$template', local_files: [none.json]}"))
    with pytest.raises(BundleError, match="no such file in the template"):
        provision(str(mine), tmp_path / "other", Wanted(host=HOST))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize("template", NAMES)
def test_names_that_yaml_reads_as_something_else(template: str) -> None:
    sites = ("no", "1", "0x1f", "null")
    project = yaml.safe_load(fill_in(find_template(template), Wanted(sites, "10.0.0.1")))
    assert [one["name"] for one in project["participants"] if one["type"] == "client"] == list(sites)
    assert [one["org"] for one in project["participants"] if one["type"] == "client"] == list(sites)


def test_a_folder_with_any_name(tmp_path: Path) -> None:
    mine = shutil.copytree(TEMPLATES / "poc", tmp_path / "Ann's, new: #1")
    assert provision(str(mine), tmp_path / "out", Wanted(host=HOST)).sites == ("site-1", "site-2")


def test_a_host_with_too_long_a_part_is_not_here() -> None:
    assert not is_here("a" * 64, 8002)


def test_comments_stay_and_every_site_has_its_part() -> None:
    text = fill_in(find_template("secure"), Wanted(("a-1", "b"), HOST, 9000, "hospital.example"))
    assert "# the operator" in text
    assert text.count("role: lead") == text.count("type: client") == 2
    assert 'org: "a_1"' in text  # FLARE takes no hyphen here
    assert "fed_learn_port: 9000" in text
    assert "$" not in text


def test_what_the_operator_reads(kits: dict[str, Kits]) -> None:
    text = to_text(kits["secure"], [Check("Check FL port binding", "", ""), Check("Dry run", "it broke", "mend it")])
    assert ["lead-north@flare.example", "a", "lead:"] in [line.split()[:3] for line in text.splitlines()]
    assert f"port 8002 (TCP) of {HOST}" in text
    assert "passed  Check FL port binding" in text
    assert "FAILED  Dry run\n          it broke\n          mend it" in text
    assert str(kits["secure"].state) in text
    assert "not checked: nvflare preflight-check" in to_text(kits["poc"], None)


def test_the_command_checks_the_server_and_leaves_its_kit_clean(cli: Cli, tmp_path: Path) -> None:
    out, port = tmp_path / "out", free_port()
    done = cli("provision", "poc", out, "--sites", "a,b", "--port", str(port))
    assert done.returncode == 0, done.stderr
    assert "passed  Check FL port binding" in done.stdout
    assert "passed  Check dry run" in done.stdout
    assert sorted(os.listdir(out / "federation" / "prod_00" / "localhost")) == [
        "local",
        "readme.txt",
        "startup",
        "transfer",
    ]
    share = max(1, (os.cpu_count() or 1) // 2)
    assert f"\nOMP_NUM_THREADS={share}\n" in (out / "federation" / "prod_00" / "b" / "local" / "site.env").read_text()
    again = cli("provision", "poc", out)
    assert again.returncode == 2
    assert "exists and is not empty" in again.stderr
    assert cli("provision", "poc", out, "--renew", "--port", "1").returncode == 2
    assert "prod_01" in cli("provision", "poc", out, "--renew").stdout


def test_a_job_without_code(tmp_path: Path) -> None:
    """The rest of it is as with code, settings included."""
    jobs = {code: export("hello-pt", tmp_path / str(code), ["num_rounds=7"], code).folder for code in (True, False)}
    assert (jobs[True] / "app" / "custom").is_dir()
    assert sorted(path.name for path in (jobs[False] / "app").iterdir()) == ["config"]
    files = [path.relative_to(jobs[False]) for path in jobs[False].rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert all((jobs[False] / file).read_bytes() == (jobs[True] / file).read_bytes() for file in files)
