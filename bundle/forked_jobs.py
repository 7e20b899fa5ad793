# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE's server and sites on this machine fork the processes of their jobs, which else import torch for themselves."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from nvflare.apis.fl_component import FLComponent
from nvflare.app_common.job_launcher import process_launcher
from nvflare.utils.process_utils import ProcessAdapter

from bundle.forked import start

ENTRY = {"id": "forked_jobs", "path": "bundle.forked_jobs.ForkedJobs", "args": {}}
logger = logging.getLogger("ForkedJobs")


def fork_jobs(kits: Path) -> None:
    """Adds `ForkedJobs` to the server and the sites that have their kits in this folder, if it is not there."""
    for default in kits.glob("*/local/resources.json.default"):
        path = default.with_suffix("")
        resources = json.loads((path if path.exists() else default).read_text(encoding="utf-8"))
        if ENTRY not in (components := resources.setdefault("components", [])):
            components.append(ENTRY)
            path.write_text(json.dumps(resources, indent=2), encoding="utf-8")


class ForkedJobs(FLComponent):
    """A component of `local/resources.json`, for a server or site that was started inside `forked.fork_server()`.

    Elsewhere processes are started as usual. One that is forked ends with the server or site.
    """

    def __init__(self) -> None:
        super().__init__()
        process_launcher.spawn_process = spawn


def spawn(command: Sequence[str], env: Mapping[str, str]) -> ProcessAdapter:
    """As FLARE's `spawn_process`: a session of its own, with this process's input and output."""
    refused = partial(logger.warning, "the process of the job is not forked: %s")
    process = start(command, env=env, session=True, refused=refused)
    logger.info("Launch the job in process ID: %s", process.pid)
    return ProcessAdapter(process=process)
