# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The catalogue is what `python -m bundle settings --json` says, and torch stays out of the dashboard's process."""

from __future__ import annotations

import os
import subprocess
import sys

from bundle import ROOT
from bundle.form import names, read_form
from dashboard.catalog import form_values, load_forms
from dashboard.system import Job


def test_the_catalogue_has_every_job_and_is_the_same_as_the_bundle_s() -> None:
    forms = load_forms()
    assert [form.name for form in forms] == names()
    assert forms == tuple(read_form(name) for name in names())


def test_torch_is_not_imported() -> None:
    code = "import sys, dashboard.launch, dashboard.catalog; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_the_form_of_a_job_that_is_launched_again_has_its_settings() -> None:
    form = read_form("fl-plus-ft")
    settings = {"num_rounds": 2, "fine_tune.local_lr": 0.5, "gone": 1, "local_epochs": ["1"]}
    values, refused = form_values(Job("1", "fl-plus-ft", "RUNNING", settings=settings), form)
    local_epochs = form.field("local_epochs")
    assert local_epochs is not None
    assert refused == ["gone", local_epochs.label]
    assert values.keys() == {field.key for field in form.fields}
    assert (values["num_rounds"], values["fine_tune.local_lr"], values["local_epochs"]) == (2, 0.5, 1)
