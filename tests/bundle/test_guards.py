# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The guards of the kits as FLARE's cells call them; tests/fault/test_intruders.py sends such messages for real."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.workspace import Workspace
from nvflare.app_common.streamers.log_streamer import KEY_FILE_NAME
from nvflare.fuel.f3.cellnet.core_cell import Message
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey, MessageType
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.streaming.stream_const import (
    STREAM_ACK_TOPIC,
    STREAM_CHANNEL,
    STREAM_DATA_TOPIC,
    StreamHeaderKey,
)
from nvflare.fuel.sec.audit import AuditService
from nvflare.private.admin_defs import Message as AdminCommand
from nvflare.private.defs import CellMessageHeaderKeys

from workspace_templates.common.message_guard import MessageGuard
from workspace_templates.common.named_classes import NamedClasses, named
from workspace_templates.common.site_commands import SiteCommands
from workspace_templates.common.site_logs import SiteLogs

ORIGIN, KIND = MessageHeaderKey.ORIGIN, MessageHeaderKey.MSG_TYPE
JOB = "0f78895e-89f7-4b65-9992-f7f46972cf71"
ADMIN, MEMBER = f"_admin_{uuid.uuid4()}", "member@flare.example"


@pytest.fixture(autouse=True)
def audit(tmp_path: Path) -> Iterator[Path]:
    """FLARE's audit log."""
    path = tmp_path / "audit.log"
    AuditService.close()
    AuditService.initialize(str(path))
    yield path
    AuditService.close()


def message(
    sender: str, owner: str, destination: str, channel: str, topic: str, streamed: bool = False, **headers: str
) -> Message:
    """As the server's cell gets it: `sender` is the cell at the other end, `owner` is in its certificate."""
    route = {MessageHeaderKey.CHANNEL: channel, MessageHeaderKey.TOPIC: topic}
    if streamed:
        route = {
            MessageHeaderKey.CHANNEL: STREAM_CHANNEL,
            MessageHeaderKey.TOPIC: STREAM_DATA_TOPIC,
            StreamHeaderKey.CHANNEL: channel,
            StreamHeaderKey.TOPIC: topic,
        }
    known = {
        MessageHeaderKey.MSG_TYPE: MessageType.REQ,
        MessageHeaderKey.ORIGIN: sender,
        MessageHeaderKey.DESTINATION: destination,
        CellMessageHeaderKeys.CLIENT_NAME: owner,
    }
    made = Message({**known, **route, **headers}, None)
    made.set_prop(MessagePropKey.ENDPOINT, Endpoint(sender))
    made.set_prop(MessagePropKey.COMMON_NAME, owner)
    return made


SITE = ("site-1", "site-1")
SITE_JOB = (f"site-1.{JOB}", "site-1")
SESSION = (ADMIN, MEMBER)


@pytest.mark.parametrize(
    "passes",
    [
        message(*SITE, "server", "task", "challenge"),
        message(*SITE, "server", "task", "register", client_type="regular"),
        message(*SITE, "server", "task", "heart_beat"),
        message(*SITE, "server", "task", "report_job_failure"),
        message(*SITE_JOB, f"server.{JOB}", "server_command", "get_task", streamed=True),
        message(*SITE_JOB, f"server.{JOB}", "server_command", "submit_update", streamed=True),
        message(*SITE_JOB, f"server.{JOB}", "aux_communication", "fed.event", streamed=True),
        message(*SITE_JOB, f"server.{JOB}", "download_service__", "download_service__download", streamed=True),
        message(*SITE_JOB, f"server.{JOB}", STREAM_CHANNEL, STREAM_ACK_TOPIC),
        message(*SITE_JOB, "server", "cellnet.channel", "bye"),
        message(*SITE, "server", "admin", "admin", **{KIND: MessageType.REPLY}),
        message(*SITE, "server", "aux_communication", "ObjectStreamer.Request", streamed=True),
        message(*SESSION, "server", "task", "register", client_type="admin"),
        message(*SESSION, "server", "hci_channel", "command", streamed=True),
        message("server.JOB", "", "site-1", "admin", "train.abort"),
    ],
)
def test_what_flares_programs_send_passes(passes: Message) -> None:
    assert MessageGuard()._check(passes) is None


@pytest.mark.parametrize(
    ("refused", "fault"),
    [
        (message(*SITE, "server", "task", "heart_beat", **{ORIGIN: "site-2"}), "in the name of 'site-2'"),
        (message(*SITE, "server", "task", "heart_beat", client_name="site-"), "as client 'site-'"),
        (message(*SITE, "site-2", "admin", "sys.shell"), "a message to 'site-2'"),
        (message(*SITE, "site-2", "admin", "admin", **{KIND: MessageType.REPLY}), "a message to 'site-2'"),
        (message(*SITE, "site-2", "aux_communication", "x", streamed=True), "a message to 'site-2'"),
        (message(*SITE, f"server.{JOB}", "server_command", "abort"), "'abort' on 'server_command'"),
        (message(*SITE, f"server.{JOB}", "server_command", "abort", streamed=True), "'abort' on 'server_command'"),
        (message(*SITE, "server", "server_parent_listener", "get_clients"), "on 'server_parent_listener'"),
        (message(*SITE, "server", "_net_manager", "stop", streamed=True), "'stop' on '_net_manager'"),
        (message(*SITE, "server", "aux_communication", "fed.event", streamed=True), "'fed.event' on"),
        (message(*SITE_JOB, f"server.{JOB}", "cellnet.channel", "bye"), "'bye' on 'cellnet.channel'"),
        (
            message(*SITE, "server", "task", "heart_beat", **{MessageHeaderKey.CONN_URL: "tcp://x:1"}),
            "another connection",
        ),
        (message(*SITE, "server", "admin", "admin", **{KIND: MessageType.RETURN}), "returned a message"),
        (message(*SITE, "server", "hci_channel", "command", streamed=True), "'command' on 'hci_channel'"),
        (message(*SITE, "server", "cellnet.channel", "bulk"), "'bulk' on 'cellnet.channel'"),
        (message(*SITE, "server", STREAM_CHANNEL, STREAM_DATA_TOPIC), "'None' on ''"),
        (message(*SITE, "server", "task", "register", client_type="admin"), "to register as 'admin'"),
        (message(*SESSION, "server", "task", "register", client_type="regular"), "to register as 'regular'"),
        (message(*SESSION, "server", "task", "heart_beat"), "'heart_beat' on 'task'"),
        (message(*SESSION, f"server.{JOB}", "hci_channel", "command"), f"a message to 'server.{JOB}'"),
        (message(ADMIN, "site-1", "server", "task", "challenge"), "the certificate of 'site-1'"),
    ],
)
def test_all_else_is_refused_and_audited(refused: Message, fault: str, audit: Path) -> None:
    assert MessageGuard()._check(refused) is not None
    line = audit.read_text().strip()
    assert fault in line, line
    assert "refused: " in line


