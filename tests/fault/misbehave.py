# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A client-side result filter that makes one site send bad updates; put into the app/custom of an exported job.

Everything here happens at the site, and the server sees it as FLARE brings it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from custom.compression import wire
from custom.keys import POSITIONS

Tensors = dict[str, np.ndarray]
TENSOR = "fc3.weight"


def update(change: Callable[[Tensors], None]) -> Callable[[DXO], None]:
    """A fault of the tensors."""
    return lambda dxo: change(dxo.data)


def one_value(value: float) -> Callable[[DXO], None]:
    """One entry of one tensor."""
    return update(lambda data: data[TENSOR].flat.__setitem__(0, value))


def scaled(factor: float) -> Callable[[DXO], None]:
    """All tensors."""
    return update(lambda data: data.update({name: value * np.float32(factor) for name, value in data.items()}))


def weight(value: Any) -> Callable[[DXO], None]:
    """The number of samples that the site claims."""
    return lambda dxo: dxo.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, value)


def metrics(values: dict[Any, Any]) -> Callable[[DXO], None]:
    """What the site says of the model that it received."""
    return lambda dxo: dxo.set_meta_prop(MetaKey.INITIAL_METRICS, values)


def sparse(damage: Callable[[Tensors, dict[str, Any]], None]) -> Callable[[DXO], None]:
    """Half of the entries; `damage` gets their values, and {name: [coding, parameter, stream, shape]}."""

    def make(dxo: DXO) -> None:
        half = {name: np.arange(0, value.size, 2) for name, value in dxo.data.items()}
        values, positions = wire.encode(dxo.data, half)
        damage(values, positions["tensors"])
        dxo.data = values
        dxo.set_meta_prop(POSITIONS, positions)

    return make


def version(dxo: DXO) -> None:
    """Of a payload that this server cannot know."""
    sparse(lambda values, tensors: None)(dxo)
    dxo.get_meta_prop(POSITIONS)["version"] = 99


FAULTS: dict[str, Callable[[DXO], None]] = {
    "NaN": one_value(math.nan),
    "infinity": one_value(math.inf),
    "norm x 1e6": scaled(1e6),
    "wrong shape": update(lambda data: data.update({TENSOR: data[TENSOR].T.copy()})),
    "wrong dtype": update(lambda data: data.update({TENSOR: data[TENSOR].astype(np.float64)})),
    "missing key": update(lambda data: data.pop(TENSOR)),
    "extra key": update(lambda data: data.update({"fc9.weight": data[TENSOR]})),
    "no tensors": update(lambda data: data.clear()),
    "weight 0": weight(0),
    "weight -1": weight(-1),
    "weight NaN": weight(math.nan),
    "weight 1e30": weight(1e30),
    "weight above its samples": weight(100_000),
    "weight twice": lambda dxo: weight(2 * dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND))(dxo),
    "weight no number": weight("many"),
    "metric NaN": metrics({"val_accuracy": math.nan}),
    "accuracy 3": metrics({"val_accuracy": 3.0}),
    "accuracy 1e308": metrics({"val_accuracy": 1e308}),
    "accuracy -1e308": metrics({"val_accuracy": -1e308}),
    "accuracy as text": metrics({"val_accuracy": "<b>0.9"}),
    "metric named 5": metrics({"val_accuracy": 0.5, 5: 1.0}),
    "metric named with control codes": metrics({"val_accuracy": 0.5, "\x1b[2J\x1b]0;title\x07\nFORGED LINE ": 0.9}),
    "weights, no update": lambda dxo: setattr(dxo, "data_kind", DataKind.WEIGHTS),
    "sparse, another version": version,
    "sparse, cut short": sparse(lambda values, tensors: tensors[TENSOR].__setitem__(2, tensors[TENSOR][2][:-9])),
    "sparse, another shape": sparse(lambda values, tensors: tensors[TENSOR].__setitem__(3, [3, 3])),
    "sparse, unknown coding": sparse(lambda values, tensors: tensors[TENSOR].__setitem__(0, "zip")),
    "sparse, too many values": sparse(lambda values, tensors: values.update({TENSOR: np.ones(10**5, np.float32)})),
    "sparse, values without positions": sparse(lambda values, tensors: tensors.pop(TENSOR)),
    "sparse, NaN": sparse(lambda values, tensors: values[TENSOR].__setitem__(0, math.nan)),
    "sparse, float64": sparse(lambda values, tensors: values.update({TENSOR: values[TENSOR].astype(np.float64)})),
    "sparse, extra key": sparse(
        lambda values, tensors: (
            values.update({"fc9.weight": values[TENSOR]}),
            tensors.update({"fc9.weight": tensors[TENSOR]}),
        )
    ),
    "reversed x 5": scaled(-5),
    "stale round": lambda dxo: None,  # and what follows when it is sent
    "names of others": lambda dxo: None,
    "duplicate": lambda dxo: None,
}
OTHERS = ("site-1", "site-2", "ghost-1", "ghost-2", "ghost-3")


