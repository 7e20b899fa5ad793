# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The numbers of the rounds that are left, as the sites are told them."""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator

from controllers.continued_rounds import ContinuedRounds
from custom.aggregators.weighted import WeightedAggregator
from tests.support import Engine, arrays, run_controller


def test_rounds_count_on_and_the_sites_know_of_all_rounds(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def train(site: str, task: str, data: Shareable) -> Shareable:
        told.append((data.get_header(AppConstants.CURRENT_ROUND), data.get_header(AppConstants.NUM_ROUNDS)))
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 1}
        reply = DXO(DataKind.WEIGHT_DIFF, data=arrays(w=[1.0]), meta=meta).to_shareable()
        reply.add_cookie(AppConstants.CONTRIBUTION_ROUND, data.get_cookie(AppConstants.CONTRIBUTION_ROUND))
        return reply

    parts = {"aggregator": WeightedAggregator(), "shareable_generator": FullModelShareableGenerator()}
    engine = Engine(tmp_path, parts, ["site-1"])
    engine.persist_components = lambda *args, **kwargs: None  # type: ignore[attr-defined]
    with engine.new_context() as fl_ctx:
        model = make_model_learnable(arrays(w=[5.0]), {})
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=True)
    rounds = ContinuedRounds(first_round=2, min_clients=1, num_rounds=4, task_check_period=0.01)
    rounds._global_weights = make_model_learnable(arrays(w=[5.0]), {})
    run_controller(engine, rounds, train)
    assert engine.panic() == ""
    assert told == [(2, 4), (3, 4)]
