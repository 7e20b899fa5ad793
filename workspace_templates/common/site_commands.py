# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which admin commands a site takes: from its server, and none that reads its files or runs code.

nvflare 2.9.0 asks a site's policy only if the message says so, its shell commands (`cat`, `grep`, ...) read any file,
and the configuration of a job's log can name any callable. A component of a site's local/resources.json.
"""

from __future__ import annotations

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.core_cell import Message
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.sec.audit import AuditService
from nvflare.fuel.utils.log_utils import validate_site_log_config
from nvflare.private.admin_defs import error_reply
from nvflare.private.defs import RequestHeader, SysCommandTopic, TrainingTopic, new_cell_message

LONGEST = 100  # of what a stranger wrote and a log shows


class SiteCommands(FLComponent):
    """Refuses the others, with a line in audit.log."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Once, when the site's cell is up."""
        if event_type == EventType.SYSTEM_START:
            cell = fl_ctx.get_engine().get_cell().core_cell
            cell.add_incoming_request_filter(CellChannel.CLIENT_MAIN, "*", self._check)

    def _check(self, message: Message) -> Message | None:
        """The refusal; None lets a command pass."""
        origin, request = str(message.get_header(MessageHeaderKey.ORIGIN)), message.payload
        fault = _fault(origin, str(request.topic), request.body)
        if not fault:
            return None
        user = str(request.get_header(RequestHeader.USER_NAME) or origin)[:LONGEST]
        AuditService.add_event(user=user, action=str(request.topic)[:LONGEST], msg=f"refused: {fault}")
        self.logger.error(f"refused: {fault}")
        return new_cell_message({}, error_reply(f"refused by the site: {fault}"))


def _fault(origin: str, topic: str, body: object) -> str:
    if origin != FQCN.ROOT_SERVER:
        return f"a command of {origin[:LONGEST]!r}, which is not the server"
    if topic == SysCommandTopic.SHELL:
        return "shell commands, which read any file"
    if topic == TrainingTopic.CONFIGURE_JOB_LOG:
        try:
            validate_site_log_config(body)
        except ValueError:
            return "the configuration of a log that is no level or mode, which can name code"
    return ""
