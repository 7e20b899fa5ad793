# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A program: a FLARE cell with any certificate, name and headers, against a server; it prints what came of it as JSON.

Its argument is a file with an `Attempt`. It is a process of its own, since FLARE connects the cells of one directly.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import ReservedKey, ServerCommandNames
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.logging.constants import LIVE_LOG_TOPIC, Channels
from nvflare.app_common.streamers.log_streamer import KEY_DATA, KEY_DATA_SIZE, KEY_EOF, KEY_FILE_NAME
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.message import Message
from nvflare.private.admin_defs import Message as AdminCommand
from nvflare.private.defs import CellChannel, CellChannelTopic, CellMessageHeaderKeys, ClientType, new_cell_message
from nvflare.private.fed.authenticator import Authenticator
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize
from nvflare.private.stream_runner import TOPIC_STREAM_REQUEST, HeaderKey

PATIENCE_S = 8.0  # for a connection and a registration
REPLY_S = 3.0  # a message that is refused has none
PROJECT, SERVER = "federation", "localhost"


@dataclass
class Attempt:
    """What to try.

    Attributes:
        port: of the server.
        root: certificate that the server's is to be verified with.
        certificate, key: of the intruder.
        endpoint: the name under which it connects.
        register_as: the name under which it registers; no registration if empty.
        stolen: credentials of another site: token, signature, ssid.
        owner: the site that `stolen` is of.
        origin: what its messages state as their origin, if it is not `endpoint`.
        job_id: of a job that runs, for its next task.
        topics: heart_beat, quit (the site leaves), get_task.
        requests: of other kinds, with what it got when it registered: target, channel, topic, body.
        phantom: a name of its own making, for a heartbeat: its own name and token, cut at another place.
    """

    port: int
    root: str
    certificate: str
    key: str
    endpoint: str
    register_as: str = ""
    stolen: dict[str, str] = field(default_factory=dict)
    owner: str = ""
    origin: str = ""
    job_id: str = ""
    topics: list[str] = field(default_factory=list)
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)
    phantom: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def connect(attempt: Attempt) -> Cell:
    credentials = {
        DriverParams.CA_CERT.value: attempt.root,
        DriverParams.CLIENT_CERT.value: attempt.certificate,
        DriverParams.CLIENT_KEY.value: attempt.key,
    }
    cell = Cell(
        fqcn=attempt.endpoint,
        root_url=f"http://{SERVER}:{attempt.port}",
        secure=True,
        credentials=credentials,
        create_internal_listener=False,
        parent_url=None,
        auth_identity_map={"server": SERVER},
    )
    cell.start()
    return cell


def is_connected(cell: Cell) -> bool:
    """Does the server answer to the one request that a cell may send before it has registered?"""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and "server" not in cell.core_cell.agents:
        time.sleep(0.1)
    challenge = new_cell_message({IdentityChallengeKey.NONCE: "x"}, None)
    return (
        request(cell, CellChannel.SERVER_MAIN, CellChannelTopic.Challenge, "server", challenge, PATIENCE_S)
        == ReturnCode.OK
    )


def request(cell: Cell, channel: str, topic: str, target: str, message: Message, limit_s: float) -> str:
    """The return code of the reply."""
    reply = cell.send_request(target=target, channel=channel, topic=topic, request=message, timeout=limit_s)
    return str(reply.get_header(MessageHeaderKey.RETURN_CODE))


def register(cell: Cell, attempt: Attempt) -> dict[str, str] | str:
    """Its credentials, or why there are none."""
    authenticator = Authenticator(
        cell=cell,
        project_name=PROJECT,
        client_name=attempt.register_as,
        client_type=ClientType.REGULAR,
        expected_sp_identity=SERVER,
        secure_mode=True,
        root_cert_file=attempt.root,
        private_key_file=attempt.key,
        cert_file=attempt.certificate,
        msg_timeout=PATIENCE_S,
        retry_interval=1.0,
        timeout=PATIENCE_S,
    )
    try:
        token, signature, ssid, _ = authenticator.authenticate(FLContext(), Signal())
        return {"token": str(token), "signature": str(signature), "ssid": str(ssid)}
    except Exception as error:
        return f"refused: {error}"


