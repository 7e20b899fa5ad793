# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Server-side result filter that keeps impossible scores, and names that are none, away from cross-site evaluation.

FLARE's CrossSiteModelEval takes whatever metrics a site sends, by any names, for the model that the site names, writes
them into the log and into cross_val_results.json, and saves a model under the names that the site gives its parts.
Put it into the server's `task_result_filters` for the tasks `validate` and `submit_model`.
"""

from __future__ import annotations

from nvflare.apis.dxo import DataKind, MetaKey, from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_common.app_constant import AppConstants

from custom.checks.claims import check_scores
from custom.checks.update import Origin, UpdateRejected
from custom.filters.refusal import refusal
from custom.keys import SAMPLES
from custom.printable import is_label, shown

KINDS = (DataKind.METRICS, DataKind.WEIGHTS)


class CheckScores(Filter):
    """Replaces a reply by an error reply that carries the reason, if it holds neither good scores nor a model."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Returns the result itself if it is good or already an error reply, else an error reply."""
        peer = fl_ctx.get_peer_context()
        site = peer.get_identity_name() if peer else shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, "?")
        owner = shareable.get_cookie(AppConstants.MODEL_OWNER)
        try:
            if owner is not None and not is_label(owner):
                shareable[ReservedHeaderKey.HEADERS][ReservedHeaderKey.COOKIE_JAR][AppConstants.MODEL_OWNER] = "?"
                raise UpdateRejected(
                    "kind", Origin(site), key="model that was scored", expected="its name", got=shown(owner)
                )
            if shareable.get_return_code() in (None, ReturnCode.OK):
                _check(site, shareable, fl_ctx)
        except UpdateRejected as error:
            self.log_error(fl_ctx, f"reply refused ({error.reason}): {error.coded()}")
            return refusal(shareable, error)
        return shareable


def _check(site: str, shareable: Shareable, fl_ctx: FLContext) -> None:
    origin = Origin(site)
    try:
        dxo = from_shareable(shareable)
        kind = dxo.data_kind
    except (ValueError, TypeError) as error:
        raise UpdateRejected("kind", origin, expected=" or ".join(KINDS), got=shown(error)) from None
    if kind not in KINDS or not isinstance(dxo.data, dict):
        got = shown(kind) if kind not in KINDS else type(dxo.data).__name__
        raise UpdateRejected("kind", origin, expected=" or ".join(KINDS), got=got)
    if kind == DataKind.METRICS:
        samples = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 0)
        check_scores(dxo.data, samples, origin, fl_ctx.get_prop(SAMPLES))
