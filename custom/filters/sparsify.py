# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Client-side result filter that sends the entries of an update that matter most, and keeps the rest for later rounds.

Top-k with error feedback: Aji and Heafield 2017 (https://arxiv.org/abs/1704.05021), Stich et al. 2018
(https://arxiv.org/abs/1809.07599). Binds `custom.compression` to FLARE. Any job adopts it with this filter for its
training task and `custom.aggregators.sparse.SparseAggregator` as its aggregator.

A site's privacy filters run before those of a job, so it is their output that is selected from and held back.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_copy, make_reply
from nvflare.app_common.app_constant import AppConstants
from nvflare.security.logging import secure_format_exception

from custom.checks.update import is_statistic
from custom.compression import residual, topk, wire
from custom.compression.criteria import Criterion, MagnitudeChange
from custom.compression.wire import Entries, Payload
from custom.errors import BundleError
from custom.keys import POSITIONS, TAKEN_ROUND
from custom.panic import fails_next_task
from custom.printable import shown

_TASK = "sparsify_task"  # in the context of one task


class Sparsify(Filter):
    """Replaces a WEIGHT_DIFF by its most important entries, what was held back in earlier rounds included.

    What `exclude` names, and the running statistics of BatchNorm, are sent as in dense exchange: whole, in float32, and
    nothing of them is ever held back or sent again. A lost difference of statistics must not be added to the next one:
    it is not a step but the way to a measured value, and a variance could turn negative.

    What is held back lies in the site's run folder, a file a workflow: the process may be another one in every round.

    Args:
        keep_fraction: how many of the ranked entries are sent, in (0, 1].
        criterion: scores the entries (`custom.compression.criteria.Criterion`): a component by its path, one of
            `custom.compression.criteria` or your own; `MagnitudeChange` if it is None.
        scope: what `keep_fraction` is of: all ranked tensors together (`model`), or each (`tensor`).
        value_type: `float32` or `float16`, in which values travel.
        warmup_rounds: over how many rounds the fraction falls from 1 to `keep_fraction`.
        exclude: names of tensors, or patterns with `*` and `?`, to send whole.
        error_feedback: whether what is not sent, or was not taken, is added to the next round's update.
    """

    def __init__(
        self,
        keep_fraction: float = 0.1,
        criterion: Criterion | None = None,
        scope: str = "model",
        value_type: str = "float32",
        warmup_rounds: int = 0,
        exclude: Sequence[str] = (),
        error_feedback: bool = True,
    ) -> None:
        super().__init__()
        self.keep_fraction, self.criterion, self.scope, self.value_type = keep_fraction, criterion, scope, value_type
        self.warmup_rounds, self.exclude, self.error_feedback = warmup_rounds, exclude, error_feedback

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        topk.check_keep_fraction(self.keep_fraction)
        if isinstance(self.warmup_rounds, bool) or not isinstance(self.warmup_rounds, int) or self.warmup_rounds < 0:
            raise BundleError(
                code="setting-value",
                key="warmup_rounds",
                expected="a whole number from 0",
                got=shown(self.warmup_rounds),
            )
        for key, choices in {"scope": topk.SCOPES, "value_type": wire.VALUE_TYPES}.items():
            if (value := getattr(self, key)) not in choices:
                raise BundleError(code="setting-value", key=key, expected=" or ".join(choices), got=shown(value))
        if not isinstance(self.exclude, list | tuple) or not all(isinstance(name, str) for name in self.exclude):
            raise BundleError(
                code="setting-value", key="exclude", expected="a list of names or patterns", got=shown(self.exclude)
            )
        if not isinstance(self.error_feedback, bool):
            raise BundleError(
                code="setting-value", key="error_feedback", expected="true or false", got=shown(self.error_feedback)
            )
        unbuilt = isinstance(self.criterion, dict) and "path" in self.criterion  # `bundle export` looks before FLARE
        if not (self.criterion is None or callable(self.criterion) or unbuilt):
            raise BundleError(
                code="setting-value",
                key="criterion",
                expected='{"path": ..., "args": {...}}',
                got=shown(self.criterion),
            )

    @fails_next_task
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Reports wrong settings when the job starts; keeps the task, which FLARE clears before result filters run."""
        if event_type == EventType.START_RUN:
            self.check()
        elif event_type == EventType.BEFORE_TASK_EXECUTION:
            fl_ctx.set_prop(_TASK, fl_ctx.get_prop(FLContextKey.TASK_DATA), private=True, sticky=False)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The result as it is to be sent; an error reply, with the reason, if that cannot be made."""
        if shareable.get_return_code() not in (None, ReturnCode.OK):
            return shareable
        try:
            self.check()
            dxo = from_shareable(shareable)
            if dxo.data_kind != DataKind.WEIGHT_DIFF:
                remedy = "bind Sparsify to a task whose result is an update"
                got = shown(dxo.data_kind)
                raise BundleError(
                    code="job-component", key="result", expected=DataKind.WEIGHT_DIFF.value, got=got, remedy=remedy
                )
            if not dxo.data:  # nothing to contribute; what is held back waits
                return shareable
            values, positions = self._payload(dxo.data, fl_ctx)
        except BundleError as error:
            reason = error.coded() if error.site else f"{fl_ctx.get_identity_name()} {error.coded()}"
            self.log_error(fl_ctx, f"update not sent: {reason}")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: reason})
        except Exception as error:  # of a user's own criterion, or of the disk
            self.log_exception(fl_ctx, f"update not sent: {secure_format_exception(error)}")
            reason = secure_format_exception(error)
            return make_reply(ReturnCode.EXECUTION_EXCEPTION, headers={ReservedHeaderKey.ERROR: reason})
        meta = {**(dxo.meta or {}), POSITIONS: positions}
        return DXO(DataKind.WEIGHT_DIFF, data=values, meta=meta).update_shareable(make_copy(shareable))

    def _payload(self, update: dict[str, Any], fl_ctx: FLContext) -> Payload:
        task = _received(fl_ctx)
        _check_patterns(self.exclude, from_shareable(task).data)
        ranked: dict[str, NDArray[Any]] = {}
        whole: dict[str, NDArray[Any]] = {}
        for name, value in update.items():
            if not isinstance(value, np.ndarray | np.generic):
                raise BundleError(code="update-dtype", key=name, expected="a NumPy array", got=type(value).__name__)
            if np.issubdtype(value.dtype, np.floating):  # the server keeps its own integers
                excluded = is_statistic(name) or any(fnmatchcase(name, pattern) for pattern in self.exclude)
                (whole if excluded else ranked)[name] = np.asarray(value)
        chosen = self._feed_back(ranked, task, fl_ctx) if self.error_feedback else self._choose(ranked, task, fl_ctx)[1]
        rest = wire.encode(whole, {name: np.arange(value.size) for name, value in whole.items()})
        tensors = chosen.positions["tensors"] | rest.positions["tensors"]
        return Payload(chosen.values | rest.values, {**chosen.positions, "tensors": tensors})

    def _feed_back(self, update: dict[str, NDArray[Any]], task: Shareable, fl_ctx: FLContext) -> Payload:
        """Adds what was held back before, and holds back what is not sent now."""
        current_round, path = _round(task), _residual_path(task, fl_ctx)
        try:
            state = residual.load(path, update)
        except residual.Damaged as error:
            self.log_warning(fl_ctx, f"what this site had held back is lost, and training goes on without it: {error}")
            state = None
        if state is not None and state.round_number == current_round:
            # The task comes again because its result was lost. What was lost is sent; to add a second training from
            # the same model would take the step twice.
            update = {name: np.zeros_like(value) for name, value in update.items()}
        total = residual.compensate(update, state, _taken_round(task))
        indices, payload = self._choose(total, task, fl_ctx)
        sent = {name: Entries(indices[name], values) for name, values in payload.values.items()}
        residual.save(path, residual.hold_back(total, sent, current_round))
        return payload

    def _choose(
        self, update: dict[str, NDArray[Any]], task: Shareable, fl_ctx: FLContext
    ) -> tuple[topk.Indices, Payload]:
        current_round = _round(task)
        model = from_shareable(task).data
        fraction = topk.warm_up(self.keep_fraction, current_round, self.warmup_rounds)
        seed = zlib.crc32(f"{fl_ctx.get_identity_name()} {current_round}".encode())
        criterion = MagnitudeChange() if self.criterion is None else self.criterion
        indices = topk.select(update, model, criterion, fraction, scope=self.scope, seed=seed)
        return indices, wire.encode(update, indices, self.value_type)


