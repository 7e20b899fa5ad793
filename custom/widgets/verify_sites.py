# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Takes results of a site in its own name only, the name that its token stands for, and no events but metrics.

nvflare 2.9.0 takes a site's word for it: who sent a result is read from a context that the sender wrote. One site could
answer in the names of all others, and of sites that there are not, and so outvote any aggregation rule. And an event
that a site sends is fired at the server whatever its type, such as that of a new run, at which CheckUpdate forgets what
it has seen, or of a new best model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nvflare.apis.analytix import TrackConst
from nvflare.apis.client import Client
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FedEventHeader, FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils.analytix_utils import ANALYTIC_EVENT_TYPE
from nvflare.app_common.widgets.convert_to_fed_event import FED_EVENT_PREFIX
from nvflare.widgets.fed_event import FED_EVENT_TOPIC
from nvflare.widgets.widget import Widget

from custom import progress
from custom.panic import ends_job
from custom.printable import is_label, shown

MOST_WARNINGS = 20  # of a job


class VerifySites(Widget):
    """A component of the server's configuration. What is refused is in the log, and in the report as a warning."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Puts itself between the sites and the job, before any site is answered."""
        if event_type != EventType.START_RUN:
            return
        self._told.clear()
        runner = fl_ctx.get_prop(FLContextKey.RUNNER)
        aux = fl_ctx.get_engine().run_manager.aux_runner
        answer, take, dispatch = runner.process_task_request, runner.process_submission, aux.dispatch

        def process_task_request(client: Client, fl_ctx: FLContext) -> Any:
            if self._is_false(client, fl_ctx):
                peer = FLContext()
                known = fl_ctx.get_peer_context().get_all_public_props()
                peer.set_public_props({**known, ReservedKey.IDENTITY_NAME: client.name})
                fl_ctx.set_peer_context(peer)
            return answer(client, fl_ctx)

        def process_submission(client: Client, task_name: str, task_id: str, result: Any, fl_ctx: FLContext) -> None:
            if not self._is_false(client, fl_ctx):
                take(client, task_name, task_id, result, fl_ctx)

        def checked(topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
            if topic == FED_EVENT_TOPIC and self._is_no_metric(request, fl_ctx):
                return make_reply(ReturnCode.BAD_REQUEST_DATA)
            return dispatch(topic=topic, request=request, fl_ctx=fl_ctx)

        runner.process_task_request, runner.process_submission = process_task_request, process_submission
        aux.dispatch = checked

    def _is_false(self, client: Client, fl_ctx: FLContext) -> bool:
        peer = fl_ctx.get_peer_context()
        claimed = peer.get_identity_name() if isinstance(peer, FLContext) else client.name
        if claimed == client.name:
            return False
        self._tell(f"{client.name} sent messages in the name of {shown(claimed)}; they do not count", fl_ctx)
        return True

    def _is_no_metric(self, request: Shareable, fl_ctx: FLContext) -> bool:
        event = request.get_header(FedEventHeader.EVENT_TYPE) if isinstance(request, Shareable) else None
        site = request.get_peer_prop(ReservedKey.IDENTITY_NAME, "?") if isinstance(request, Shareable) else "?"
        metric = is_label(event) and (str(event).startswith(FED_EVENT_PREFIX) or event == ANALYTIC_EVENT_TYPE)
        if metric:
            wrong = [name for name in _tags(request) if not is_label(name) or ".." in name.split("/")]
            if wrong:
                self._tell(f"{shown(site)} sent a metric named {shown(wrong[0])}; it is not recorded", fl_ctx)
            return bool(wrong)
        self._tell(f"{shown(site)} sent an event {shown(event)}; only those of metrics are taken", fl_ctx)
        return True

    def _tell(self, reason: str, fl_ctx: FLContext) -> None:
        self.log_error(fl_ctx, reason)
        if reason not in self._told and len(self._told) < MOST_WARNINGS:
            self._told.add(reason)
            run_dir = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id())
            progress.append(Path(run_dir), "warning", reason=reason)


def _tags(request: Shareable) -> list[Any]:
    """The names in an event of metrics, which become tags and folders of TensorBoard; none in any other."""
    try:
        data = from_shareable(request).data
    except (ValueError, TypeError):
        return []
    values = data.get(TrackConst.TRACK_VALUE) if isinstance(data, dict) else None
    tags = [data[TrackConst.TRACK_KEY]] if isinstance(data, dict) and TrackConst.TRACK_KEY in data else []
    return [*tags, *(values if isinstance(values, dict) else ())]
