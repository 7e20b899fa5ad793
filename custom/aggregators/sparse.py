# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The mean of sparse updates: the server's end of sparse exchange; `custom.filters.sparsify.Sparsify` is the sites'.

Also the server's half of error feedback (Seide et al. 2014, https://doi.org/10.21437/Interspeech.2014-274): a site may
forget what it sent only when it was taken, so every training task tells it of which round that is true. The task is the
site's own copy when FLARE fires BEFORE_TASK_DATA_FILTER; so this takes no further entry in a job's JSON, works with any
workflow, and tells no site of the others.

It checks what it receives as CheckUpdate does, except weights. The bytes are `custom.compression.wire`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.dxo import DXO
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext

from custom.aggregators.weighted import Update, WeightedAggregator
from custom.checks.update import Origin, Tensors, UpdateRejected, is_statistic
from custom.compression import wire
from custom.errors import BundleError
from custom.filters.check_update import check_content, global_model, training_task, workflow_and_site
from custom.keys import POSITIONS, TAKEN_ROUND
from custom.learning.robust import LinearRule, Rule
from custom.learning.rules import WEIGHTED_MEAN, built
from custom.panic import ends_job
from custom.printable import shown

ABSENT = ("zero_update", "not_counted")
PIECE = 1 << 17  # entries averaged at a time: their float64 sums stay in the cache, and a whole tensor's take no memory


class _Term(NamedTuple):
    """One site's part in the mean of one tensor of n entries.

    Attributes:
        weight: number of samples.
        values: [k], or [n] where all entries are sent.
        indices: [k], ascending, or None where all are sent.
        bounds: where among the k each piece of the tensor begins, and the last one ends.
    """

    weight: float
    values: NDArray[Any]
    indices: NDArray[Any] | None = None
    bounds: Sequence[int] = ()