@pytest.mark.parametrize(
    ("origin", "topic", "fault"),
    [
        ("server", "train.start_job", ""),
        (f"site-1.{JOB}", "train.notify_job_status", ""),  # as each job's process says how it ended
        ("server", "sys.shell", "shell commands"),
        ("site-2", "train.abort", "a command of 'site-2'"),
    ],
)
def test_commands_of_a_site(origin: str, topic: str, fault: str, audit: Path) -> None:
    headers = {ORIGIN: origin, MessageHeaderKey.DESTINATION: "site-1"}
    reply = SiteCommands()._check(Message(headers, AdminCommand(topic=topic, body="cat x.txt")))
    assert (reply is not None) is bool(fault)
    assert fault in (reply.payload.body if reply else "")
    assert fault in audit.read_text()


def test_a_job_hears_of_its_own_sites_alone() -> None:
    guard = MessageGuard()
    participants = {"token": Client("site-2", "token")}
    guard._engine = SimpleNamespace(run_processes={JOB: {RunProcessKey.PARTICIPANTS: participants}})
    ask = (f"server.{JOB}", "server_command", "get_task")
    assert guard._check(message("site-1", "site-1", *ask, streamed=True)) is not None
    assert guard._check(message("site-2", "site-2", *ask, streamed=True)) is None


def context(site: str, job_id: str) -> FLContext:
    peer, fl_ctx = FLContext(), FLContext()
    peer.set_public_props({ReservedKey.IDENTITY_NAME: site, ReservedKey.RUN_NUM: job_id})
    fl_ctx.set_peer_context(peer)
    engine = SimpleNamespace(get_client_from_name={"site-1": Client("site-1", "token")}.get)
    fl_ctx.get_engine = lambda: engine  # type: ignore[method-assign]
    return fl_ctx


def test_a_log_is_written_where_it_belongs(tmp_path: Path) -> None:
    logs, stream = SiteLogs(str(tmp_path)), {KEY_FILE_NAME: "error_log.txt", "JobLogReceiver.recv_file": "x"}
    for part in (b"one\n", b"two\n"):
        logs._on_chunk_received(part, stream, context("site-1", JOB))
    assert (tmp_path / JOB / "site-1" / "error_log.txt").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("site", "job_id", "name"),
    [
        ("..", JOB, "log.txt"),
        ("site-2", JOB, "log.txt"),
        ("site-1", "..", "log.txt"),
        ("site-1", "job", "log.txt"),
        ("site-1", JOB, ".."),
        ("site-1", JOB, "../../x"),
        ("site-1", JOB, ".bashrc"),
    ],
)
def test_nothing_is_written_elsewhere(tmp_path: Path, site: str, job_id: str, name: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        SiteLogs(str(tmp_path))._on_chunk_received(b"1", {KEY_FILE_NAME: name}, context(site, job_id))
    assert list(tmp_path.iterdir()) == [tmp_path / "audit.log"]


def test_classes_in_arguments_are_found_at_any_depth() -> None:
    nested = {"model": {"path": "a.B", "args": {"parts": [{"class_path": "c.D"}, {"path": 3}]}}, "file": "x.y"}
    assert sorted(named(nested)) == ["3", "a.B", "c.D"]
    assert list(named(None)) == []
    for _ in range(10_000):
        nested = {"parts": [nested]}
    assert sorted(named(nested)) == ["3", "a.B", "c.D"]
    nested["itself"] = nested
    assert sorted(named(nested)) == ["3", "a.B", "c.D"]


@pytest.mark.parametrize(
    ("resources", "reason"),
    [({"class_allow_list": ["a."]}, "'b.C' in the arguments of 'a.B' is not in allow_list"), ({}, "class_allow_list")],
)
def test_what_cannot_be_checked_is_refused(tmp_path: Path, resources: dict[str, Any], reason: str) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "startup").mkdir()
    (tmp_path / "local" / "resources.json").write_text(json.dumps(resources))
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(tmp_path)))
    fl_ctx.set_prop(FLContextKey.COMPONENT_CONFIG, {"path": "a.B", "args": {"model": {"path": "b.C"}}})
    with pytest.raises(UnsafeComponentError, match=reason):
        NamedClasses().handle_event(EventType.BEFORE_BUILD_COMPONENT, fl_ctx)