class Misbehave(Filter):
    """Sends another kind of bad update in each round, and the last kind from then on.

    Args:
        site: who misbehaves.
        kinds: keys of FAULTS.
    """

    def __init__(self, site: str, kinds: Sequence[str]) -> None:
        super().__init__()
        self.site, self.kinds = site, kinds
        self._kind = ""
        self._result = Shareable()

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The update as it should be, or not."""
        if fl_ctx.get_identity_name() != self.site:
            return shareable
        current_round = fl_ctx.get_prop("misbehave_round")
        self._kind = self.kinds[min(current_round, len(self.kinds) - 1)]
        dxo = from_shareable(shareable)
        FAULTS[self._kind](dxo)
        self._result = dxo.to_shareable()
        return self._result

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keeps the round, which FLARE clears before filters run; does what filters cannot do."""
        if event_type == EventType.BEFORE_TASK_EXECUTION:
            task = fl_ctx.get_prop(FLContextKey.TASK_DATA)
            fl_ctx.set_prop("misbehave_round", task.get_header(AppConstants.CURRENT_ROUND), private=True, sticky=False)
        elif event_type == EventType.BEFORE_SEND_TASK_RESULT and fl_ctx.get_identity_name() == self.site:
            if self._kind == "stale round":
                sent_round = self._result.get_cookie(AppConstants.CONTRIBUTION_ROUND)
                self._result.add_cookie(AppConstants.CONTRIBUTION_ROUND, sent_round - 1)
            elif self._kind == "names of others":
                self._send_as_others(fl_ctx)
            elif self._kind == "duplicate":
                self._send_twice(fl_ctx)
            self._kind = ""

    def _send_as_others(self, fl_ctx: FLContext) -> None:
        """Good updates, before its own: enough to outvote all others, if each counted. And an event of the server."""
        self.fire_fed_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, Shareable(), fl_ctx)
        engine = fl_ctx.get_engine()
        for number, name in enumerate(OTHERS):
            result = copy.deepcopy(self._result)
            result.add_cookie(FLContextKey.TASK_ID, f"00000000-0000-0000-0000-{number:012}")
            with engine.new_context() as other:
                other.set_prop(ReservedKey.IDENTITY_NAME, name, private=False, sticky=False)
                assert other.get_identity_name() == name
                engine.send_task_result(result, other)

    def _send_twice(self, fl_ctx: FLContext) -> None:
        """A good update, and at once another one as of another task; FLARE then sends the good one again."""
        engine = fl_ctx.get_engine()
        engine.send_task_result(copy.deepcopy(self._result), fl_ctx)
        second = copy.deepcopy(self._result)
        scaled(-5)(from_shareable(second))
        second.add_cookie(FLContextKey.TASK_ID, "00000000-0000-0000-0000-000000000000")
        engine.send_task_result(second, fl_ctx)
