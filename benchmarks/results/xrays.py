# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The table of benchmarks/chest_xray.py."""

from __future__ import annotations

from typing import Any

from benchmarks.results.tables import error_of_difference, judged, spread, table

METRICS = ("accuracy", "auc", "sensitivity", "specificity")
DATASETS = {"chest_xray": "JPEGs of the Kermany study", "pneumoniamnist": "PneumoniaMNIST"}


def chest_xray(result: dict[str, Any]) -> str:
    """Test scores of both ways of training on both data sets, and the gap in AUC."""
    rows, verdicts = [], []
    for name, found in result["datasets"].items():
        for side, runs in found["runs"].items():
            scores = [spread([100 * run[metric] for run in runs]) for metric in METRICS]
            within = [100 * run["auc_within_sites"] for run in runs if "auc_within_sites" in run]
            rounds = [str(found["rounds"]), str(len(runs))]
            rows.append([DATASETS[name], side, *scores, spread(within) if within else "", *rounds])
        gap, target = found["gap_points"], result["target_points"]
        apart = f"{abs(gap):.2f} points of AUC {'below' if gap > 0 else 'above'} central"
        auc = {side: [100 * run["auc"] for run in runs] for side, runs in found["runs"].items()}
        error = error_of_difference(auc["central"], auc["federated"])
        goal = f"target at most {target:g} below: {judged(gap, target, error, at_most=True)}"
        verdicts.append(f"{DATASETS[name]}: federated is {apart}; {goal}.")
    head = ["data set", "training", "accuracy (%)", "AUC (%)", "sensitivity (%)", "specificity (%)"]
    head += ["AUC within sites (%)", "rounds or epochs", "seeds"]
    settings = ", ".join(f"{key} {value}" for key, value in sorted(result["settings"].items()))
    about = f"{result['sites']} sites, patients never on both sides of a split; small CNN, {settings}."
    return "\n".join([table(head, rows), f"{about} Scores on all test images.\n", *(f"{line}\n" for line in verdicts)])
