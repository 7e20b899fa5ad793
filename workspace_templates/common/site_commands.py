# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which admin commands a site takes: from its server and its own jobs, and none that reads its files.

nvflare 2.9.0 asks a site's policy only if the message says so, and its shell commands (`cat`, `grep`, ...) read any
file with one of seven endings. A component of a site's local/resources.json.
"""

from __future__ import annotations

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.core_cell import Message
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.sec.audit import AuditService
from nvflare.private.admin_defs import error_reply
from nvflare.private.defs import RequestHeader, SysCommandTopic, new_cell_message

LONGEST = 100  # of what a stranger wrote and a log shows


class SiteCommands(FLComponent):
    """Refuses the others, with a line in audit.log."""

    def __init__(self) -> None:
        super().__init__()
        self._installed = False

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Once, as soon as there is a cell."""
        if event_type in (EventType.SYSTEM_BOOTSTRAP, EventType.SYSTEM_START) and not self._installed:
            cell = fl_ctx.get_engine().get_cell().core_cell
            cell.add_incoming_request_filter(CellChannel.CLIENT_MAIN, "*", self._check)
            self._installed = True

    def _check(self, message: Message) -> Message | None:
        """The refusal; None lets a command pass."""
        origin, request = str(message.get_header(MessageHeaderKey.ORIGIN)), message.payload
        own = FQCN.split(str(message.get_header(MessageHeaderKey.DESTINATION)))[0]
        fault = ""
        if origin != FQCN.ROOT_SERVER and FQCN.split(origin)[0] != own:
            fault = f"a command of {origin[:LONGEST]!r}, which is not the server"
        elif request.topic == SysCommandTopic.SHELL:
            fault = "shell commands, which read any file"
        if not fault:
            return None
        user = str(request.get_header(RequestHeader.USER_NAME) or origin)[:LONGEST]
        AuditService.add_event(user=user, action=str(request.topic)[:LONGEST], msg=f"refused: {fault}")
        self.logger.error(f"refused: {fault}")
        return new_cell_message({}, error_reply(f"refused by the site: {fault}"))
