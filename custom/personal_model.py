# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A site's personal model and its card on disk: where they lie, and how they are written and read."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from custom.errors import BundleError
from custom.learning.weights import Weights, load_weights, save_atomically, to_tensors
from custom.progress import write_atomically

MODEL_FILE, CARD_FILE = "personal_model.pt", "model_card.json"


def check_replaceable(folder: Path, weights: Weights, site: str) -> None:
    """An earlier personal model there may be replaced only by one of the same architecture.

    Raises:
        BundleError: names the first tensor that differs, or says why the file cannot be read.
    """
    path = folder / MODEL_FILE
    if not path.exists():
        return
    earlier = load_weights(path)
    for key in sorted(earlier.keys() | weights.keys()):
        there = tuple(earlier[key].shape) if key in earlier else "no such tensor"
        new = tuple(weights[key].shape) if key in weights else "no such tensor"
        if there != new:
            raise BundleError(
                f"{path} is a personal model of another architecture",
                code="model-mismatch",
                site=site,
                key=key,
                expected=there,
                got=new,
                remedy="move it away, or give this job another name or personal_dir",
            )


def save(folder: Path, weights: Weights, card: dict[str, Any]) -> None:
    """Writes model and card, each atomically; the model first, so that a card never describes a model not there."""
    save_atomically({"model": to_tensors(weights)}, folder / MODEL_FILE)
    card = {**card, "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    write_atomically(folder / CARD_FILE, json.dumps(card, indent=2) + "\n")


def load_shared(folder: Path, job_id: str, site: str) -> Weights:
    """The personal model that this very job made, with leave to share it; never an earlier job's.

    Raises:
        BundleError: there is none.
    """
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        card = None
    if not isinstance(card, dict) or card.get("job_id") != job_id or card.get("shared") is not True:
        raise BundleError(
            "has no personal model of this job to share", code="nothing-trained", site=site, key="submit_model"
        )
    return load_weights(folder / MODEL_FILE)
