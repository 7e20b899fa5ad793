# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Every package that set-up installs is locked, with its hashes, as the requirements say. No network is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {  # what each must hold
    "runtime": "requirements.txt",
    "dev": "requirements-dev.txt",
    "bench": "requirements-bench.txt",
    "build": "locks/build.in",
    "audit": "locks/audit.in",
}
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
INSTALLS = re.compile(r"-m pip install|\$\(INSTALL\)")
ITSELF = "--no-build-isolation --no-deps -e ."
Locked = dict[tuple[str, str], tuple[Requirement, frozenset[str]]]  # by name and version


def read_lock(name: str) -> Locked:
    """Name, version and hashes of each entry; fails for a line that is anything else."""
    locked: Locked = {}
    text = re.sub(r"#.*", "", (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        wanted = Requirement(HASH.sub("", line).strip())
        [pin] = wanted.specifier
        assert (pin.operator, wanted.url, wanted.extras) == ("==", None, set()), line
        assert "*" not in pin.version, line
        locked[canonicalize_name(wanted.name), pin.version] = wanted, frozenset(HASH.findall(line))
    return locked


def read_requirements(path: str) -> list[Requirement]:
    """Those of the file, and of the files that it names."""
    found = []
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found += read_requirements(line[3:])
        elif line:
            found.append(Requirement(line))
    return found


def here(locked: Locked) -> dict[str, str]:
    """Version by name, of those for this Python on this system."""
    wanted = {key: requirement.marker for key, (requirement, _) in locked.items()}
    return {name: version for (name, version), marker in wanted.items() if marker is None or marker.evaluate()}


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_hashes(name: str) -> None:
    locked = read_lock(name)
    assert locked
    assert [key for key, (_, hashes) in locked.items() if not hashes] == []


@pytest.mark.parametrize(("name", "path"), LOCKS.items())
def test_the_lock_has_what_the_requirements_ask_for(name: str, path: str) -> None:
    locked = here(read_lock(name))
    wanted = [one for one in read_requirements(path) if one.marker is None or one.marker.evaluate()]
    assert wanted
    for one in wanted:
        assert one.specifier.contains(locked[canonicalize_name(one.name)], prereleases=True), f"{one}: run `make lock`"


def test_requirements_are_pinned_exactly() -> None:
    for path in ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt"):
        for one in read_requirements(path):
            assert [pin.operator for pin in one.specifier] == ["=="], one


def test_the_locks_agree() -> None:
    """The development lock installs over the run-time one, and what is built is built by what is installed."""
    everything = read_lock("dev")
    for name in ("runtime", "build"):
        assert {key: everything.get(key) for key in read_lock(name)} == read_lock(name)


@pytest.mark.parametrize("name", ["runtime", "dev"])
def test_what_a_locked_package_needs_is_locked_too(name: str) -> None:
    """By the metadata of what is installed here, where that is the version of the lock."""
    locked = here(read_lock(name))
    looked_at = 0
    for package, version in locked.items():
        try:
            found = distribution(package)
        except PackageNotFoundError:
            continue
        if found.version != version:
            continue
        looked_at += 1
        for text in found.requires or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert need.specifier.contains(locked[canonicalize_name(need.name)], prereleases=True), (package, text)
    assert looked_at > 100


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")], ids="-".join)
def test_no_package_is_locked_twice_for_one_machine(python: str, system: tuple[str, str]) -> None:
    """And torch, which differs most between them, is there for each."""
    machine = {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": system[1]}
    environment = machine | {"sys_platform": system[0], "platform_python_implementation": "CPython", "os_name": "posix"}
    names = [
        name
        for (name, _), (requirement, _) in read_lock("dev").items()
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]
    assert len(names) == len(set(names))
    assert "torch" in names
    assert ("triton" in names) == (system[0] == "linux")


def test_set_up_takes_nothing_without_a_hash() -> None:
    """But the bundle itself, which is this folder."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if INSTALLS.search(line)]
    assert len(installs) >= 6
    for line in installs:
        safe = (
            "$(INSTALL)" in line or "--require-hashes" in line or line.endswith("--no-build-isolation --no-deps -e .")
        )
        assert safe, line
        if "$(INSTALL)" in line:
            assert re.search(r"-r locks/\w+\.txt$", line), line


def test_the_sbom_lists_the_run_time_lock_and_is_valid(tmp_path: Path) -> None:
    """Made as `make sbom` does."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    [recipe] = re.findall(r"\$\(BIN\)/cyclonedx-py (.*) -o workspace/sbom.json", (ROOT / "Makefile").read_text())
    out = tmp_path / "sbom.json"
    command = [
        str(Path(sys.executable).with_name("cyclonedx-py")),
        *recipe.split(),
        "-o",
        str(out),
        "locks/runtime.txt",
    ]
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    text = out.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {
        (part["name"], part["version"]): {
            entry["content"] for link in part["externalReferences"] for entry in link["hashes"]
        }
        for part in json.loads(text)["components"]
    }
    assert listed == {key: set(hashes) for key, (_, hashes) in read_lock("runtime").items()}
