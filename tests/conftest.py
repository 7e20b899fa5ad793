# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which tests may run at the same time under `pytest -n 2`: different files, unless both need the ports of a POC.

And the fork server that tests marked e2e start FLARE's processes with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from bundle.forked import fork_server

POC = ("tests/dashboard/browser/", "tests/dashboard/test_flare.py")  # ports 8002 and 8003


class ByFile(LoadScopeScheduling):
    """Tests of a file run in one process, in their order, and so do all those of a POC."""

    def _split_scope(self, nodeid: str) -> str:
        return "POC" if nodeid.startswith(POC) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Takes the place of xdist's own schedulers."""
    return ByFile(config, log)


@pytest.fixture(scope="session")
def warm() -> Iterator[None]:
    """One fork server for all FLARE processes of this process's tests."""
    with fork_server():
        yield


@pytest.fixture(scope="module", autouse=True)
def _warm_where_flare_starts(request: pytest.FixtureRequest) -> None:
    """Before the fixtures of a module with tests marked e2e: they start FLARE, too."""
    if any(item.path == request.path and item.get_closest_marker("e2e") for item in request.session.items):
        request.getfixturevalue("warm")
