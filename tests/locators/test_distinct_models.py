# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The locator on files that FLARE's own persistor wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nvflare.apis.event_type import EventType
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor

from custom.locators.distinct_models import DistinctModels
from tests.support import Engine, arrays

FINAL, BEST = "FL_global_model.pt", "best_FL_global_model.pt"


def locate(root: Path, **models: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Writes the models `final` and `best`, and returns those that would be scored."""
    persistor = PTFileModelPersistor()
    locator = DistinctModels("persistor")
    engine = Engine(root, {"persistor": persistor, "locator": locator}, ["site-1"])
    with engine.new_context() as fl_ctx:
        engine.fire_event(EventType.START_RUN, fl_ctx)
        persistor.load_model(fl_ctx)
        for kind, path in (("final", persistor._ckpt_save_path), ("best", persistor._best_ckpt_save_path)):
            if kind in models:
                persistor._get_persistence_manager(fl_ctx).update(make_model_learnable(models[kind], {}))
                persistor.save_model_file(path)
        return {name: locator.locate_model(name, fl_ctx).data for name in locator.get_model_names(fl_ctx)}


def test_a_best_model_that_is_the_final_one_is_scored_once(tmp_path: Path) -> None:
    found = locate(tmp_path, final=arrays(a=[1, 2], b=[[3]]), best=arrays(a=[1, 2], b=[[3]]))
    assert list(found) == [FINAL]
    assert found[FINAL]["a"].tolist() == [1, 2]


def test_another_best_model_is_scored_too(tmp_path: Path) -> None:
    found = locate(tmp_path, final=arrays(a=[1, 2], b=[3]), best=arrays(a=[1, 2], b=[3.5]))
    assert list(found) == [FINAL, BEST]
    assert (found[FINAL]["b"].tolist(), found[BEST]["b"].tolist()) == ([3], [3.5])


@pytest.mark.parametrize(("models", "names"), [({"final": arrays(a=[1])}, [FINAL]), ({}, [])])
def test_where_there_is_no_best_model(
    tmp_path: Path, models: dict[str, dict[str, np.ndarray]], names: list[str]
) -> None:
    assert list(locate(tmp_path, **models)) == names
