# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One broadcast, all replies: what the workflows of this bundle that ask the sites something have in common."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.signal import Signal

from custom.checks.update import Origin
from custom.errors import BundleError
from custom.printable import printable, shown


def check_seconds(least: int, **seconds: object) -> None:
    """Raises BundleError, which names the argument, if one is no whole number, as FLARE needs, of at least `least`."""
    for key, value in seconds.items():
        if type(value) is not int or value < least:
            raise BundleError(
                code="setting-value", key=key, expected=f"a whole number of at least {least} seconds", got=repr(value)
            )


class Replies:
    """The replies to one broadcast, in the order of their arrival.

    Attributes:
        results: reply of each site that answered.
        errors: reason for each site that could not.
        lost: those of them of which the server has no sign of life.
    """

    def __init__(self, kind: DataKind) -> None:
        self.kind = kind
        self.results: dict[str, DXO] = {}
        self.errors: dict[str, str] = {}
        self.lost: set[str] = set()
        self._lock = threading.Lock()

    def refuse(self, check: Callable[[Origin, DXO], None]) -> None:
        """Makes an error of every reply for which `check` raises BundleError."""
        for site, dxo in list(self.results.items()):
            try:
                check(Origin(site), dxo)
            except BundleError as error:
                del self.results[site]
                self.errors[site] = error.coded()

    def reasons(self) -> str:
        """All errors in one line, sites in name order."""
        return "; ".join(f"{site}: {reason}" for site, reason in sorted(self.errors.items()))

    def receive(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        """FLARE's callback for one reply."""
        site, reply = client_task.client.name, client_task.result
        client_task.result = None
        code = reply.get_return_code(default=ReturnCode.OK)
        with self._lock:
            if code != ReturnCode.OK:
                self.errors[site] = printable(reply.get_header(ReservedHeaderKey.ERROR) or code)
                return
            try:
                dxo = from_shareable(reply)
            except ValueError as error:
                self.errors[site] = printable(f"not a DXO: {error}")
                return
            if dxo.data_kind == self.kind and isinstance(dxo.data, dict):
                self.results[site] = dxo
            else:
                self.errors[site] = f"expected {self.kind.value}, got {shown(dxo.data_kind)}"


def collect(
    controller: Controller,
    task_name: str,
    data: Shareable,
    fl_ctx: FLContext,
    abort_signal: Signal,
    *,
    kind: DataKind,
    timeout_s: int,
    min_responses: int = 0,
    wait_after_min_s: int = 0,
) -> Replies:
    """Sends `data` to all sites and waits for their replies.

    Args:
        controller: the running workflow.
        task_name: the task the sites' executors are bound to.
        data: the same message for all; its arrays are not copied.
        fl_ctx: of the running workflow.
        abort_signal: of the running workflow.
        kind: the data kind of a good reply; another counts as a failure of the site.
        timeout_s: give up on the sites that have not answered by then; above 0, so that nothing waits for ever.
        min_responses: 0 waits for all sites; else go on `wait_after_min_s` seconds after so many.
        wait_after_min_s: see `min_responses`.
    """
    replies = Replies(kind)
    sites = [client.name for client in controller._engine.get_clients()]
    started = time.monotonic()
    task = Task(name=task_name, data=data, timeout=timeout_s, result_received_cb=replies.receive)
    controller.broadcast_and_wait(
        task=task,
        fl_ctx=fl_ctx,
        targets=sites,
        min_responses=min_responses or len(sites),
        wait_time_after_min_received=wait_after_min_s,
        abort_signal=abort_signal,
    )
    waited_s = round(min(time.monotonic() - started, timeout_s))
    for site in sites:
        if site not in replies.results and site not in replies.errors:
            why = ""
            if controller.communicator.get_client_disconnect_time(site) is not None:
                replies.lost.add(site)
                why = ": the server has no sign of life of it"
            replies.errors[site] = f"no reply to {task_name} within {waited_s} s{why}"
    return replies
