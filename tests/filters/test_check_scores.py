# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What CrossSiteModelEval gets to see of a site's reply, with the contexts that FLARE makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants

from custom.filters.check_scores import CheckScores
from custom.keys import SAMPLES
from tests.filters.flare_contexts import Server
from tests.hostile import EVIL, LONG

GOOD = {"test_accuracy": 0.5, "test_loss": 1.0}
OWNER = AppConstants.MODEL_OWNER


def reply(data: Any, kind: DataKind = DataKind.METRICS, owner: Any = "SRV_model.pt", **meta: Any) -> Shareable:
    result = DXO(kind, data=data, meta=meta).to_shareable()
    result.add_cookie(OWNER, owner)
    return result


def filtered(result: Shareable) -> Shareable:
    server = Server({})
    server.set(SAMPLES, {"site-1": {"train": 100}})
    return CheckScores().process(result, server.context("site-1", task_name="validate"))


@pytest.mark.parametrize(
    "result",
    [
        reply(GOOD),
        reply(GOOD, owner=None),
        reply(GOOD, **{MetaKey.NUM_STEPS_CURRENT_ROUND: 100}),
        reply({"w": np.ones(2)}, DataKind.WEIGHTS),
        make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: "no test samples"}),
    ],
)
def test_scores_models_and_errors_pass(result: Shareable) -> None:
    assert filtered(result) is result


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (reply({**GOOD, EVIL: 0.5}), "update-metrics"),
        (reply({**GOOD, 5: 0.5}), "update-metrics"),
        (reply({"test_accuracy": 3.0}), "update-metrics"),
        (reply({"test_loss": float("nan")}), "update-metrics"),
        (reply(GOOD, **{MetaKey.NUM_STEPS_CURRENT_ROUND: 101}), "update-weight"),
        (reply({EVIL: DXO(DataKind.METRICS, data=GOOD)}, DataKind.COLLECTION), "update-kind"),
        (reply(GOOD, owner=EVIL), "update-kind"),
        (reply(GOOD, owner=LONG), "update-kind"),
        (reply(GOOD, owner=7), "update-kind"),
        (Shareable(), "update-kind"),
    ],
)
def test_all_else_is_an_error_of_the_site_and_holds_nothing_of_it(result: Shareable, code: str) -> None:
    refused = filtered(result)
    assert refused.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    reason = refused.get_header(ReservedHeaderKey.ERROR)
    assert reason.startswith("site-1")
    assert reason.endswith(f"[{code}]")
    assert reason.isprintable()
    assert "DXO" not in refused
    assert str(refused.get_cookie(OWNER, "")).isprintable()
    assert len(str(refused.get_cookie(OWNER, ""))) <= 100
