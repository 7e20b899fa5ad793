# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What one malicious site does to the model, who is named for it, and what the defences cost when all are honest.

    python -m benchmarks.malicious_site [--sites 3 5 10] [--seeds 0 1 2] [--rules weighted_mean median] [--json FILE]

CheckUpdate, the aggregator and the training of hello-pt on the embedded digits, called as FLARE calls them, in one
process; the middle site is the malicious one. Test accuracy of the last model on all 1,000 test images. Runs that FILE
has are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants

from benchmarks import machine
from benchmarks.attacks import ATTACKS, TARGET, Poison, trigger
from benchmarks.other_rules import OTHER_RULES
from custom.aggregators.weighted import WeightedAggregator
from custom.checks.outliers import Outliers
from custom.data.image_data import ImageData
from custom.filters.check_update import CheckUpdate
from custom.keys import SAMPLES, STANDINGS
from custom.learning.evaluate import evaluate_split
from custom.learning.rules import RULES
from custom.learning.seed import derive
from custom.learning.train import LocalBudget, train
from custom.learning.weights import get_weights, set_weights, weight_difference
from custom.models.lenet import LeNet
from tests.filters.flare_contexts import Server, submission

CPU = torch.device("cpu")
PARTITIONS: dict[str, dict[str, Any]] = {
    "iid": {},
    "dirichlet 0.3": {"partition": "dirichlet", "alpha": 0.3},
    "dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1},
    "iid, one of five times the size": {},
    "iid, sizes 20:10:4:2:1": {},
}
SIZES = {"iid, one of five times the size": (5, 1, 1, 1, 1), "iid, sizes 20:10:4:2:1": (20, 10, 4, 2, 1)}
LR, MOMENTUM = 0.05, 0.9  # hello-pt's on digits
RULES_HELP = f"{', '.join(RULES)}; or, from elsewhere, {', '.join(OTHER_RULES)}"
Weights = dict[str, np.ndarray]


def flat(update: Weights) -> np.ndarray:
    """[parameters], float64."""
    return np.concatenate([np.ravel(value) for value in update.values()]).astype(np.float64)


def shaped(vector: np.ndarray, like: Weights) -> Weights:
    """`flat` undone."""
    parts = np.split(vector, np.cumsum([value.size for value in like.values()])[:-1])
    pairs = zip(like.items(), parts, strict=True)
    return {name: part.reshape(value.shape).astype(value.dtype) for (name, value), part in pairs}