def headers_of(attempt: Attempt, client: str, credentials: dict[str, str]) -> dict[str, Any]:
    """What stands at the head of each message of a site."""
    headers: dict[str, Any] = {
        CellMessageHeaderKeys.PROJECT_NAME: PROJECT,
        CellMessageHeaderKeys.JOB_ID: attempt.job_id,
    }
    if credentials:
        headers[CellMessageHeaderKeys.CLIENT_NAME] = client
        headers[CellMessageHeaderKeys.TOKEN] = credentials["token"]
        headers[CellMessageHeaderKeys.TOKEN_SIGNATURE] = credentials["signature"]
        headers[CellMessageHeaderKeys.SSID] = credentials["ssid"]
    return headers


def send(cell: Cell, attempt: Attempt, topic: str, client: str, credentials: dict[str, str]) -> str:
    """The return code of the server's reply."""
    headers = headers_of(attempt, client, credentials)
    channel, target = CellChannel.SERVER_MAIN, "server"
    if topic == ServerCommandNames.GET_TASK:
        channel, target = CellChannel.SERVER_COMMAND, f"server.{attempt.job_id}"
    payload = Shareable()
    payload.set_peer_context(FLContext())
    return request(cell, channel, topic, target, new_cell_message(headers, payload), REPLY_S)


def log_of(attempt: Attempt, path: str) -> Shareable:
    """An empty log of the job, which says that its receiver has put it there."""
    request = Shareable({KEY_DATA: None, KEY_DATA_SIZE: 0, KEY_EOF: True})
    request.set_header(HeaderKey.TX_ID, "1")
    request.set_header(HeaderKey.SEQ, 0)
    request.set_header(HeaderKey.CHANNEL, Channels.LOG_STREAMING_CHANNEL)
    request.set_header(HeaderKey.TOPIC, LIVE_LOG_TOPIC)
    request.set_header(HeaderKey.CTX, {KEY_FILE_NAME: "log.txt", "JobLogReceiver.recv_path": path})
    request.set_peer_props({ReservedKey.IDENTITY_NAME: attempt.register_as, ReservedKey.RUN_NUM: attempt.job_id})
    return request


def ask(cell: Cell, attempt: Attempt, credentials: dict[str, str], target: str, channel: str, *said: str) -> str:
    """The return code of the reply to an admin command of that topic and body, or to anything else of that topic."""
    topic, body = said
    payload: Any = Shareable()
    if channel == CellChannel.CLIENT_MAIN:
        payload = AdminCommand(topic=topic, body=body)
    elif topic == TOPIC_STREAM_REQUEST:
        payload = log_of(attempt, body)
    message = new_cell_message(headers_of(attempt, attempt.register_as, credentials), payload)
    return request(cell, channel, topic, target, message, REPLY_S)


def main() -> None:
    nvflare_fobs_initialize()
    attempt = Attempt(**json.loads(Path(sys.argv[1]).read_text()))
    cell = connect(attempt)
    told: dict[str, Any] = {"connected": is_connected(cell)}
    if told["connected"]:
        if attempt.register_as:
            told["registered"] = own = register(cell, attempt)
            if isinstance(own, dict):
                told["asked"] = {" ".join(asked[:3]): ask(cell, attempt, own, *asked) for asked in attempt.requests}
                if attempt.phantom:
                    cut = attempt.register_as.removeprefix(attempt.phantom) + own["token"]
                    told["phantom"] = send(cell, attempt, "heart_beat", attempt.phantom, own | {"token": cut})
        if attempt.origin:
            forge = attempt.origin
            cell.core_cell.add_outgoing_request_filter(
                "*", "*", lambda message: message.set_header(MessageHeaderKey.ORIGIN, forge)
            )
        told["replies"] = {topic: send(cell, attempt, topic, attempt.owner, attempt.stolen) for topic in attempt.topics}
    print(json.dumps(told), flush=True)
    os._exit(0)  # FLARE's threads would keep it alive


if __name__ == "__main__":
    main()
