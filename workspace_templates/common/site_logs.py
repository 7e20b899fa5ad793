# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Takes the error logs that sites send with their jobs, in place of nvflare 2.9.0's own component.

That one trusts names, job ids and a path that the sender wrote: a site, or a member, could overwrite files of
the server, or move them away. A component of the server's local/resources.json.
"""

from __future__ import annotations

import os
import re
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.streaming import StreamContext
from nvflare.app_common.logging.job_log_receiver import JobLogReceiver

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OWN = "JobLogReceiver."  # what its keys in the context of a stream begin with
MARK = "site_logs"


class SiteLogs(JobLogReceiver):
    """Refuses whatever is no log of a registered site.

    Args:
        dest_dir: where logs are written as they come; relative to the kit, in which a server runs, or absolute.
    """

    def __init__(self, dest_dir: str = "transfer/logs") -> None:
        super().__init__(os.path.abspath(dest_dir))
        self._mark = object()  # cannot come with a message

    @staticmethod
    def _sanitize_path_component(name: Any) -> str:
        if not name:
            return "unknown"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"is no name of a log, a site or a job: {name!r:.100}")
        return name

    def _get_trusted_stream_identity(self, fl_ctx: FLContext) -> tuple[str, str]:
        site, job_id = super()._get_trusted_stream_identity(fl_ctx)
        if not JOB_ID.fullmatch(job_id) or fl_ctx.get_engine().get_client_from_name(site) is None:
            raise ValueError(f"is no log of a registered site: {site!r:.100}, job {job_id!r:.100}")
        return site, job_id

    def _on_chunk_received(self, data: bytes, stream_ctx: StreamContext, fl_ctx: FLContext) -> None:
        self._forget_what_was_sent(stream_ctx)
        super()._on_chunk_received(data, stream_ctx, fl_ctx)

    def _on_stream_done(self, stream_ctx: StreamContext, fl_ctx: FLContext) -> None:
        self._forget_what_was_sent(stream_ctx)
        super()._on_stream_done(stream_ctx, fl_ctx)

    def _forget_what_was_sent(self, stream_ctx: StreamContext) -> None:
        """Keys of the receiver itself, in the first message of a stream."""
        if stream_ctx.get(MARK) is not self._mark:
            for key in [key for key in stream_ctx if str(key).startswith(OWN)]:
                del stream_ctx[key]
            stream_ctx[MARK] = self._mark
