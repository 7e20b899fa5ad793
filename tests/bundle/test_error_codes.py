"""Codes of errors: each raise has one, each is documented, none is left over."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from bundle import ROOT
from bundle.error_codes import CODES, to_markdown

PACKAGES = ("custom", "controllers", "bundle", "dashboard")
ERRORS = {"BundleError", "Unavailable", "TooFewUpdates", "Damaged", "Unreachable", "Refused"}
REJECTED = {"UpdateRejected", "PayloadRejected", "ChangesRejected"}


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    yield path, node, node.func.id


def literals(node: ast.expr) -> set[str]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def used_codes() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path, call, name in calls():
        if name in ERRORS:
            for keyword in call.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    found[str(keyword.value.value)] = path
        if name in REJECTED and call.args:
            found |= {f"update-{reason.replace('_', '-')}": path for reason in literals(call.args[0])}
    return found


def test_every_error_says_its_code() -> None:
    without = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call, name in calls()
        if name in ERRORS and not any(keyword.arg in ("code", None) for keyword in call.keywords)
    ]
    assert without == []


def test_every_code_is_documented_and_every_documented_code_is_used() -> None:
    used = used_codes()
    assert {code: path.name for code, path in used.items() if code not in CODES} == {}
    assert set(CODES) - set(used) == set()


def test_the_catalogue_is_sorted() -> None:
    assert list(CODES) == sorted(CODES)


def test_the_reference_page_is_that_of_the_catalogue() -> None:
    page = ROOT / "docs" / "reference" / "errors.md"
    assert page.read_text(encoding="utf-8") == to_markdown()
