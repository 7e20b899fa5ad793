# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What one lying site does to the choice of the best model, by the weighted and by the trimmed mean of the scores.

    python -m benchmarks.selection [--sites 3 5 10] [--seeds 0 1 2] [--json FILE]

Honest training of hello-pt on the embedded digits, in one process. Each round's model is scored by each site on its own
validation data, and by us on all test images. Lost is the test accuracy of the chosen round below the best round's. The
liar, each site in turn, says 1.0 of the round of its choice and 0 of all others, with its own number of samples, and
with a thousand times that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.malicious_site import CPU, PARTITIONS, Federation
from custom.learning.evaluate import evaluate_split
from custom.learning.weights import set_weights
from custom.metrics import selection_score, weighted_mean

METRIC = "val_accuracy"
Scores = list[dict[str, dict[str, float]]]  # by round, by site
Rule = Callable[[dict[str, dict[str, float]], dict[str, float]], float]


def trimmed_mean(scores: dict[str, dict[str, float]], samples: dict[str, float]) -> float:
    """The product's."""
    found = selection_score(METRIC, scores, samples)
    assert found is not None
    return found[0]


RULES: dict[str, Rule] = {
    "weighted mean": lambda scores, samples: weighted_mean(scores, samples)[METRIC],
    "trimmed mean": trimmed_mean,
}


def train(sites: int, partition: str, seed: int, rounds: int) -> tuple[Scores, list[float], dict[str, float]]:
    """FedAvg; each round's scores, its test accuracy, and the sites' numbers of training samples."""
    scores: Scores = []
    accuracy: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        here = Federation(sites, partition, seed, Path(folder))
        samples = {name: float(here.data[name].size("train")) for name in here.names}
        total = sum(samples.values())
        for number in range(1, rounds + 1):
            sent = {name: here.local_update(name, number, None) for name in here.names}
            step = {key: sum(samples[name] / total * sent[name][key] for name in here.names) for key in here.weights}
            here.weights = {key: (value + step[key]).astype(value.dtype) for key, value in here.weights.items()}
            set_weights(here.model, here.weights)
            validated = {name: evaluate_split(here.model, here.data[name], "validation", CPU) for name in here.names}
            scores.append({name: {METRIC: one[METRIC]} for name, one in validated.items()})
            accuracy.append(here.accuracy())
    return scores, accuracy, samples


def lost(scores: Scores, accuracy: Sequence[float], samples: dict[str, float], rule: Rule) -> float:
    """Test accuracy of the best round less that of the chosen one; of equal ones the first is chosen."""
    chosen = max(range(len(scores)), key=lambda number: rule(scores[number], samples))
    return max(accuracy) - accuracy[chosen]


def with_liar(scores: Scores, liar: str, choice: int) -> Scores:
    return [{**row, liar: {METRIC: float(number == choice)}} for number, row in enumerate(scores)]


def measure(sites: int, partition: str, seed: int, rounds: int) -> dict[str, Any]:
    """One federation: what each rule loses, honest and with the worst liar."""
    scores, accuracy, samples = train(sites, partition, seed, rounds)
    row: dict[str, Any] = {"sites": sites, "partition": partition, "seed": seed}
    for name, rule in RULES.items():
        row[f"{name}, honest"] = lost(scores, accuracy, samples, rule)
        for title, factor in (("liar", 1.0), ("liar, 1000 x samples", 1000.0)):
            row[f"{name}, {title}"] = max(
                lost(with_liar(scores, liar, choice), accuracy, samples | {liar: factor * samples[liar]}, rule)
                for liar, choice in itertools.product(samples, range(rounds))
            )
    return row


def main() -> None:
    """Prints a line a federation, and means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for sites, partition, seed in itertools.product(args.sites, PARTITIONS, args.seeds):
        rows.append(measure(sites, partition, seed, args.rounds))
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()})
    for sites, partition in itertools.product(args.sites, PARTITIONS):
        here = [row for row in rows if (row["sites"], row["partition"]) == (sites, partition)]
        names = [key for key in here[0] if "," in key]
        print(sites, partition, {name: round(statistics.mean(row[name] for row in here), 3) for name in names})
    if args.json:
        result = {"machine": machine.describe(), "rounds": args.rounds, "runs": rows}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
