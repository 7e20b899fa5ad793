# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Sections about sparse exchange: its bytes, its speed, and what it costs in accuracy."""

from __future__ import annotations

import math
import statistics
from typing import Any

from benchmarks.results.tables import judged, met, spread, table

Rows = list[dict[str, Any]]
TEST_ROWS = 7600


def compression(result: dict[str, Any]) -> str:
    """Bytes against the bound and against coordinates, then speed and memory."""
    return "\n".join([_sizes(result), _speeds(result), _aggregation(result)])


def _sizes(result: dict[str, Any]) -> str:
    targets = result["targets"]
    rows = []
    for row in result["sizes"]:
        limit = targets[row["values"]]
        good = row["over_bound"] <= targets["over_bound"] and row["fewer_than_coordinates"] >= limit
        rows.append(
            [
                f"{row['density']:g}",
                row["values"],
                f"{row['bytes_an_entry']:.2f}",
                f"{row['over_bound']:.4f}x",
                f"{row['fewer_than_coordinates']:.2f}x",
                f"{100 * row['of_dense']:.1f} %",
                met(good and row["of_dense"] <= 1.001),
            ]
        )
    head = ["density", "values", "bytes an entry", "of the bound", "fewer than 64-bit coordinates", "of dense", ""]
    return table(head, rows) + (
        f"\nTargets: at most {targets['over_bound']:g}x the bound, {targets['float32']:g}x fewer bytes than "
        f"coordinates with float32 values and {targets['float16']:g}x with float16, never more than dense.\n"
    )


def _speeds(result: dict[str, Any]) -> str:
    targets = result["targets"]
    rows = []
    for row in result["speeds"]:
        small = row["parameters"] < 5e7
        verdict = row["ratio"] >= targets["speed"] if small else row["peak_dense_models"] <= targets["memory"]
        rows.append(
            [
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['keep_fraction']:g}",
                f"{row['seconds']:.2f} s",
                f"{row['textbook_seconds']:.2f} s",
                f"{row['ratio']:.1f}x ({row['lowest_ratio']:.1f} to {row['highest_ratio']:.1f})",
                f"{row['peak_dense_models']:.2f}",
                f"at least {targets['speed']:g}x" if small else f"memory at most {targets['memory']:g}",
                met(verdict),
            ]
        )
    head = ["parameters", "sent", "bundle", "full sort", "ratio", "peak, in dense models", "target", ""]
    return "Selection and encoding together:\n\n" + table(head, rows)


def _aggregation(result: dict[str, Any]) -> str:
    row, targets = result.get("aggregation"), result["targets"]
    if not row:
        return ""
    return (
        f"The mean of {row['sites']} sites' updates of {row['parameters'] / 1e6:.0f} M parameters, "
        f"{row['sent']:g} sent: "
        f"{row['seconds']:.2f} s, made dense and added up {row['dense_seconds']:.2f} s: {row['ratio']:.1f}x as fast "
        f"({row['lowest_ratio']:.1f} to {row['highest_ratio']:.1f}; target {targets['aggregation_speed']:g}x: "
        f"{met(row['ratio'] >= targets['aggregation_speed'])}). Peak memory beside the updates "
        f"{row['peak_dense_models']:.2f} dense models (target {targets['aggregation_memory']:g}: "
        f"{met(row['peak_dense_models'] <= targets['aggregation_memory'])}).\n"
    )


def sparse_accuracy(result: dict[str, Any]) -> str:
    """Accuracy and bytes by variant, a table for each beta; then the targets."""
    runs: Rows = result["runs"]
    settings = ", ".join(text.replace("=", " ") for text in result["arguments"]["set"])
    text = (
        f"{result['arguments']['sites']} sites; {settings}. Encoder: {result['arguments']['encoder']}. The model after "
        "the last round on all 7,600 test rows, where a standard error is some 0.4 points, and of a difference 0.5, "
        "before any variance over seeds: one seed cannot "
        "tell differences of less than a point apart. With error feedback unless "
        "it is said; both ways sparse but for dense. Bytes of arrays and positions: FLARE adds some 300 a tensor.\n"
    )
    for beta in sorted({run["beta"] for run in runs}, reverse=True):
        text += "\n" + _by_variant([run for run in runs if run["beta"] == beta], beta, result["targets"])
    return text


def _by_variant(runs: Rows, beta: float, targets: dict[str, Any]) -> str:
    variants = {run["variant"]: [r for r in runs if r["variant"] == run["variant"]] for run in runs}
    dense = variants["dense"]
    accuracy = {name: [100 * run["test_accuracy"] for run in rows] for name, rows in variants.items()}
    rows = []
    for name, entries in variants.items():
        up, down = (_mean(dense, way) / _mean(entries, way) for way in ("upload_bytes", "download_bytes"))
        rate = next(text.partition("=")[2] for text in entries[0]["settings"] if text.startswith("local_lr"))
        rows.append(
            [
                name,
                rate,
                spread(accuracy[name]) if len(entries) > 1 else f"{accuracy[name][0]:.1f}",
                f"{_mean(entries, 'upload_bytes') / 1e6:.1f} MB",
                f"{up:.1f}x",
                f"{down:.1f}x",
                str(len(entries)),
            ]
        )
    head = [f"keep_fraction (beta {beta:g})", "local_lr", "test accuracy (%)", "up", "fewer up", "fewer down", "seeds"]
    return table(head, rows) + "\n" + _verdicts(variants, accuracy, targets)


def _verdicts(variants: dict[str, Rows], accuracy: dict[str, list[float]], targets: dict[str, Any]) -> str:
    text = ""
    for name, target in ((targets["variant"], "float32"), (f"{targets['variant']}, float16", "float16")):
        if name in variants:
            below = statistics.mean(accuracy["dense"]) - statistics.mean(accuracy[name])
            error = _error_of_difference(accuracy["dense"], accuracy[name])
            fewer = _mean(variants["dense"], "upload_bytes") / _mean(variants[name], "upload_bytes")
            text += (
                f"{name}: {below:.1f} points below dense (target at most {targets['points']:g}: "
                f"{judged(below, targets['points'], error, at_most=True)}), {fewer:.1f}x fewer bytes up (target "
                f"{targets['fewer_bytes'][target]:g}x: {met(fewer >= targets['fewer_bytes'][target])}).\n"
            )
    return text


def _error_of_difference(first: list[float], second: list[float]) -> float:
    """Of two means of percentages on `TEST_ROWS` rows each, from the rows alone: seeds add to it."""
    shares = [statistics.mean(values) / 100 for values in (first, second)]
    return 100 * math.sqrt(sum(share * (1 - share) / TEST_ROWS / len(first) for share in shares))


def _mean(rows: Rows, key: str) -> float:
    return statistics.mean(row[key] for row in rows)
