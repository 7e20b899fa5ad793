# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The layers of docs/adr/0002-layers.md, held by walking every import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PURE = ("custom/models", "custom/data", "custom/learning", "custom/compression", "custom/checks")
RULES = [  # (folders, what they must not import)
    (
        PURE,
        (
            "nvflare",
            "controllers",
            "custom.executors",
            "custom.aggregators",
            "custom.filters",
            "custom.locators",
            "custom.widgets",
        ),
    ),
    (("custom", "controllers"), ("bundle", "dashboard", "tests", "benchmarks")),
    (("dashboard",), ("torch",)),
    (("bundle", "dashboard"), ("tests", "benchmarks")),
]


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offences(folders: tuple[str, ...], forbidden: tuple[str, ...]) -> list[str]:
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in sorted(imports(file))
        if any(name == bad or name.startswith(f"{bad}.") for bad in forbidden)
    ]


@pytest.mark.parametrize(("folders", "forbidden"), RULES)
def test_layers(folders: tuple[str, ...], forbidden: tuple[str, ...]) -> None:
    assert offences(folders, forbidden) == []


def test_the_walk_finds_what_is_there() -> None:
    """The rule would be worth nothing if it could not see an import: executors do import nvflare."""
    assert offences(("custom/executors",), ("nvflare",)) != []
