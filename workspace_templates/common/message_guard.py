# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the server takes, and passes on, from the cells of sites and admins: what FLARE's own programs send, no more.

nvflare 2.9.0 compares a certificate with the name under which a cell connects, and a token with the client that it was
made for. It looks neither at the origin that a message states, nor at whom it is for, nor at what it asks: whoever has
a kit could speak in the name of others, give admin commands to other sites, end a job's process or the server's, and
register once more under a name made up. A component of the server's local/resources.json.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import RunProcessKey, ServerCommandNames
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
from nvflare.private.stream_runner import TOPIC_STREAM_ABORT, TOPIC_STREAM_REQUEST

LONGEST = 100  # of what a stranger wrote and a log shows
SERVER = FQCN.ROOT_SERVER
ALL = None
Routes = Mapping[str, Collection[str] | None]  # topics by channel
TO_ANY: Routes = {
    CellChannel.RETURN_ONLY: ALL,
    OBJ_DOWNLOADER_CHANNEL: ALL,
    "credential_manager": ALL,  # exchange of certificates for messages encrypted end to end
}
TO_SERVER: Routes = {
    **TO_ANY,
    CellChannel.CELLNET: (CellChannelTopic.Bye,),
    CellChannel.AUX_COMMUNICATION: (TOPIC_STREAM_REQUEST, TOPIC_STREAM_ABORT),
}
SITE_TO_SERVER: Routes = {
    **TO_SERVER,
    CellChannel.SERVER_MAIN: (
        CellChannelTopic.Challenge,
        CellChannelTopic.Register,
        CellChannelTopic.HEART_BEAT,
        CellChannelTopic.REPORT_JOB_FAILURE,
        CellChannelTopic.Quit,
    ),
}
SITE_TO_JOB: Routes = {
    **TO_ANY,
    CellChannel.SERVER_COMMAND: (ServerCommandNames.GET_TASK, ServerCommandNames.SUBMIT_UPDATE),
    CellChannel.AUX_COMMUNICATION: ALL,
}
ADMIN_TO_SERVER: Routes = {
    **TO_SERVER,
    CellChannel.SERVER_MAIN: (CellChannelTopic.Challenge, CellChannelTopic.Register),
    CellChannel.HCI: ALL,
}


class MessageGuard(FLComponent):
    """Refuses all other messages, with a line in audit.log. The server's own job processes may say what they like."""

    def __init__(self) -> None:
        super().__init__()
        self._engine: Any = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Once, as soon as there is a cell."""
        if event_type in (EventType.SYSTEM_BOOTSTRAP, EventType.SYSTEM_START) and self._engine is None:
            self._engine = fl_ctx.get_engine()
            self._engine.get_cell().core_cell.add_incoming_filter("*", "*", self._check)

    def _check(self, message: Message) -> Message | None:
        """The refusal; None lets a message pass."""
        sender = str(message.get_prop(MessagePropKey.ENDPOINT).name)
        if FQCN.split(sender)[0] == SERVER:
            return None
        fault = _fault_of_sender(sender, message) or self._fault_of_content(sender, message)
        if not fault:
            return None
        topic = str(_route(message)[1])[:LONGEST]
        AuditService.add_event(user=sender[:LONGEST], action=repr(topic), msg=f"refused: {sender[:LONGEST]} {fault}")
        self.logger.error(f"refused: {sender[:LONGEST]} {fault}")
        return make_reply(ReturnCode.UNAUTHENTICATED, error=fault)

    def _fault_of_content(self, sender: str, message: Message) -> str:
        """Is it for whom it may speak to, and what it may say? The fault; empty if there is none."""
        family, is_admin = FQCN.split(sender)[0], is_valid_admin_client_name(sender)
        destination = str(message.get_header(MessageHeaderKey.DESTINATION))
        place, *job = FQCN.split(destination)
        if place != SERVER and (is_admin or place != family):
            return f"sent a message to {destination[:LONGEST]!r}"
        if job and place == SERVER and (is_admin or not self._takes_part(family, job[0])):
            return f"sent a message to {destination[:LONGEST]!r}"
        kind = message.get_header(MessageHeaderKey.MSG_TYPE)
        if kind == MessageType.RETURN and _family_of_original(message) != family:
            return "returned a message that it was not sent"
        channel, topic = _route(message)
        if kind != MessageType.REQ or channel == STREAM_CHANNEL or place == family:
            return ""  # a reply, the acknowledgement of a piece of a stream, or between its own cells
        routes = ADMIN_TO_SERVER if is_admin else SITE_TO_JOB if job else SITE_TO_SERVER
        topics = routes.get(str(channel), ())
        if topics is not ALL and topic not in topics:
            return f"sent {str(topic)[:LONGEST]!r} on {str(channel)[:LONGEST]!r}"
        client_type = message.get_header(CellMessageHeaderKeys.CLIENT_TYPE, "")
        registers = (channel, topic) == (CellChannel.SERVER_MAIN, CellChannelTopic.Register)
        if registers and client_type != (ClientType.ADMIN if is_admin else ClientType.REGULAR):
            return f"wanted to register as {str(client_type)[:LONGEST]!r}"
        return ""

    def _takes_part(self, site: str, job_id: str) -> bool:
        """In a job that runs; nothing is known of others, and nobody is there to hear."""
        run = self._engine.run_processes.get(job_id) if self._engine else None
        participants = (run or {}).get(RunProcessKey.PARTICIPANTS) or {}
        return not participants or site in {client.name for client in participants.values()}


def _fault_of_sender(sender: str, message: Message) -> str:
    """Is it from whom it says? The fault; empty if there is none. Jobs of a site are cells below it: site-1.JOB_ID."""
    owner = str(message.get_prop(MessagePropKey.COMMON_NAME, ""))  # of the certificate at the other end
    origin = str(message.get_header(MessageHeaderKey.ORIGIN))
    if FQCN.split(origin)[0] != FQCN.split(sender)[0]:
        return f"sent a message in the name of {origin[:LONGEST]!r}"
    if is_valid_admin_client_name(sender) != ("@" in owner):  # admins have e-mail addresses, and sites cannot
        return f"connected with the certificate of {owner[:LONGEST]!r}"
    client = message.get_header(CellMessageHeaderKeys.CLIENT_NAME)
    if client is not None and client != owner:
        return f"sent a message as client {str(client)[:LONGEST]!r}"
    if message.get_header(MessageHeaderKey.CONN_URL):  # the server would connect to it, whoever that is
        return "offered another connection"
    return ""


def _route(message: Message) -> tuple[object, object]:
    """Channel and topic; of what a stream brings, those at its end."""
    channel, topic = message.get_header(MessageHeaderKey.CHANNEL), message.get_header(MessageHeaderKey.TOPIC)
    if (channel, topic) == (STREAM_CHANNEL, STREAM_DATA_TOPIC):
        return message.get_header(StreamHeaderKey.CHANNEL, ""), message.get_header(StreamHeaderKey.TOPIC)
    return channel, topic


def _family_of_original(message: Message) -> str:
    """Of a message that could not be delivered: whom it was for."""
    original = message.get_header(MessageHeaderKey.ORIGINAL_HEADERS)
    destination = original.get(MessageHeaderKey.DESTINATION) if isinstance(original, dict) else None
    return FQCN.split(destination)[0] if isinstance(destination, str) else ""
