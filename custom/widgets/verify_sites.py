# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Gives what a site sends the name that its token stands for.

nvflare 2.9.0 takes a site's word for it: who sent a result is read from a context that the sender wrote. One site could
answer in the names of all others, and of sites that there are not, and so outvote any aggregation rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.widgets.widget import Widget

PROCESSES = ("process_task_request", "process_submission")  # of ServerRunner: the client, ..., the context


class VerifySites(Widget):
    """A component of the server's configuration; all others then see true names. A false one is named in the log."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Once, before any site is answered."""
        if event_type == EventType.START_RUN:
            runner = fl_ctx.get_prop(FLContextKey.RUNNER)
            for name in PROCESSES:
                setattr(runner, name, self._verified(getattr(runner, name)))

    def _verified(self, process: Callable[..., Any]) -> Callable[..., Any]:
        def verified(client: Client, *arguments: Any, **named: Any) -> Any:
            fl_ctx = named["fl_ctx"] if "fl_ctx" in named else arguments[-1]
            peer = fl_ctx.get_peer_context()
            if isinstance(peer, FLContext) and (claimed := peer.get_identity_name()) != client.name:
                self.log_error(fl_ctx, f"{client.name} sent a message in the name of {str(claimed)[:100]!r}")
                true = FLContext()
                true.set_public_props({**peer.get_all_public_props(), ReservedKey.IDENTITY_NAME: client.name})
                fl_ctx.set_peer_context(true)
            return process(client, *arguments, **named)

        return verified
