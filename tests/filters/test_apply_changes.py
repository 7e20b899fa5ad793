# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""ApplyChanges as FLARE calls it: what a site holds, announces, refuses and forgets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.fuel.utils import fobs

from custom.compression import changes
from custom.compression.changes import ChangesRejected
from custom.compression.wire import PayloadRejected
from custom.keys import BASE_VERSION, POSITIONS, TASK_REFUSED
from tests.filters.downlink import Downlink, add, assert_same, is_whole
from tests.support import arrays

DENSE = 4 * 4  # bytes of w


@pytest.fixture
def downlink(tmp_path: Path) -> Downlink:
    return Downlink(tmp_path, arrays(w=[1, 2, 3, 4]))


def test_a_site_may_be_another_process_in_every_round(downlink):
    for number in range(3):
        assert is_whole(downlink.deliver()) == (number == 0)
        downlink.site().start()
        downlink.next_round(add(number))


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "lost":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        held = changes.load(path)
        held.model["w"][0] += 1
        changes.save(path, held)
    else:
        torch.save({"version": "?"}, path)


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("how", ["lost", "truncated", "flipped", "foreign"])
def test_a_site_announces_no_file_that_is_lost_or_damaged(how, restarted, downlink, caplog):
    downlink.deliver()
    assert downlink.site().holds.startswith(downlink.send._token)
    damage(downlink.site().file, how)
    if restarted:
        downlink.site().start()
    downlink.next_round(add(0))
    assert downlink.site().holds == ""
    assert ("held_model.pt is damaged" in caplog.text) == (how != "lost")
    assert is_whole(downlink.deliver())
    downlink.next_round(add(1))
    assert not is_whole(downlink.deliver())


def refused(downlink: Downlink, message: Shareable) -> PayloadRejected:
    site = downlink.site()
    with site.engine.new_context() as fl_ctx, pytest.raises(PayloadRejected) as raised:
        site.filter.process(message, fl_ctx)
    assert fl_ctx.get_all_public_props()[TASK_REFUSED] == raised.value.coded()
    return raised.value


def spoil(message: Shareable, how: str) -> None:
    dxo = from_shareable(message)
    positions = dxo.get_meta_prop(POSITIONS)
    if how == "base":
        message.set_header(BASE_VERSION, "another")
    elif how == "result":
        dxo.data["w"] = dxo.data["w"] + 1
    elif how == "count":
        dxo.data["w"] = np.zeros(9, np.float32)
    elif how == "positions":
        positions["tensors"]["w"][2] = b"\x60"
    elif how == "version":
        positions["version"] = 2
    elif how == "unpaired":
        del dxo.data["w"]
    elif how == "whole":
        dxo.data["extra"] = np.zeros(2, np.float32)
    elif how == "format":
        del dxo.meta[POSITIONS]
    else:
        dxo.data["w"] = np.full(1, np.nan, np.float32)


@pytest.mark.parametrize(
    "how", ["base", "result", "count", "positions", "version", "unpaired", "whole", "format", "not_finite"]
)
def test_what_cannot_be_applied_fails_is_told_and_is_forgotten(how, downlink, caplog):
    downlink.deliver()
    downlink.next_round(add(1))
    message = fobs.loads(fobs.dumps(downlink.hand_out()))
    spoil(message, how)
    error = refused(downlink, message)
    assert error.reason == how
    assert isinstance(error, ChangesRejected) == (how in ("base", "result", "whole"))
    assert str(error).startswith("site-1 round 2 ")
    assert f"task refused, the next one will bring the whole model: {error}" in caplog.text
    assert not downlink.site().file.exists()
    assert downlink.site().holds == ""
    assert downlink.site().says().get_prop(TASK_REFUSED) is None  # it was the last task's
    assert is_whole(downlink.deliver())


def test_the_server_sees_why_a_task_failed(downlink):
    """Run by FLARE's ClientRunner, which answers with a code only; here the file is lost after the request."""
    downlink.deliver()
    downlink.next_round(add(1))
    message = downlink.hand_out()
    downlink.site().file.unlink()
    reply, peer = downlink.site().run(message, downlink.server.context())
    assert reply.get_return_code() == ReturnCode.TASK_DATA_FILTER_ERROR
    assert reply.get_cookie(AppConstants.CONTRIBUTION_ROUND) == 1
    assert reply.get_header(ReservedHeaderKey.ERROR) is None
    fl_ctx = downlink.server.context()
    fl_ctx.set_peer_context(peer)
    fl_ctx.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)
    downlink.send.handle_event(EventType.BEFORE_TASK_RESULT_FILTER, fl_ctx)
    reason = reply.get_header(ReservedHeaderKey.ERROR)
    assert reason == f"site-1 {downlink.site().file}: cannot be read: it is missing or damaged [site-state-damaged]"
    assert is_whole(downlink.deliver())


def test_the_executor_gets_the_model(downlink):
    """And so does Sparsify, which FLARE's ClientRunner shows the task just before."""
    downlink.deliver()
    downlink.next_round(add(1))
    reply, _ = downlink.site().run(downlink.hand_out(), downlink.server.context())
    assert reply.get_return_code() == ReturnCode.OK
    assert [task.keys() for task in downlink.site().executed] == [downlink.model.keys()] * 2
    for model in downlink.site().executed:
        assert_same(model, downlink.model)


def test_a_model_that_another_filter_changes_is_used_and_not_kept(downlink, caplog):
    message = downlink.hand_out()
    from_shareable(message).data["w"] = np.float32([9, 9, 9, 9])
    received = downlink.site().apply(message)
    assert from_shareable(received).data["w"].tolist() == [9, 9, 9, 9]
    assert "put SendChanges last at the server" in caplog.text
    assert downlink.site().holds == ""


def test_a_full_disk_costs_bytes_and_no_round(downlink, monkeypatch, caplog):
    downlink.deliver()
    downlink.next_round(add(0))
    with monkeypatch.context() as patch:
        patch.setattr(changes, "save_atomically", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        downlink.deliver()
    assert "the model is not kept" in caplog.text
    assert not downlink.site().file.exists()
    downlink.next_round(add(1))
    assert is_whole(downlink.deliver())
