# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Starts a job's processes from a kit in any folder: FLARE's command line breaks at a blank or a quote in a path."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobProcessArgs
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher
from nvflare.app_common.job_launcher.server_process_launcher import ServerProcessJobLauncher
from nvflare.utils.job_launcher_utils import get_client_job_args, get_server_job_args

PATHS = {
    JobProcessArgs.WORKSPACE,
    JobProcessArgs.STARTUP_DIR,
    JobProcessArgs.STARTUP_CONFIG_FILE,
    JobProcessArgs.APP_ROOT,
}


def command(fl_ctx: FLContext, names: list[str]) -> str:
    """FLARE's own command, with its paths quoted."""
    given: dict[str, Any] = fl_ctx.get_prop(FLContextKey.JOB_PROCESS_ARGS)
    options = [(name, *given[name]) for name in names if given.get(name)]
    words = [f"{option} {shlex.quote(str(value)) if name in PATHS else value}" for name, option, value in options]
    return " ".join([shlex.quote(sys.executable), *words])


class SiteLauncher(ClientProcessJobLauncher):
    """Of a site."""

    def get_command(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> str:
        return command(fl_ctx, get_client_job_args())


class ServerLauncher(ServerProcessJobLauncher):
    """Of the server."""

    def get_command(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> str:
        return command(fl_ctx, get_server_job_args())
