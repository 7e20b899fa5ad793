# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import subprocess
import sys

import pytest

from bundle.exit_code import in_words, killer

ENDS_AS_ITS_CHILD = """
import multiprocessing, os, sys
child = multiprocessing.get_context("fork").Process(target=lambda: os.kill(os.getpid(), {number}))
child.start()
child.join()
sys.exit(child.exitcode)
"""


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (11, "SIGSEGV")])
def test_the_signal_of_a_process_and_of_one_that_ends_as_its_child_did(number: int, name: str) -> None:
    """As FLARE's simulator does: its own exit code is that of its server's process."""
    for code in (f"import os; os.kill(os.getpid(), {number})", ENDS_AS_ITS_CHILD.format(number=number)):
        ended = subprocess.run([sys.executable, "-c", code], check=False).returncode
        assert killer(ended) == number
        assert f"signal {number} ({name}" in in_words(ended)


@pytest.mark.parametrize("code", [0, 1, 2, 130, 191])
def test_an_exit_code_is_no_signal(code: int) -> None:
    assert killer(code) == 0
    assert in_words(code) == f"ended with exit code {code}"
