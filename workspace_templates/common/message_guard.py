# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the server takes, and passes on, from the cells of sites and admins: what FLARE's own programs send, no more.

nvflare 2.9.0 compares a certificate with the name under which a cell connects, and a token with the client that it was
made for. It looks neither at the origin that a message states, nor at whom it is for, nor at what it asks: whoever has
a kit could speak in the name of others, give admin commands to other sites, end a job's process or the server's, and
register once more under a name made up. A component of the server's local/resources.json.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import ServerCommandNames
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.core_cell import Message
from nvflare.fuel.f3.cellnet.defs import (
    CellChannel,
    CellChannelTopic,
    MessageHeaderKey,
    MessagePropKey,
    MessageType,
    ReturnCode,
)
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.streaming.download_service import OBJ_DOWNLOADER_CHANNEL
from nvflare.fuel.f3.streaming.stream_const import STREAM_CHANNEL, STREAM_DATA_TOPIC, StreamHeaderKey
from nvflare.fuel.sec.audit import AuditService
from nvflare.fuel.utils.admin_name_utils import is_valid_admin_client_name
from nvflare.private.defs import CellMessageHeaderKeys, ClientType

LONGEST = 100  # of what a stranger wrote and a log shows
SERVER = FQCN.ROOT_SERVER
ALL = None
Routes = Mapping[str, Collection[str] | None]  # topics by channel
BOTH: Routes = {
    CellChannel.CELLNET: (CellChannelTopic.Bye,),
    CellChannel.AUX_COMMUNICATION: ALL,
    CellChannel.RETURN_ONLY: ALL,
    OBJ_DOWNLOADER_CHANNEL: ALL,
    "credential_manager": ALL,  # exchange of certificates for messages encrypted end to end
}
SITES: Routes = {
    **BOTH,
    CellChannel.SERVER_MAIN: (
        CellChannelTopic.Challenge,
        CellChannelTopic.Register,
        CellChannelTopic.HEART_BEAT,
        CellChannelTopic.REPORT_JOB_FAILURE,
        CellChannelTopic.Quit,
    ),
    CellChannel.SERVER_COMMAND: (ServerCommandNames.GET_TASK, ServerCommandNames.SUBMIT_UPDATE),
}
ADMINS: Routes = {
    **BOTH,
    CellChannel.SERVER_MAIN: (CellChannelTopic.Challenge, CellChannelTopic.Register),
    CellChannel.HCI: ALL,
}


class MessageGuard(FLComponent):
    """Refuses all other messages, with a line in audit.log. The server's own job processes may say what they like."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Once, when the server's cell listens."""
        if event_type == EventType.SYSTEM_START:
            fl_ctx.get_engine().get_cell().core_cell.add_incoming_filter("*", "*", self._check)

    def _check(self, message: Message) -> Message | None:
        """The refusal; None lets a message pass."""
        sender = str(message.get_prop(MessagePropKey.ENDPOINT).name)
        if FQCN.split(sender)[0] == SERVER:
            return None
        fault = self._fault(sender, message)
        if not fault:
            return None
        topic = str(_route(message)[1])[:LONGEST]
        AuditService.add_event(user=sender[:LONGEST], action=repr(topic), msg=f"refused: {sender[:LONGEST]} {fault}")
        self.logger.error(f"refused: {sender[:LONGEST]} {fault}")
        return make_reply(ReturnCode.UNAUTHENTICATED, error=fault)

    def _fault(self, sender: str, message: Message) -> str:
        """What is wrong; empty if nothing is. Jobs of a site are cells below it: site-1.JOB_ID."""
        family = FQCN.split(sender)[0]
        owner = str(message.get_prop(MessagePropKey.COMMON_NAME, ""))  # of the certificate at the other end
        is_admin = is_valid_admin_client_name(sender)
        origin = str(message.get_header(MessageHeaderKey.ORIGIN))
        if FQCN.split(origin)[0] != family:
            return f"sent a message in the name of {origin[:LONGEST]!r}"
        if is_admin != ("@" in owner):  # names of admins are e-mail addresses, and those of sites cannot be
            return f"connected with the certificate of {owner[:LONGEST]!r}"
        client = message.get_header(CellMessageHeaderKeys.CLIENT_NAME)
        if client is not None and client != owner:
            return f"sent a message as client {str(client)[:LONGEST]!r}"
        destination = str(message.get_header(MessageHeaderKey.DESTINATION))
        if destination != SERVER and (is_admin or FQCN.split(destination)[0] not in (SERVER, family)):
            return f"sent a message to {destination[:LONGEST]!r}"
        channel, topic = _route(message)
        if message.get_header(MessageHeaderKey.MSG_TYPE) != MessageType.REQ or channel == STREAM_CHANNEL:
            return ""  # a reply, or the acknowledgement of a piece of a stream
        topics = (ADMINS if is_admin else SITES).get(str(channel), ())
        if topics is not ALL and topic not in topics:
            return f"sent {str(topic)[:LONGEST]!r} on {str(channel)[:LONGEST]!r}"
        kind = message.get_header(CellMessageHeaderKeys.CLIENT_TYPE, "")
        registers = (channel, topic) == (CellChannel.SERVER_MAIN, CellChannelTopic.Register)
        if registers and kind != (ClientType.ADMIN if is_admin else ClientType.REGULAR):
            return f"wanted to register as {str(kind)[:LONGEST]!r}"
        return ""


def _route(message: Message) -> tuple[object, object]:
    """Channel and topic; of what a stream brings, those at its end."""
    channel, topic = message.get_header(MessageHeaderKey.CHANNEL), message.get_header(MessageHeaderKey.TOPIC)
    if (channel, topic) == (STREAM_CHANNEL, STREAM_DATA_TOPIC):
        return message.get_header(StreamHeaderKey.CHANNEL, ""), message.get_header(StreamHeaderKey.TOPIC)
    return channel, topic
