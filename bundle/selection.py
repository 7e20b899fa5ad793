# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Will the job select its best model by a metric that its sites report, in the right direction?"""

from __future__ import annotations

import filecmp
from pathlib import Path

from bundle import ROOT
from bundle.arguments import Component, components
from bundle.jobs import Job
from custom.errors import BundleError
from custom.metrics import NEGATIVES, POSITIVES, check_direction, lower_is_better, unknown_metric

OURS = "custom.widgets.model_selector.ModelSelector"
FLARES = "nvflare.app_common.widgets.intime_model_selector.IntimeModelSelector"
PROGRESS = "custom.widgets.progress_log.ProgressLog"
TRAINER, META_TRAINER = "custom.executors.trainer.Trainer", "custom.executors.meta_trainer.MetaTrainer"
SCORED_BY = ("custom/executors/trainer.py", "custom/learning/evaluate.py", "custom/learning/two_classes.py")
PREFIX = "val_"
OF_ALL = ("accuracy", "loss")
OF_TWO_CLASSES = ("auc", "sensitivity", "specificity")
DEFAULT = "val_accuracy"


def check_selection(job: Job, copy: Path) -> bool:
    """Checks the key metric of each selector and of the log; sets `negate_key_metric` of FLARE's own where low is good.

    Args:
        job: with the settings as they will be; its configurations are changed in place.
        copy: the job's folder as it will be.

    Returns:
        Was anything changed?

    Raises:
        BundleError: the sites do not report the metric, or the worst model would be selected.
    """
    changed = False
    parts = components(job.configs)
    reported = _reported(job, parts, copy)
    for selector in (part for part in parts if part.path in (OURS, FLARES, PROGRESS)):
        metric = selector.arguments.get("key_metric", DEFAULT)
        if not isinstance(metric, str):  # its own check says so
            continue
        if reported and metric not in reported:
            raise unknown_metric(metric, reported)
        if reported == [] and metric != DEFAULT:
            remedy = "leave it out: rounds are scored on held-out clients alone"
            raise BundleError(
                "the sites report no metric in training",
                code="metric-unknown",
                key="key_metric",
                got=metric,
                remedy=remedy,
            )
        if selector.path == FLARES and (lower := lower_is_better(metric)) is not None:
            if lower and "negate_key_metric" not in selector.arguments:
                selector.arguments["negate_key_metric"] = changed = True
            check_direction(metric, selector.arguments.get("negate_key_metric", False))
    return changed


def _reported(job: Job, parts: list[Component], copy: Path) -> list[str] | None:
    """The validation metrics of the bundle's own trainers; None where another one trains, or its code was changed."""
    trainers = [
        binding.get("executor", {}).get("path")
        for config in job.configs.values()
        for binding in config.get("executors", [])
        if {"train", "meta_train", "*"} & set(binding.get("tasks", []))
    ]
    if set(trainers) == {META_TRAINER}:
        return []
    if set(trainers) != {TRAINER} or not all(_is_ours(job, copy, name) for name in SCORED_BY):
        return None
    models = [part for part in parts if part.id == "model" and part.side == "client"]
    outputs = {_outputs(model) for model in models} or {None}
    names = [*OF_ALL, *(OF_TWO_CLASSES if outputs & {2, None} else ())]
    counts = (POSITIVES, NEGATIVES) if outputs & {2, None} else ()
    return [f"{PREFIX}{name}" for name in (*names, *counts)]


def _is_ours(job: Job, copy: Path, name: str) -> bool:
    files = [copy / path.parent.parent / "custom" / name for path in job.configs]
    return all(not file.exists() or filecmp.cmp(file, ROOT / name, shallow=False) for file in files)


def _outputs(model: Component) -> int | None:
    """How many classes the model tells apart; None if that is not in the settings."""
    parameter = model.parameters().get("num_classes")
    value = model.arguments.get("num_classes", parameter.default if parameter else None)
    return value if isinstance(value, int) else None
