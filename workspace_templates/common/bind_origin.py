# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The server takes a message from a site only over a connection with that site's certificate.

nvflare 2.9.0 compares the certificate with the name under which a cell connects, but not with the origin that each
message states: with the token of another site, a site could speak in its name. A component of the server's
local/resources.json.
"""

from __future__ import annotations

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.core_cell import Message
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey, ReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.sec.audit import AuditService

LONGEST = 100  # of what a stranger wrote and a log shows


class BindOrigin(FLComponent):
    """Refuses messages whose origin is not of the cell at the other end of the connection, with a line in audit.log."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Once, when the server's cell listens."""
        if event_type == EventType.SYSTEM_START:
            fl_ctx.get_engine().get_cell().core_cell.add_incoming_filter("*", "*", self._check)

    def _check(self, message: Message) -> Message | None:
        """The refusal; None lets a message pass. Jobs of a site are cells below it: site-1.JOB_ID."""
        sender = str(message.get_prop(MessagePropKey.ENDPOINT).name)
        origin = str(message.get_header(MessageHeaderKey.ORIGIN))
        if FQCN.split(origin)[0] == FQCN.split(sender)[0]:
            return None
        reason = f"{sender} sent a message in the name of {origin[:LONGEST]!r}"
        topic = str(message.get_header(MessageHeaderKey.TOPIC))[:LONGEST]
        AuditService.add_event(user=sender, action=repr(topic), msg=f"refused: {reason}")
        self.logger.error(f"refused: {reason}")
        return make_reply(ReturnCode.UNAUTHENTICATED, error=reason)
