# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""When an interrupt is raised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import time
from bundle.interrupts import interrupts_call, raise_keyboard_interrupt
with interrupts_call(raise_keyboard_interrupt):
    try:
        import interrupted
        print("imported")
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize(("then", "told"), [("pass", "imported\ninterrupted\n"), ("time.sleep(60)", "interrupted\n")])
def test_a_module_is_imported_first_if_that_takes_no_time(tmp_path: Path, then: str, told: str) -> None:
    """Extension modules of some libraries panic where an exception comes in the middle."""
    text = f"import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\n{then}\n"
    (tmp_path / "interrupted.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == (told, "")
