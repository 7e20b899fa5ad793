# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Shared by the tests of this folder."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Batches are too small to be worth two threads, which wait for each other when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
