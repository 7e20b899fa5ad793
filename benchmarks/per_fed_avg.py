# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What personalisation gains on writers never trained on, without and with meta-learning before it, under FLARE.

    FLARE_DATA_ROOT=... python -m benchmarks.per_fed_avg [--dataset mnist] [--rounds 100] [--seeds 0 1] [--json FILE]

Real jobs in the simulator. For each number of local epochs, writers per round and seed: FedAvg, then, from its one
checkpoint, more FedAvg and each variant of the meta phase, with the same number of gradients a writer. All held-out
writers are scored, and differences are paired by writer. Runs that FILE has are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.simulate import export, server_json, simulate

GRADIENTS = 12  # of a writer in a meta round: 12 steps of Reptile, 6 of two gradients, 3 of four
STEP = {"inner_lr": 0.02, "outer_lr": 0.02, "batch_size": 20}
VARIANTS: dict[str, dict[str, Any]] = {
    # The control: as many rounds, and gradients of a writer of MNIST (6 batches a pass), without meta-learning.
    "fed_avg": {"path": "custom.learning.fed_avg.FedAvg", "args": {"local_epochs": 2, "local_lr": 0.02}},
    "reptile": {
        "path": "custom.learning.reptile.Reptile",
        "args": {"inner_steps": GRADIENTS, "inner_lr": 0.0001, "batch_size": 20},
    },
    "first_order": {"path": "custom.learning.maml.FirstOrderMaml", "args": {"inner_steps": GRADIENTS // 2, **STEP}},
    "hessian_free": {"path": "custom.learning.maml.HessianFreeMaml", "args": {"inner_steps": GRADIENTS // 4, **STEP}},
}
LEAF_FOLDERS = {"unipen62": ["dataset=femnist", "num_classes=62"]}  # LEAF's layout, under a name of its own
MODELS = {"cifar10": {"path": "custom.models.lenet.LeNet", "args": {"num_classes": 10}}}


def put_components(job: Path, components: dict[str, dict[str, Any]]) -> None:
    """Replaces components of the client by id, as a user would in the JSON."""
    path = job / "app" / "config" / "config_fed_client.json"
    config = json.loads(path.read_text())
    config["components"] = [{"id": c["id"], **components.get(c["id"], c)} for c in config["components"]]
    path.write_text(json.dumps(config))


def run(name: str, settings: list[str], components: dict[str, Any], args: argparse.Namespace, folder: Path) -> Path:
    """One job; its workspace."""
    common = [*LEAF_FOLDERS.get(args.dataset, [f"dataset={args.dataset}"]), "on_missing=error", *args.set]
    job = export("perfedavg", folder / f"job-{name}", [*common, *settings])
    model = {"model": MODELS[args.dataset]} if args.dataset in MODELS else {}
    put_components(job, model | components)
    simulate(job, folder / f"run-{name}", sites=args.sites)
    return folder / f"run-{name}"


def column(workspace: Path, name: str) -> np.ndarray:
    """One score of every held-out writer, in the same order in every run."""
    sites = server_json(workspace, "personalize.json")["sites"]
    return np.array([value for site in sorted(sites) for value in sites[site][name]])


def row(workspace: Path, without: Path, started: float) -> dict[str, Any]:
    """The table of one run, and how each writer's personalised accuracy differs from that without a meta phase."""
    difference = column(workspace, "personalized_accuracy") - column(without, "personalized_accuracy")
    return {
        **server_json(workspace, "personalize.json")["summary"],
        "above_no_meta": {
            "mean": float(difference.mean()),
            "standard_error": float(difference.std(ddof=1) / math.sqrt(len(difference))),
        },
        "seconds": time.monotonic() - started,
    }


def cell(epochs: int, writers: int, seed: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """FedAvg and all variants."""
    started = time.monotonic()
    settings = [f"local_epochs={epochs}", f"writers_per_round={writers}", f"seed={seed}"]
    rounds = [f"eval_every={args.eval_every}", f"fed_avg.num_rounds={args.rounds}", "meta_train.num_rounds=0"]
    name = f"{epochs}-{writers}-{seed}"
    fed_avg = run(f"{name}-none", [*settings, *rounds], {}, args, folder)
    rows = {"none": row(fed_avg, fed_avg, started)}
    checkpoint = fed_avg / "server" / "simulate_job" / "app_server" / "fed_avg_model.pt"
    for variant, component in VARIANTS.items():
        started = time.monotonic()
        branch = ["eval_every=0", "fed_avg.num_rounds=0", f"meta_train.num_rounds={args.meta_rounds}"]
        start = f"initial_model={checkpoint}"
        # In FedAvg a writer weighs as many as its samples, and in meta-learning 1.
        weights = ["check_update.writers_weigh_one=[]"] if variant == "fed_avg" else []
        workspace = run(f"{name}-{variant}", [*settings, *branch, start, *weights], {"meta": component}, args, folder)
        rows[variant] = row(workspace, fed_avg, started)
    return rows


def main() -> None:
    """Prints a line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "femnist", "cifar10", *LEAF_FOLDERS))
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--meta-rounds", type=int, default=20)
    parser.add_argument("--eval-every", type=int, default=25)
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--writers", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of the job")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "FLARE_DATA_ROOT" not in os.environ:
        sys.exit("set FLARE_DATA_ROOT to the folder that holds the data")
    runs = json.loads(args.json.read_text())["runs"] if args.json and args.json.is_file() else []
    done = {(run["seed"], run["epochs"], run["writers"]) for run in runs}
    wanted = set(itertools.product(args.seeds, args.epochs, args.writers))
    with tempfile.TemporaryDirectory() as name:
        if args.dataset in LEAF_FOLDERS:
            os.environ["FLARE_DATA_ROOT"] = str(Path(os.environ["FLARE_DATA_ROOT"], args.dataset).absolute())
        for seed, epochs, writers in sorted(wanted - done):
            rows = cell(epochs, writers, seed, args, Path(name))
            runs.append({"epochs": epochs, "writers": writers, "seed": seed, "variants": rows})
            for variant, result in rows.items():
                print_row(f"E {epochs}  writers {writers:2}  seed {seed}  {variant:12}", result)
            write(args, runs)


def print_row(name: str, result: dict[str, Any]) -> None:
    """One line."""
    before, after = (100 * result[when]["accuracy"]["mean"] for when in ("initial", "personalized"))
    gain, above = result["gain"], result["above_no_meta"]
    print(
        f"{name} {before:.2f} -> {after:.2f}  gain {100 * gain['mean']:+.2f} +- {100 * gain['standard_error']:.2f}  "
        f"harmed {100 * result['harmed']:.0f} %  above no meta {100 * above['mean']:+.2f} +- "
        f"{100 * above['standard_error']:.2f}  {result['seconds']:.0f} s",
        flush=True,
    )


def write(args: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """After every cell, so that nothing is lost."""
    if args.json:
        names = ("dataset", "sites", "rounds", "meta_rounds", "set")
        result = {
            "machine": machine.describe(),
            "arguments": {name: getattr(args, name) for name in names},
            "variants": VARIANTS,
            "runs": runs,
        }
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
