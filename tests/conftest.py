# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which tests may run at the same time under `pytest -n 2`: different files, unless both need the ports of a POC."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

POC = ("tests/dashboard/browser/", "tests/dashboard/test_flare.py", "tests/jobs/test_poc.py")  # ports 8002 and 8003


class ByFile(LoadScopeScheduling):
    """Tests of a file run in one process, in their order, and so do all those of a POC."""

    def _split_scope(self, nodeid: str) -> str:
        return "POC" if nodeid.startswith(POC) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Takes the place of xdist's own schedulers."""
    return ByFile(config, log)
