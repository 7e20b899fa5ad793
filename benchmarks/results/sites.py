# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Sections about jobs over sites: hello-pt, fl-plus-ft and mnist."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.results.tables import error_of_difference, error_of_mean, judged, met, spread, table


def data_loading(result: dict[str, Any]) -> str:
    """Images a second, ours and torchvision's."""
    names = {
        "loading": "loading alone",
        "training": "training, loading included",
        "training_if_loading_were_free": "training, if loading took no time (the bound)",
    }
    rows = []
    for name, title in names.items():
        entry = result[name]
        ours, theirs = entry["bundle_images_per_second"], entry["torchvision_images_per_second"]
        spans = f"{entry['lowest_ratio']:.1f} to {entry['highest_ratio']:.1f}"
        target = entry.get("target")
        verdict = [f"at least {target:g}x", met(entry["ratio"] >= target)] if target else ["", ""]
        rows.append([title, f"{ours:,.0f}", f"{theirs:,.0f}", f"{entry['ratio']:.2f}x", spans, *verdict])
    head = ["images per second (medians)", "bundle", "torchvision Dataset + DataLoader", "ratio", "runs", "target", ""]
    return table(head, rows)


def framework_time(result: dict[str, Any]) -> str:
    """Ratios of seconds."""
    rows = [
        [
            phase,
            f"{entry['bundle_s']:.2f} s",
            f"{entry['stock_s']:.2f} s",
            f"{entry['ratio']:.2f}x",
            f"at most {entry['target']}x",
            met(entry["ratio"] <= entry["target"]),
        ]
        for phase, entry in result["ratios"].items()
    ]
    head = ["framework time (medians)", "bundle", "FLARE's defaults", "ratio", "target", ""]
    return table(head, rows)


def client_memory(result: dict[str, Any]) -> str:
    """Megabytes above an empty process."""
    target = result["target_mb"]
    rows = [
        [site, f"{mb:.0f} MB", f"at most {target:.0f} MB", met(mb <= target)] for site, mb in result["above_mb"].items()
    ]
    return table(["peak above an empty process", "", "target", ""], rows)


def federated_vs_central(result: dict[str, Any]) -> str:
    """Accuracy of both."""
    rows = []
    for name, runs in result["runs"].items():
        accuracy = [100 * run["test_accuracy"] for run in runs]
        minutes = statistics.median(run["seconds"] for run in runs) / 60
        rows.append([name, spread(accuracy, 2), str(len(runs)), f"{minutes:.1f} min"])
    gap, target = result["gap_points"], result["target_points"]
    text = table(["training", "test accuracy (%)", "seeds", "time a seed"], rows)
    settings = ", ".join(f"{key} {value}" for key, value in result["settings"].items())
    text += f"\n{result['rounds']} rounds or epochs; {settings}.\n"
    where = "below" if gap > 0 else "above"
    scores = {name: [100 * run["test_accuracy"] for run in runs] for name, runs in result["runs"].items()}
    error = error_of_difference(scores["central"], scores["federated"])
    verdict = f"target at most {target} below: {judged(gap, target, error, at_most=True)}"
    return text + f"\nFederated is {abs(gap):.2f} points {where} central; {verdict}.\n"


def mnist_accuracy(result: dict[str, Any]) -> str:
    """A row."""
    scores = [100 * run["test_accuracy"] for run in result["runs"]]
    target = 100 * result["target"]
    row = [str(result["sites"]), f"{result['runs'][0]['rounds']:g}", spread(scores, 2), str(len(scores))]
    row += [f"at least {target:g}", judged(statistics.mean(scores), target, error_of_mean(scores))]
    return table(["sites", "rounds", "test accuracy (%)", "seeds", "target", ""], [row])


def personalization(result: dict[str, Any]) -> str:
    """One row an alpha, then the targets."""
    kinds = {
        "local_only": "local only",
        "global": "global",
        "personal": "personal",
        "personal_elsewhere": "personal, elsewhere",
    }
    rows, verdicts = [], []
    for alpha, runs in result["runs"].items():
        means = {kind: [run[kind] for run in runs] for kind in kinds}
        worst = statistics.mean(run["worst_personal"] for run in runs)
        sites = sum(run["sites"] for run in runs)
        harmed = sum(run["harmed_on_test"] for run in runs)
        on_validation = sum(run["harmed_on_validation"] for run in runs)
        rows.append([alpha, *(spread(values) for values in means.values()), f"{worst:.1f}", f"{harmed} of {sites}"])
        above_global, above_local = result["targets"].get(alpha, (None, None))
        for other, target in (("global", above_global), ("local_only", above_local)):
            if target is not None:
                gain = statistics.mean(means["personal"]) - statistics.mean(means[other])
                verdicts.append(
                    [
                        f"alpha {alpha}: personal above {kinds[other]}",
                        f"{gain:.1f} points",
                        f"{target}",
                        judged(gain, target, error_of_difference(means["personal"], means[other])),
                    ]
                )
        verdicts.append(
            [f"alpha {alpha}: sites harmed on validation", str(on_validation), "0", met(on_validation == 0)]
        )
        verdicts.append(
            [
                f"alpha {alpha}: sites harmed by more than a point on test",
                f"{harmed} of {sites}",
                "5 %",
                met(harmed <= 0.05 * sites),
            ]
        )
    cost = result["epoch_cost"]
    verdicts.append(
        [
            "an epoch of fine-tuning over one in a round",
            f"{cost['ratio']:.2f}x",
            f"{cost['target']}x",
            met(cost["ratio"] <= cost["target"]),
        ]
    )
    arguments = result["arguments"]
    head = ["alpha", *(f"{name} (%)" for name in kinds.values()), "worst site, personal (%)", "sites harmed on test"]
    text = f"{arguments['sites']} sites, {arguments['rounds']} rounds, {arguments['seeds']} seeds"
    text += f" ({', '.join(arguments['set'])})" if arguments["set"] else ""
    text += ". Test accuracy, mean over sites weighted by test samples, ± over seeds.\n\n"
    return text + table(head, rows) + "\n" + table(["", "measured", "target", ""], verdicts)
