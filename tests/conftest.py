# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which tests must not run at the same time: those of one file, and those that need the ports of a POC."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for `pytest -n 2 --dist loadgroup`, each of which runs in one process, in order."""
    for item in items:
        group = "poc" if item.get_closest_marker("poc") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
