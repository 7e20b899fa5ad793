# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Does the code that runs come from this job's own app/custom? (docs/adr/0001-code-travels-with-the-job.md)"""

from __future__ import annotations

from pathlib import Path


def foreign_origin(app_custom_dir: str) -> str:
    """The folder `custom` was imported from if that is not `app_custom_dir`, else an empty string.

    On the path of a FLARE process a job's app/custom comes last, so a folder named custom where the process was
    started, or in site-packages, hides it.
    """
    here = Path(__file__).absolute().parent
    return "" if here.parent.resolve() == Path(app_custom_dir).resolve() else str(here)
