# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Finding a workspace template and filling it in; what is refused before anything is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from bundle.provision import provision
from bundle.templates import TEMPLATES, Wanted, fill_in, find_template, split_names
from custom.errors import BundleError

NAMES = ("poc", "privacy", "secure", "secure-no-byoc")
HOST = "server.invalid"  # resolves nowhere (RFC 6761), so no port of this machine is looked at


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


@pytest.mark.parametrize("template", NAMES)
def test_names_that_yaml_reads_as_something_else(template: str) -> None:
    sites = ("no", "1", "0x1f", "null")
    project = yaml.safe_load(fill_in(find_template(template), Wanted(sites, "10.0.0.1")))
    assert [one["name"] for one in project["participants"] if one["type"] == "client"] == list(sites)
    assert [one["org"] for one in project["participants"] if one["type"] == "client"] == list(sites)


def test_comments_stay_and_every_site_has_its_part() -> None:
    text = fill_in(find_template("secure"), Wanted(("a-1", "b"), HOST, 9000, "hospital.example"))
    assert "# the operator" in text
    assert text.count("role: lead") == text.count("type: client") == 2
    assert 'org: "a_1"' in text  # FLARE takes no hyphen here
    assert "fed_learn_port: 9000" in text
    assert "$" not in text


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


def test_a_folder_with_any_name(tmp_path: Path) -> None:
    mine = shutil.copytree(TEMPLATES / "poc", tmp_path / "Ann's, new: #1")
    assert provision(str(mine), tmp_path / "out", Wanted(host=HOST)).sites == ("site-1", "site-2")
