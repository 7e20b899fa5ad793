# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Everything that happens around a job: run, export, link, report, data.

The bundle is installed (`pip install -e .`); `custom` and `controllers` never are, and are found beside it.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # first, so that a folder named custom where the command is typed does not hide ours
    sys.path.insert(0, str(ROOT))
PACKAGES = ("nvflare", "torch", "psutil")  # without which nothing works: those of requirements.txt


def missing_packages(*more: str) -> str:
    """What to do where PACKAGES or `more` are not installed for this Python; empty where they are."""
    if all(importlib.util.find_spec(name) for name in (*PACKAGES, *more)):
        return ""
    return (
        f"the packages of requirements.txt are not installed for {sys.executable}; in {ROOT}: "
        "source .venv/bin/activate (after `make setup`, once)"
    )
