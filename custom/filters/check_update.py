# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Server-side result filter that keeps bad updates away from the aggregator and from the model selector.

Binds `custom.checks.update` to FLARE. Put it last in the server's `task_result_filters` for the training task.
It does not decide how many refusals a job survives: ScatterAndGather's `min_clients` and the aggregator's
`min_contributions` do.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants

from custom.checks import claims
from custom.checks import update as checks
from custom.checks.update import Origin, Tensors, UpdateRejected
from custom.compression import wire
from custom.errors import BundleError
from custom.filters.refusal import refusal
from custom.keys import EVALUATED, LARGEST_WRITER, POSITIONS, SAMPLES, TRAIN_METRICS, WRITERS
from custom.panic import ends_job
from custom.printable import shown


class CheckUpdate(Filter):
    """Replaces an unfit update by an error reply that carries the reason.

    It looks at each update by itself. How an update stands among the others is for the aggregator to see, when the
    round closes and all are there. A variance that would become negative is refused.

    Args:
        max_weight: largest number of samples a site may claim; where InitializeGlobalWeights has asked for it, the
            number of training samples it then reported is the limit. Where the task says which writers are to train, as
            after DrawWriters, so is their number times the samples of the site's largest writer.
        allow_partial: whether a dense update may leave out tensors of the model; a sparse one may.
        writers_weigh_one: tasks in which a writer's weight is 1, whatever its samples, as in meta-learning.

    Attributes:
        counts: refusals by reason since the run started.
    """

    def __init__(
        self,
        max_weight: float = 1e9,
        allow_partial: bool = False,
        writers_weigh_one: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.max_weight = max_weight
        self.allow_partial = allow_partial
        self.writers_weigh_one = writers_weigh_one
        self.counts: dict[str, int] = Counter()
        self._lock = threading.Lock()
        self._round: tuple[str, int] = ("", -1)
        self._accepted: dict[str, str | None] = {}  # of this round: the task by site
        # By workflow and site: the last round with a draw, and how many were drawn.
        self._drawn: dict[tuple[str, str], tuple[int, int]] = {}

    def check(self) -> None:
        """Looks at the settings.

        Raises:
            BundleError: one is out of range.
        """
        if not (checks.is_finite_number(self.max_weight) and self.max_weight > 0):
            got = repr(self.max_weight)
            raise BundleError(code="setting-value", key="CheckUpdate max_weight", expected="a number above 0", got=got)
        tasks = self.writers_weigh_one
        if isinstance(tasks, str) or not all(isinstance(task, str) for task in tasks):
            raise BundleError(
                code="setting-value", key="CheckUpdate writers_weigh_one", expected="a list of tasks", got=repr(tasks)
            )

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Starts afresh with the run, if the settings are good.

        When the filters are through with a task, it notes how many writers the site is to train.
        """
        if event_type == EventType.START_RUN:
            self.check()
            with self._lock:
                self.counts.clear()
                self._accepted.clear()
                self._drawn.clear()
                self._round = ("", -1)
        elif event_type == EventType.AFTER_TASK_DATA_FILTER and (task := training_task(fl_ctx)) is not None:
            drawn, current_round = task.get_header(WRITERS), task.get_cookie(AppConstants.CONTRIBUTION_ROUND)
            if drawn is not None:
                self._drawn[workflow_and_site(fl_ctx)] = current_round, len(drawn)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Returns the result itself if it is fit or already an error reply, else an error reply."""
        peer = fl_ctx.get_peer_context()
        site = peer.get_identity_name() if peer else "?"
        if shareable.get_return_code() not in (None, ReturnCode.OK):
            return shareable
        try:
            with self._lock:
                self._check(site, shareable, fl_ctx)
        except UpdateRejected as error:
            return self._refuse(shareable, error, fl_ctx)
        return shareable

    def _check(self, site: str, shareable: Shareable, fl_ctx: FLContext) -> None:
        model, current_round = global_model(site, fl_ctx)
        origin = Origin(site, current_round + 1)
        task_id = fl_ctx.get_prop(FLContextKey.TASK_ID)
        self._enter_round(fl_ctx.get_prop(FLContextKey.WORKFLOW, ""), current_round)
        checks.check_round(shareable.get_cookie(AppConstants.CONTRIBUTION_ROUND), current_round, origin)
        self._check_first(origin, task_id)
        dxo = _weight_diff(shareable, origin)
        sent = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
        weight = checks.check_weight(sent, origin, max_weight=self._largest_weight(site, current_round, fl_ctx))
        check_content(dxo, weight, model, origin, allow_partial=self.allow_partial)
        checks.check_variances(dxo.data, model, origin)
        checks.check_norm(checks.l2_norm(dxo.data), origin)
        _check_claims(dxo, origin, fl_ctx.get_prop(SAMPLES))
        self._accepted[site] = task_id

    def _largest_weight(self, site: str, current_round: int, fl_ctx: FLContext) -> float:
        """The samples that the site said it has before training; of one that did not say, the most that any has.

        Where writers were drawn for this round, those of them at most.
        """
        facts = fl_ctx.get_prop(SAMPLES)
        limit = min(claims.told(facts, site, "train", self.max_weight), self.max_weight)
        drawn_round, number = self._drawn.get(workflow_and_site(fl_ctx), (-1, 0))
        if drawn_round != current_round:
            return limit
        if fl_ctx.get_prop(FLContextKey.TASK_NAME) in self.writers_weigh_one:
            return min(limit, number)
        return min(limit, number * claims.told(facts, site, LARGEST_WRITER, limit)) if number else 0

    def _enter_round(self, workflow: str, current_round: int) -> None:
        if (workflow, current_round) != self._round:
            self._accepted.clear()
            self._round = (workflow, current_round)

    def _check_first(self, origin: Origin, task_id: str | None) -> None:
        if origin.site not in self._accepted:
            return
        if task_id and self._accepted[origin.site] == task_id:
            raise UpdateRejected("resent", origin, "the accepted update again; its acknowledgement was lost on the way")
        raise UpdateRejected("duplicate", origin, "this site's update of this round was accepted before")

    def _refuse(self, shareable: Shareable, error: UpdateRejected, fl_ctx: FLContext) -> Shareable:
        # A client sends a result again until it is acknowledged, and the communicator drops the repetition: no fault.
        log = self.log_info if error.reason == "resent" else self.log_error
        log(fl_ctx, f"update refused ({error.reason}): {error.coded()}")
        with self._lock:
            self.counts[error.reason] = self.counts.get(error.reason, 0) + 1
        return refusal(shareable, error)


def _check_claims(dxo: DXO, origin: Origin, facts: claims.Facts | None) -> None:
    for key in (MetaKey.INITIAL_METRICS, TRAIN_METRICS, EVALUATED):
        checks.check_metrics(dxo.get_meta_prop(key), origin)
    claims.check_writers(dxo.get_meta_prop(TRAIN_METRICS), claims.TRAINING, origin, facts)
    claims.check_writers(dxo.get_meta_prop(EVALUATED), claims.HELD_OUT, origin, facts)


def training_task(fl_ctx: FLContext) -> Shareable | None:
    """What a site is about to be sent, at the events about TASK_DATA, if it is a round of ScatterAndGather."""
    task = fl_ctx.get_prop(FLContextKey.TASK_DATA)
    training = isinstance(task, Shareable) and task.get_cookie(AppConstants.CONTRIBUTION_ROUND) is not None
    return task if training else None


def workflow_and_site(fl_ctx: FLContext) -> tuple[str, str]:
    """The names of the running workflow and of the site that the server deals with in `fl_ctx`."""
    peer = fl_ctx.get_peer_context()
    return fl_ctx.get_prop(FLContextKey.WORKFLOW, ""), peer.get_identity_name() if peer else "?"


def check_content(dxo: DXO, weight: float, model: Tensors, origin: Origin, *, allow_partial: bool = False) -> None:
    """Compares an update, dense or sparse, with the global model; tensors that a sparse one does not mention are zero.

    Args:
        dxo: the WEIGHT_DIFF.
        weight, model, origin, allow_partial: as in `custom.checks.update.check_update`.

    Raises:
        UpdateRejected: at the first difference.
    """
    positions = dxo.get_meta_prop(POSITIONS)
    if positions is None or not dxo.data or weight == 0:
        checks.check_update(dxo.data, weight, model, origin, allow_partial=allow_partial)
    else:
        wire.check(dxo.data, positions, model, origin)
        for name, values in dxo.data.items():
            if checks.is_statistic(name) and values.size != model[name].size:
                expected, got = f"all {model[name].size} entries: Sparsify sends running statistics whole", values.size
                raise UpdateRejected("statistics", origin, key=name, expected=expected, got=got)


def global_model(site: str, fl_ctx: FLContext) -> tuple[Tensors, int]:
    """The weights that the sites of this round received, and the round, counted from 0.

    Raises:
        UpdateRejected: the server has none.
    """
    model = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
    current_round = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
    if not isinstance(model, ModelLearnable) or model.is_empty() or not isinstance(current_round, int):
        problem = "the server has no global model or round to compare the update with"
        remedy = "bind CheckUpdate to the training task of a workflow that sets GLOBAL_MODEL and CURRENT_ROUND"
        raise UpdateRejected("no_model", Origin(site), problem, remedy=remedy)
    return model[ModelLearnableKey.WEIGHTS], current_round


def _weight_diff(shareable: Shareable, origin: Origin) -> DXO:
    got: Any
    try:
        dxo = from_shareable(shareable)
        got = dxo.data_kind
    except (ValueError, TypeError) as error:
        got = error
    if got != DataKind.WEIGHT_DIFF:
        raise UpdateRejected("kind", origin, expected=DataKind.WEIGHT_DIFF.value, got=shown(got))
    return dxo
