# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What is in the kits of each template: certificates, settings, guards, code and rights; who can read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from bundle.allow_list import allowed_classes
from bundle.handover import to_text
from bundle.preflight import Check
from bundle.provision import Kits, provision
from bundle.templates import TEMPLATES, Wanted
from controllers.initialize_global_weights import InitializeGlobalWeights
from custom.models.bert_classifier import BertClassifier
from custom.models.emnist_cnn import EmnistCnn
from custom.models.lenet import LeNet
from custom.models.linear import LinearClassifier
from custom.models.resnet18 import ResNet18
from custom.models.small_cnn import SmallCnn

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
            guards |= {f"job_launchers.{'Server' if name == HOST else 'Site'}Launcher"}
            assert {path for path in classes if not path.startswith("nvflare.")} == guards
            for path in guards:
                assert (local / "custom" / f"{path.partition('.')[0]}.py").is_file()
            assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD=1" in (local / "site.env").read_text().splitlines()


def test_one_line_a_round(kits: dict[str, Kits]) -> None:
    for made in kits.values():
        config = json.loads((made.folder / "north" / "local" / "log_config.json").read_text())
        assert "roundFileHandler" in config["loggers"]["root"]["handlers"]
        assert config["handlers"]["roundFileHandler"]["filename"] == "log_rounds.txt"


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


def test_what_the_operator_reads(kits: dict[str, Kits]) -> None:
    text = to_text(kits["secure"], [Check("Check FL port binding", "", ""), Check("Dry run", "it broke", "mend it")])
    assert ["lead-north@flare.example", "a", "lead:"] in [line.split()[:3] for line in text.splitlines()]
    assert f"port 8002 (TCP) of {HOST}" in text
    assert "passed  Check FL port binding" in text
    assert "FAILED  Dry run\n          it broke\n          mend it" in text
    assert str(kits["secure"].state) in text
    assert "not checked: nvflare preflight-check" in to_text(kits["poc"], None)


@pytest.mark.parametrize("place", ["my kits", "it's $HOME & (1) #2"])
def test_a_kit_in_an_odd_folder_starts_and_a_second_start_is_an_error(
    kits: dict[str, Kits], tmp_path: Path, place: str
) -> None:
    """FLARE's client is a stand-in that tells its arguments."""
    kit = tmp_path / place / "north"
    shutil.copytree(kits["secure"].folder / "north", kit)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    start = kit / "startup" / "start.sh"
    once = subprocess.run([kit / "startup" / "sub_start.sh", "--once"], env=env, capture_output=True, text=True)
    assert once.returncode == 0
    assert str(kit) in once.stdout.splitlines()
    (kit / "daemon_pid.fl").write_text(str(os.getpid()))
    assert subprocess.run([start], env=env, capture_output=True, check=False).returncode == 1


def test_a_kit_in_a_folder_that_cannot_be_on_pythons_path_does_not_start(kits: dict[str, Kits], tmp_path: Path) -> None:
    kit = tmp_path / "a:b" / "north"
    shutil.copytree(kits["secure"].folder / "north", kit)
    done = subprocess.run([kit / "startup" / "start.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(kit) in done.stderr