def _received(fl_ctx: FLContext) -> Shareable:
    task = fl_ctx.get_prop(_TASK)
    try:
        kind = from_shareable(task).data_kind
    except (ValueError, AttributeError):
        kind = "none"
    if kind != DataKind.WEIGHTS:
        remedy = "bind Sparsify to a task that brings the global model"
        raise BundleError(
            code="job-component", key="task", expected=DataKind.WEIGHTS.value, got=shown(kind), remedy=remedy
        )
    return task


def _check_patterns(patterns: Sequence[str], model: Mapping[str, Any]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in model):
            expected = f"tensors of this model, such as {next(iter(model), 'none')}"
            raise BundleError(code="setting-value", key="exclude", expected=expected, got=shown(pattern))


def _round(task: Shareable) -> int:
    return int(task.get_header(AppConstants.CURRENT_ROUND, 0))


def _taken_round(task: Shareable) -> int:
    taken = task.get_header(TAKEN_ROUND)
    if not isinstance(taken, int):
        remedy = "name custom.aggregators.sparse.SparseAggregator as the aggregator, or set error_feedback to false"
        raise BundleError(
            "the server does not say what it took of the last update",
            code="job-component",
            key=TAKEN_ROUND,
            remedy=remedy,
        )
    return taken


def _residual_path(task: Shareable, fl_ctx: FLContext) -> Path:
    """Each workflow has rounds of its own. Its name comes from the server, and must not name a file here."""
    workflow = zlib.crc32(str(task.get_cookie(ReservedHeaderKey.WORKFLOW, "")).encode())
    run_dir = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id())
    return Path(run_dir) / f"residual_{workflow:08x}.pt"
