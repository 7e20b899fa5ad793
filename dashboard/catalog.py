# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The jobs that can be launched, each with the form of its main settings; see `bundle.form`."""

from __future__ import annotations

import json
from typing import Any

from bundle.command import run_bundle
from bundle.form import Field, JobForm
from custom.errors import BundleError
from dashboard.system import Job

__all__ = ["Field", "JobForm", "form_values", "load_forms"]


def load_forms() -> tuple[JobForm, ...]:
    """All jobs of the bundle, in the order of their names. Takes seconds.

    Raises:
        BundleError: one of them is not as it must be.
    """
    return tuple(_form(form) for form in json.loads(run_bundle("settings", "--json")))


def form_values(job: Job, form: JobForm) -> tuple[dict[str, Any], list[str]]:
    """What to put into the form to launch `job` again.

    Returns:
        By key its settings, and the defaults of all others; and the settings, by label or key, that this form does not
        take, as after an update of the bundle.
    """
    values, refused = {}, [key for key in job.settings if form.field(key) is None]
    for field in form.fields:
        try:
            values[field.key] = field.checked(job.settings[field.key]) if field.key in job.settings else field.default
        except BundleError:
            values[field.key] = field.default
            refused.append(field.label)
    return values, refused


def _form(form: dict[str, Any]) -> JobForm:
    fields = (Field(**field | {"choices": tuple(field["choices"])}) for field in form["fields"])
    return JobForm(form["job"], form["title"], form["description"], tuple(fields))
