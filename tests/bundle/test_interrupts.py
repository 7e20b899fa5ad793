# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""When an interrupt is raised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_a_module_is_imported_first(tmp_path: Path) -> None:
    """Extension modules of some libraries panic where an exception comes in the middle."""
    (tmp_path / "interrupted.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("imported\ninterrupted\n", "")


def test_a_module_that_does_not_end_is_not_waited_for(tmp_path: Path) -> None:
    text = "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n"
    (tmp_path / "interrupted.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
