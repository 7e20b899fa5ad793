# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""At a site, takes over what it had kept of a job that this one continues; `python -m bundle resume` adds it."""

from __future__ import annotations

import shutil
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.widgets.widget import Widget

from custom.names import check_name
from custom.panic import fails_next_task

# The first model, with which local_only begins; the last one, for submit_model; what sparse exchange has held back.
KEPT = ("first_model.pt", "local_model.pt", "residual_*.pt")


class CarryOver(Widget):
    """Copies from the run folder of the earlier job, before the first task.

    Args:
        job_id: of the earlier job.
        workspaces: where the sites' workspaces of the earlier job are, a folder each; in the simulator only. Elsewhere
            a site has one workspace for all its jobs.
    """

    def __init__(self, job_id: str = "", workspaces: str = "") -> None:
        super().__init__()
        self.job_id, self.workspaces = job_id, workspaces

    @fails_next_task
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Copies what is not here yet: in the simulator with -t below -n, every task starts a process."""
        if event_type != EventType.START_RUN:
            return
        here = Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
        there = self._earlier(here, fl_ctx.get_identity_name())
        if not there.is_dir():
            self.log_warning(
                fl_ctx,
                f"no run folder {there} of the job that this one continues: what sparse exchange had held back "
                "is lost, and local_only begins with the model of the first round here",
            )
            return
        for path in (path for pattern in KEPT for path in sorted(there.glob(pattern))):
            if not (here / path.name).exists():
                part = here / f".{path.name}.part"
                shutil.copyfile(path, part)
                part.replace(here / path.name)

    def _earlier(self, here: Path, site: str) -> Path:
        """The run folder of the earlier job."""
        job_id = check_name(self.job_id, "job_id")
        return Path(self.workspaces, site, job_id) if self.workspaces else here.with_name(job_id)
