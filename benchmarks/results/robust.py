# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Sections about malicious sites: what they do, who is named, and what each rule costs in time and memory."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.results.tables import spread, table

NAMING = ("weighted_mean", "mean_without_outliers")
RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
MOST_LOST = {"iid": 2, "dirichlet 0.3": 5}  # points of accuracy that an attack may cost


def robust_aggregation(result: dict[str, Any]) -> str:
    """A table for each size of model."""
    return "\n".join(_cost(part) for part in result["costs"])


def malicious_site(result: dict[str, Any]) -> str:
    """Accuracy under each attack, and who was named: a table for each number of sites and partition."""
    runs, parts = result["runs"], []
    for where in sorted({(run["sites"], run["partition"] != "iid", run["partition"], run["rounds"]) for run in runs}):
        sites, _, partition, rounds = where
        here = [run for run in runs if (run["sites"], run["partition"], run["rounds"]) == (sites, partition, rounds)]
        seeds = len({run["seed"] for run in here})
        parts.append(_attacks(f"{sites} sites, {partition}, {rounds} rounds, {seeds} seeds", here))
    return "\n".join(parts) + (
        "\nTest accuracy in % of LeNet on the embedded digits after the last round, mean and standard deviation over "
        "seeds. *named*: in how many runs the malicious site was named, of the default and of `mean_without_outliers`; "
        "*others*: honest sites named, in all runs. Ten sites take 20 rounds: after 10, LeNet is on its plateau. "
        "Sizes are those of the sites' training data.\n"
    )


def robust_rules(result: dict[str, Any]) -> str:
    """Accuracy under each attack, a rule a column: a table for each partition."""
    shipped = json.loads((RESULTS / "malicious_site.json").read_text())["runs"]
    where = {(run["sites"], run["partition"], run["rounds"]) for run in result["runs"]}
    beside = [run for run in shipped if run["rule"] in NAMING and _where(run) in where]
    runs, parts = [*beside, *result["runs"]], []
    for partition in dict.fromkeys(run["partition"] for run in runs):
        here = [run for run in runs if run["partition"] == partition]
        rules, seeds = list(dict.fromkeys(run["rule"] for run in here)), len({run["seed"] for run in here})
        rows = [
            [attack, *(_accuracy(here, attack, rule) for rule in rules)]
            for attack in dict.fromkeys(run["attack"] for run in here)
        ]
        most = MOST_LOST[partition]
        rows.append([f"cost more than {most} points", *(str(costly(here, rule, most)) for rule in rules)])
        title = f"{here[0]['sites']} sites, {partition}, {here[0]['rounds']} rounds, {seeds} seeds"
        parts.append(table([title, *(rule.replace("_", " ") for rule in rules)], rows))
    return "\n".join(parts) + (
        "\nAs above, with the limit of norms. The last row counts attacks; points are those below FedAvg where all "
        "are honest. *Bucketing* is the geometric median of means of two updates each; it, *centred clipping* and "
        "*weighted median* are not in the bundle (`benchmarks/other_rules.py`).\n"
    )


def selection(result: dict[str, Any]) -> str:
    """What the choice of the best model loses: a row for each number of sites and partition, means over seeds."""
    columns = [key for key in result["runs"][0] if "," in key]
    rows = []
    for where in dict.fromkeys((run["sites"], run["partition"]) for run in result["runs"]):
        here = [run for run in result["runs"] if (run["sites"], run["partition"]) == where]
        rows.append([f"{where[0]} sites, {where[1]}", *(spread([100 * run[key] for run in here]) for key in columns)])
    seeds = len({run["seed"] for run in result["runs"]})
    return table(["points of test accuracy lost", *columns], rows) + (
        f"\nBelow the best of {result['rounds']} rounds, LeNet on the embedded digits, {seeds} seeds. The liar, the "
        "worst of the sites and of the rounds that it may choose, says 1.0 of that round and 0 of all others.\n"
    )


def _attacks(title: str, runs: list[dict[str, Any]]) -> str:
    rules = list(dict.fromkeys(run["rule"] for run in runs))
    rows = []
    for attack in dict.fromkeys(run["attack"] for run in runs):
        row = [attack]
        for rule in rules:
            row.append(_accuracy(runs, attack, rule))
        all_rules = [run for run in runs if run["attack"] == attack]
        others = sum(len(set(run["named"]) - {run["malicious"]}) for run in all_rules)
        found = [_found([run for run in all_rules if run["rule"] == rule]) for rule in NAMING]
        rows.append([*row, ", ".join(filter(None, found)), str(others)])
    return table([title, *(rule.replace("_", " ") for rule in rules), "named", "others"], rows)


def _where(run: dict[str, Any]) -> tuple[Any, ...]:
    return run["sites"], run["partition"], run["rounds"]


def costly(runs: list[dict[str, Any]], rule: str, most: float) -> int:
    """How many attacks cost that rule more than so many points, of what FedAvg comes to where all are honest."""

    def mean(rule: str, attack: str) -> float:
        return statistics.mean(100 * run["accuracy"] for run in runs if (run["rule"], run["attack"]) == (rule, attack))

    attacks = {run["attack"] for run in runs} - {"none"}
    return sum(mean("weighted_mean", "none") - mean(rule, attack) > most for attack in attacks)


def _accuracy(runs: list[dict[str, Any]], attack: str, rule: str) -> str:
    here = [run for run in runs if (run["attack"], run["rule"]) == (attack, rule)]
    scores = [100 * run["accuracy"] for run in here]
    shown = spread(scores) if len(scores) > 1 else "".join(f"{score:.1f}" for score in scores)
    return shown + _triggered(here)


def _found(runs: list[dict[str, Any]]) -> str:
    """In how many runs the malicious site was named."""
    attacked = [run for run in runs if run["malicious"]]
    return f"{sum(run['malicious'] in run['named'] for run in attacked)} of {len(attacked)}" if attacked else ""


def _triggered(runs: list[dict[str, Any]]) -> str:
    """How often the backdoor opens."""
    rates = [100 * run["triggered"] for run in runs if "triggered" in run]
    return f" (opens {sum(rates) / len(rates):.0f} %)" if rates else ""


def _cost(part: dict[str, Any]) -> str:
    rows = [
        [
            row["rule"],
            f"{1000 * row['seconds']:.1f} ms" if row["seconds"] < 1 else f"{row['seconds']:.2f} s",
            f"{row['ratio']:.2f}x ({row['lowest_ratio']:.2f} to {row['highest_ratio']:.2f})",
            f"{row['peak_dense_models']:.2f}",
        ]
        for row in part["rows"]
    ]
    size = part["parameters"]
    shown = f"{size / 1e6:.0f} M" if size > 1e6 else f"{size / 1e3:.0f} k"
    head = [f"{shown} parameters, {part['sites']} sites", "time (median)", "of the mean's", "peak, in dense models"]
    return table(head, rows) + (
        f"\nMedians of {part['repeats']} turns; peaks are beside the updates themselves, which any aggregator holds.\n"
    )