class SparseAggregator(WeightedAggregator):
    """Averages sparse and dense WEIGHT_DIFFs by number of samples.

    Updates are held as they came, and unpacked and added up when the round ends, tensor by tensor, in float64 and in
    site-name order. Memory: the updates, the mean (one dense model), and one tensor's indices and values of all sites.
    Where all sites send everything, the mean is WeightedAggregator's bit for bit.

    Args:
        absent: what an entry stands for that a sparse update leaves out: `zero_update`, that the site would not change
            it, as error feedback needs it (sum / weight of all sites); or `not_counted`, that the site has no say (mean
            over those that sent it).
        min_contributions, rule, max_norm_ratio, max_samples_ratio: as in WeightedAggregator; no rule that looks at
            single entries, such as the median.
    """

    takes_any_rule = False  # also one that looks at single entries, for dense updates

    def __init__(
        self,
        absent: str = "zero_update",
        min_contributions: int = 1,
        rule: Rule | str = WEIGHTED_MEAN,
        max_norm_ratio: float | None = 3.0,
        max_samples_ratio: float | None = None,
    ) -> None:
        super().__init__(min_contributions, rule, max_norm_ratio, max_samples_ratio)
        self.absent = absent
        self._taken: dict[tuple[str, str], int] = {}  # by workflow, since each has its own rounds, and site

    def check(self) -> None:
        """Raises BundleError if a setting is out of range."""
        super().check()
        if self.absent not in ABSENT:
            raise BundleError(
                code="setting-value",
                key="SparseAggregator absent",
                expected=" or ".join(ABSENT),
                got=shown(self.absent),
            )
        known = None if self.takes_any_rule or isinstance(self.rule, dict) else built(self.rule)
        if known is not None and not isinstance(known, LinearRule):
            raise BundleError(
                code="setting-value",
                key="SparseAggregator rule",
                expected="a rule for sparse updates: mean_without_outliers, geometric_median or multi_krum",
                got=type(known).__name__,
                remedy="choose one of them, or send dense updates: without Sparsify, and with WeightedAggregator",
            )

    @ends_job
    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Tells each site what was taken of it; for the rest, see WeightedAggregator."""
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.START_RUN:
            self._taken.clear()
        elif event_type == EventType.BEFORE_TASK_DATA_FILTER and (task := training_task(fl_ctx)) is not None:
            task.set_header(TAKEN_ROUND, self._taken.get(workflow_and_site(fl_ctx), -1))

    def state_dict(self) -> dict[str, Any]:
        """The last round of which each site's update was taken, by workflow."""
        return {"taken": [[workflow, site, number] for (workflow, site), number in self._taken.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self._taken = {(str(workflow), str(site)): int(number) for workflow, site, number in state["taken"]}

    def check_content(self, dxo: DXO, weight: float, origin: Origin, fl_ctx: FLContext) -> None:
        """Refuses an update that does not fit the global model, is damaged, or is nothing for the rule.

        Raises:
            UpdateRejected: names site, round and tensor.
        """
        rule = built(self.rule) if dxo.get_meta_prop(POSITIONS) is not None else None
        if rule is not None and not isinstance(rule, LinearRule):
            expected = f"a dense update, for {type(rule).__name__}"
            remedy = "the rule geometric_median takes sparse ones"
            raise UpdateRejected("kind", origin, expected=expected, got="a sparse one", remedy=remedy)
        model, _ = global_model(origin.site, fl_ctx)
        check_content(dxo, weight, model, origin, allow_partial=True)

    def rows(self, contributions: Mapping[str, Update], fl_ctx: FLContext) -> Iterator[NDArray[Any]]:
        """See WeightedAggregator; zeros where a site sent nothing."""
        model, _ = global_model("", fl_ctx)
        for name in (name for name in model if not is_statistic(name)):
            having = [(k, u) for k, u in enumerate(contributions.items()) if name in u[1].diff]
            terms = [(k, _term(name, site, update, model)) for k, (site, update) in having]
            size = model[name].size if terms else 0
            for number, start in enumerate(range(0, size, PIECE)):
                stop = min(start + PIECE, size)
                rows = np.zeros((len(contributions), stop - start))
                for k, term in terms:
                    where, values = _piece(term, number, start, stop)
                    rows[k, where] = values
                yield rows

    def mean(self, contributions: Mapping[str, Update], fl_ctx: FLContext) -> dict[str, NDArray[Any]]:
        """See WeightedAggregator; what is in the mean counts as taken."""
        model, current_round = global_model("", fl_ctx)
        result = mean_of_entries(contributions, model, self.absent)
        workflow, _ = workflow_and_site(fl_ctx)
        self._taken |= {(workflow, site): current_round for site in contributions}
        return result


def mean_of_entries(updates: Mapping[str, Update], model: Tensors, absent: str) -> dict[str, NDArray[Any]]:
    """The weighted mean over those sites that have a say in an entry.

    A site that sent a tensor whole or densely has a say in all of it; a dense update has none in a tensor that it
    leaves out, and a sparse one has, for `zero_update`, in everything.

    Args:
        updates: site name to update that fits the model, with a weight above 0; added up in this order.
        model: the global model, for shapes and dtypes.
        absent: as in SparseAggregator.

    Returns:
        Each tensor that some update has, in the model's shape and dtype; 0 where no site has a say.
    """
    result = {}
    for name, like in model.items():
        terms = [_term(name, site, update, model) for site, update in updates.items() if name in update.diff]
        if terms:
            weight = None
            if absent == "zero_update":
                weight = sum(u.weight for u in updates.values() if u.positions is not None or name in u.diff)
            result[name] = _mean(terms, weight, like.size, like.dtype).reshape(like.shape)
    return result


def _term(name: str, site: str, update: Update, model: Tensors) -> _Term:
    if update.positions is None:
        return _Term(update.weight, np.reshape(update.diff[name], -1))
    indices, values = wire.decode_tensor(name, update.diff, update.positions, model, Origin(site))
    if indices.size == model[name].size:
        return _Term(update.weight, values)
    starts = np.arange(0, model[name].size, PIECE, dtype=indices.dtype)
    return _Term(update.weight, values, indices, [*np.searchsorted(indices, starts).tolist(), indices.size])


def _mean(terms: Sequence[_Term], weight: float | None, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Sum / weight; where `weight` is None, / that of the terms that have the entry."""
    mean = np.empty(size, dtype)
    for number, start in enumerate(range(0, size, PIECE)):
        stop = min(start + PIECE, size)
        total = np.full(stop - start, -0.0)  # adds nothing, be it to the sign of a zero
        counted = np.zeros(stop - start if weight is None else 0)
        for term in terms:
            where, values = _piece(term, number, start, stop)
            total[where] += np.multiply(values, term.weight, dtype=np.float64)
            if weight is None:
                counted[where] += term.weight
        if weight is None:
            np.divide(total, counted, out=total, where=counted > 0)
        else:
            total /= weight
        mean[start:stop] = total
    return mean


def _piece(term: _Term, number: int, start: int, stop: int) -> tuple[Any, NDArray[Any]]:
    """Which of the entries from `start` to `stop` the term has, and their values."""
    if term.indices is None:
        return slice(None), term.values[start:stop]
    part = slice(term.bounds[number], term.bounds[number + 1])
    return term.indices[part] - start, term.values[part]
