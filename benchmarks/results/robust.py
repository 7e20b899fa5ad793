# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Section about robust aggregation: what each rule costs in time, memory and accuracy."""

from __future__ import annotations

from typing import Any

from benchmarks.results.tables import spread, table


def robust_aggregation(result: dict[str, Any]) -> str:
    """A table for each size of model, then accuracies."""
    parts = [_cost(part) for part in result["costs"]]
    if "accuracies" in result:
        parts.append(_accuracies(result))
    return "\n".join(parts)


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


def _accuracies(result: dict[str, Any]) -> str:
    settings, rows = result["settings"], {}
    columns = [(partition, hostile) for partition in ("alike", "unlike") for hostile in (False, True)]
    for entry in result["accuracies"]:
        scores = [100 * score for score in entry["test_accuracy"]]
        rows.setdefault(entry["rule"], {})[entry["partition"], entry["hostile"]] = spread(scores)
    head = ["test accuracy (%)"]
    head += [f"{partition}, {'one hostile' if hostile else 'all behave'}" for partition, hostile in columns]
    seeds = len(result["accuracies"][0]["test_accuracy"])
    return table(head, [[rule, *(cells[column] for column in columns)] for rule, cells in rows.items()]) + (
        f"\nLeNet on the embedded digits at {settings['sites']} sites, {settings['rounds']} rounds, {seeds} seeds; the "
        f"hostile one sends {settings['factor']:g} times its update. Alike is IID, unlike Dirichlet with alpha 0.3.\n"
    )