class Federation:
    """The sites' data, and a server in the middle of a workflow."""

    def __init__(self, sites: int, partition: str, seed: int, folder: Path) -> None:
        self.names = [f"site-{number}" for number in range(1, sites + 1)]
        self.bad = self.names[(sites - 1) // 2]
        data, roster = ImageData(dataset="digits", **PARTITIONS[partition]), tuple(self.names)
        self.data = {name: data.site(name, roster, seed) for name in self.names}
        for site, size in zip(self.data.values(), SIZES.get(partition, ()), strict=False):
            first, rows = site._rows["train"]
            site._rows = {**site._rows, "train": (first, rows[: len(rows) * size // max(SIZES[partition])])}
        self.everything = ImageData(dataset="digits").site("all", ("all",), 0)
        self.seed, self.model = seed, LeNet()
        torch.manual_seed(seed)
        self.model = LeNet()
        self.weights: Weights = get_weights(self.model)
        self.server = Server(self.weights)
        clients = [SimpleNamespace(name=name) for name in self.names]
        self.server.engine.get_clients = lambda: clients  # type: ignore[attr-defined]
        self.server.engine.get_workspace = lambda: SimpleNamespace(get_run_dir=lambda job: str(folder))  # type: ignore[attr-defined]

    def local_update(self, name: str, number: int, poison: Poison | None) -> Weights:
        """One site's training of one round."""
        seed = derive(self.seed, self.names.index(name), number)
        torch.manual_seed(seed)
        set_weights(self.model, self.weights)
        batches = LocalBudget().batches(self.data[name], CPU, torch.Generator().manual_seed(seed))
        poisoned = (poison(*batch) for batch in batches) if poison else batches
        train(self.model, poisoned, torch.optim.SGD(self.model.parameters(), LR, MOMENTUM))
        return weight_difference(get_weights(self.model), self.weights)

    def accuracy(self) -> float:
        """Of the global model, on all test images."""
        set_weights(self.model, self.weights)
        return evaluate_split(self.model, self.everything, "test", CPU)["test_accuracy"]

    def triggered(self) -> float:
        """How many of the test images of other classes are read as TARGET with the trigger."""
        set_weights(self.model, self.weights)
        self.model.eval()
        hits = total = 0
        with torch.no_grad():
            for images, labels in self.everything.batches("test", 500, CPU):
                read = self.model(trigger(images[labels != TARGET])).argmax(dim=1)
                hits, total = hits + int((read == TARGET).sum()), total + len(read)
        return hits / total


def run(
    sites: int, partition: str, seed: int, attack: str, aggregator: WeightedAggregator, rounds: int = 10
) -> dict[str, Any]:
    """One federation; its last accuracy, who was named and who was refused."""
    poison, crafted, more = ATTACKS[attack]
    with tempfile.TemporaryDirectory() as folder:
        here = Federation(sites, partition, seed, Path(folder))
        samples = {name: {"train": float(here.data[name].size("train"))} for name in here.names}
        samples[here.bad]["train"] *= more
        here.server.set(SAMPLES, samples)
        check, outliers, refused = CheckUpdate(), Outliers(), []
        for number in range(1, rounds + 1):
            here.server.enter(number - 1)
            here.server.set(AppConstants.GLOBAL_MODEL, make_model_learnable(here.weights, {}))
            sent = {name: here.local_update(name, number, poison if name == here.bad else None) for name in here.names}
            if crafted:
                others = np.stack([flat(update) for name, update in sent.items() if name != here.bad])
                sent[here.bad] = shaped(crafted(flat(sent[here.bad]), others, number, rounds), here.weights)
            for name, update in sent.items():
                context = here.server.context(name)
                result = check.process(submission(name, number - 1, update, samples[name]["train"]), context)
                if result.get_return_code() != ReturnCode.OK or not aggregator.accept(result, context):
                    refused.append(name)
            context = here.server.context()
            step = from_shareable(aggregator.aggregate(context)).data
            outliers.add(f"round {number}", context.get_prop(STANDINGS) or {})
            here.weights = {name: value + step[name] if name in step else value for name, value in here.weights.items()}
        return {
            "accuracy": here.accuracy(),
            **({"triggered": here.triggered()} if "backdoor" in attack else {}),
            "malicious": here.bad if attack != "none" else None,
            "named": sorted({site for site, _ in outliers.found}),
            "refused": sorted(set(refused)),
        }


def main() -> None:
    """Prints a line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--partitions", nargs="+", default=["iid", "dirichlet 0.3"], help=", ".join(PARTITIONS))
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    parser.add_argument("--rules", nargs="+", default=["weighted_mean", "mean_without_outliers"], help=RULES_HELP)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--no-limit", action="store_true", help="plain FedAvg: no limit of norms")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    known = json.loads(args.json.read_text())["runs"] if args.json and args.json.is_file() else []
    keys = ("sites", "partition", "rule", "attack", "seed", "rounds")
    done = {tuple(row[key] for key in keys) for row in known}
    wanted = itertools.product(args.seeds, args.sites, args.partitions, args.rules, args.attacks)
    for seed, sites, partition, rule, attack in wanted:
        label = "mean without limit" if args.no_limit and rule == "weighted_mean" else rule
        key = (sites, partition, label, attack, seed, args.rounds)
        if key in done:
            continue
        started = time.monotonic()
        made = OTHER_RULES[rule]() if rule in OTHER_RULES else rule
        aggregator = WeightedAggregator(rule=made, max_norm_ratio=None if args.no_limit else 3.0)
        row = dict(zip(keys, key, strict=True)) | run(sites, partition, seed, attack, aggregator, args.rounds)
        known.append(row)
        named = ", ".join(row["named"]) or "nobody"
        print(*key[:-1], f"{row['accuracy']:.3f}", f"named {named}", f"{time.monotonic() - started:.0f} s", flush=True)
        if args.json:
            args.json.write_text(json.dumps({"machine": machine.describe(), "runs": known}, indent=2) + "\n")


if __name__ == "__main__":
    main()
