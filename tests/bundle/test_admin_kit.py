# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.admin_kit import read_kit
from custom.errors import BundleError
from tests.bundle.kits import Authority, write_kit

DAY = 86400.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("hospitals")


def test_a_kit_says_whose_it_is_and_where_the_server_is(authority: Authority, tmp_path: Path) -> None:
    folder = write_kit(tmp_path, authority, user="ann@clinic.org", role="lead", host="flare.clinic.org", port=8102)
    kit = read_kit(folder)
    assert (kit.user, kit.role, kit.organization) == ("ann@clinic.org", "lead", "clinic")
    assert (kit.project, kit.address) == ("hospitals", "flare.clinic.org:8102")
    assert kit.folder == folder.resolve()
    assert read_kit(folder / "startup") == kit


def test_rights_are_those_of_the_default_policy(authority: Authority, tmp_path: Path) -> None:
    roles = ("project_admin", "org_admin", "lead", "member")
    kits = {role: read_kit(write_kit(tmp_path / role, authority, user="ann@a.org", role=role)) for role in roles}
    assert [role for role in roles if kits[role].may("submit_job")] == ["project_admin", "lead"]
    assert [role for role in roles if kits[role].may("get_job_log")] == ["project_admin"]
    assert [role for role in roles if kits[role].may("manage_job", "ann@a.org")] == [
        "project_admin",
        "org_admin",
        "lead",
    ]
    assert [role for role in roles if kits[role].may("download_job", "bob@a.org")] == ["project_admin", "org_admin"]


@pytest.mark.parametrize(
    ("age", "life", "says"),
    [(100 * DAY, 10 * DAY, "the certificate expired on"), (-DAY, 10 * DAY, "the certificate is valid only from")],
)
def test_a_certificate_that_is_not_good_now(
    authority: Authority, tmp_path: Path, age: float, life: float, says: str
) -> None:
    with pytest.raises(BundleError, match=says):
        read_kit(write_kit(tmp_path, authority, age_s=age, life_s=life))


def test_a_folder_that_is_not_there_or_is_none_of_an_admin(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        read_kit(tmp_path / "nothing")
    for name, whose in (("fed_server.json", "the server's kit"), ("fed_client.json", "a client's kit")):
        folder = tmp_path / whose / "startup"
        folder.mkdir(parents=True)
        (folder / name).write_text("{}")
        with pytest.raises(BundleError, match=whose):
            read_kit(folder.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"is not a startup kit; give the folder of an admin's kit"):
        read_kit(tmp_path / "empty")


def test_the_folder_above_the_kits_names_the_one_to_give(authority: Authority, tmp_path: Path) -> None:
    folder = write_kit(tmp_path / "prod_00" / "ann@a.org", authority)
    with pytest.raises(BundleError, match=f"is not a startup kit; there is one in {folder}"):
        read_kit(tmp_path)


@pytest.mark.parametrize("name", ["client.crt", "client.key", "rootCA.pem"])
def test_a_file_is_missing(authority: Authority, tmp_path: Path, name: str) -> None:
    folder = write_kit(tmp_path, authority)
    (folder / "startup" / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: is missing"):
        read_kit(folder)


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    folder = write_kit(tmp_path / "a", authority)
    (folder / "startup" / "client.crt").write_text("no certificate")
    with pytest.raises(BundleError, match="is not a certificate"):
        read_kit(folder)

    folder, other = write_kit(tmp_path / "b", authority), write_kit(tmp_path / "c", authority)
    (folder / "startup" / "client.key").write_bytes((other / "startup" / "client.key").read_bytes())
    with pytest.raises(BundleError, match="does not belong to the certificate"):
        read_kit(folder)
    (folder / "startup" / "client.key").write_text("no key")
    with pytest.raises(BundleError, match="is not a private key") as error:
        read_kit(folder)
    assert "no key" not in str(error.value).replace("private key", "")

    config = folder / "startup" / "fed_admin.json"
    config.write_text(json.dumps({"admin": {"host": "here"}}))
    with pytest.raises(BundleError, match="does not say port"):
        read_kit(folder)
    config.write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        read_kit(folder)
