# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What a job needs to be continued after its last completed round: one file, replaced as a whole at every round's end.

It is also a file of weights, so that InitializeGlobalWeights starts from it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, Field, ValidationError

from custom.errors import BundleError
from custom.events import RoundNumber
from custom.learning.torch_file import Array, Content, read_as
from custom.learning.weights import Weights, save_atomically, to_tensors
from custom.names import is_name
from custom.printable import shown

FILE_NAME = "checkpoint.pt"  # in the server's run folder of the job
FORMAT = 1
OTHERWISE = "give initial_model to a new job instead"


class Checkpoint(NamedTuple):
    """The state between two rounds.

    Attributes:
        job_id: of the job that wrote it.
        workflow: id of the training workflow that was running.
        round: of that workflow, counted from 1, the last one completed.
        num_rounds: that it is to have at its end.
        rounds: completed in all, by workflow.
        model: after that round.
        states: `state_dict()` of every component that has one, by id.
        best: `{"round", "metric", "value"}` of the best model so far, or None.
    """

    job_id: str
    workflow: str
    round: int
    num_rounds: int
    rounds: dict[str, int]
    model: Weights
    states: dict[str, Any]
    best: dict[str, Any] | None


def _named(name: str) -> str:
    if not is_name(name):
        raise ValueError("no name of a folder")
    return name


Name = Annotated[str, AfterValidator(_named)]


class _Best(Content):
    round: RoundNumber
    metric: str
    value: float


class _File(Content):
    format: Literal[1]
    job_id: Name  # a run folder of that name is looked for
    workflow: str
    round: RoundNumber
    num_rounds: RoundNumber
    rounds: dict[str, RoundNumber]
    model: Annotated[dict[str, Array], Field(min_length=1)]
    states: dict[str, dict[str, Any]]
    best: _Best | None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes it; `path` is always a whole file, the old one or the new one."""
    content = {**checkpoint._asdict(), "format": FORMAT, "model": to_tensors(checkpoint.model)}
    save_atomically(content, path)


def load(path: Path) -> Checkpoint:
    """Reads it.

    Raises:
        BundleError: it is missing, cut short, or something else.
    """
    if not path.is_file():
        raise BundleError(
            "no such checkpoint",
            code="checkpoint-missing",
            key=str(path),
            remedy="has config_fed_server.json of the job SaveCheckpoint?",
        )
    try:
        content = read_as(path, _File)
    except BundleError:
        raise
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise BundleError(
            "is not a checkpoint of this version of the bundle",
            code="checkpoint-unusable",
            key=f"{path} {'.'.join(map(shown, found['loc']))}".rstrip(),
            remedy=OTHERWISE,
        ) from error
    except Exception as error:  # torch's own text advises to switch the protection off
        problem = "cannot be loaded safely: it is cut short, or no checkpoint"
        raise BundleError(problem, code="checkpoint-unusable", key=str(path), remedy=OTHERWISE) from error
    fields = {name: getattr(content, name) for name in Checkpoint._fields}
    return Checkpoint(**{**fields, "best": content.best and content.best.model_dump()})


def plain_best(selection: Any) -> dict[str, Any] | None:
    """FLARE's METRICS_SELECTION_INFO as plain numbers: those of the key metric; None if there is no such number."""
    metrics = selection.get("best_metrics", {}) if isinstance(selection, dict) else {}
    for metric, value in metrics.items():
        if isinstance(value, int | float | np.number) and math.isfinite(value):
            return {"round": int(selection["best_round"]), "metric": str(metric), "value": float(value)}
    return None
