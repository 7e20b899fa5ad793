# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The classes that the bundle's jobs name: what a site allows that lets jobs bring no code of their own.

FLARE looks at the path of every component of such a job, its own classes included, before anything is imported.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bundle import ROOT
from bundle.arguments import components
from bundle.jobs import JOBS, read_job
from bundle.link import PACKAGES
from custom.errors import BundleError

# What FLARE's SiteLogStreamer, a component of every site, puts into the job that it starts.
ADDED_BY_FLARE = ("nvflare.app_common.logging.job_log_streamer.JobLogStreamer",)
# What `bundle resume` puts into a job.
ADDED_BY_RESUME = ("controllers.continued_rounds.ContinuedRounds", "custom.widgets.carry_over.CarryOver")

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+\.?|[A-Za-z_]\w*\.")


def allowed_classes(more: Sequence[str] = ()) -> list[str]:
    """Every class in jobs/*/app/config/*.json, what FLARE and `bundle resume` add, and `more`.

    A prefix in `more` ends with a dot.

    Raises:
        BundleError: an entry of `more` is no path of a class.
    """
    for path in more:
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            expected = "the path of a class, or a prefix such as custom.compression."
            raise BundleError(code="template-unusable", key="allow", expected=expected, got=repr(path))
    jobs = [read_job(str(meta.parent)) for meta in sorted(JOBS.glob("*/meta.json"))]
    return sorted(
        {component.path for job in jobs for component in components(job.configs)}
        | {*ADDED_BY_FLARE, *ADDED_BY_RESUME, *more}
    )


def install_code(folder: Path) -> None:
    """Copies what jobs otherwise bring in app/custom into `folder`, a site's local/custom."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
