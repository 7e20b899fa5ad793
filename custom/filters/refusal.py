# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the server puts in the place of a result that it refuses."""

from __future__ import annotations

from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply

from custom.errors import BundleError


def refusal(shareable: Shareable, error: BundleError) -> Shareable:
    """An error reply with the reason. All headers stay (cookies, peer props, telemetry), and the data goes."""
    # They overwrite the code that make_reply sets, so it is among them.
    headers = {**shareable[ReservedHeaderKey.HEADERS], ReservedHeaderKey.ERROR: error.coded()}
    headers[ReservedHeaderKey.RC] = ReturnCode.TASK_RESULT_FILTER_ERROR
    return make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR, headers=headers)
