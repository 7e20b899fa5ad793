# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Sections about perfedavg: how fast writers are trained, what a round costs, and what personalisation gains."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.results.tables import met, table

NAMES = {
    "fedlab": "FedLab 1.1.2, SubsetSerialTrainer and Aggregators.fedavg_aggregate",
    "bare_loop": "a bare loop: one model, batches ready",
    "sgemm": "as many operations as products of large matrices (the bound)",
    "one_at_a_time": "one writer at a time",
}
WHEN = ("initial", "personalized")
VARIANTS = {"none": "none", "fed_avg": "none, but as many more rounds of FedAvg"}


def writers_speed(result: dict[str, Any]) -> str:
    """Steps a second, ours and others'."""
    rows = []
    for where, own, title in (("cpu", "bundle", "one writer at a time, CPU"), ("gpu", "stacked", "stacked, GPU")):
        if where not in result:
            continue
        rates = result[where]["steps_per_second"]
        rows.append([f"**bundle, {title}**", f"{rates[own]:.1f}", "", "", "", ""])
        for name in (name for name in NAMES if name in rates):
            entry = result[where][f"against_{name}"]
            target = entry.get("target")
            verdict = [f"at least {target:g}x", met(entry["ratio"] >= target)] if target else ["", ""]
            turns = f"{entry['lowest_ratio']:.2f} to {entry['highest_ratio']:.2f}"
            rows.append([NAMES[name], f"{rates[name]:.1f}", f"{entry['ratio']:.2f}x", turns, *verdict])
    head = ["local training", "steps per second (median)", "ours is as fast", "turns", "target", ""]
    return table(head, rows) + "\n" + _speed_notes(result)


def _speed_notes(result: dict[str, Any]) -> str:
    settings, cpu = result["settings"], result.get("cpu", {})
    text = (
        f"{result['data']}: {settings['writers']} writers of {result['samples_per_writer']:.0f} samples on average, "
        f"E {settings['epochs']}, batch {settings['batch_size']}, lr {settings['lr']:g}: {result['steps']} steps a "
        f"turn, {result['repeats']} turns each"
    )
    text += f", {cpu['threads']} threads.\n" if cpu else ".\n"
    if "disagreement" in cpu:
        text += (
            f"FedLab's update and ours, on the same batches, differ by {cpu['disagreement']:.0e} of their norm. FedLab "
            f"spends {cpu['fedlab_aggregation_share']:.0%} of its time in the aggregator.\n"
        )
    return text


def writers_rounds(result: dict[str, Any]) -> str:
    """Time by writers per round, FLARE's part, memory."""
    arguments, targets = result["arguments"], result["targets"]
    data = {"mnist": "MNIST by writer"}.get(arguments["dataset"], arguments["dataset"])
    text = f"{data}, {arguments['sites']} sites; {arguments['runs']} job of each kind with {arguments['rounds']} "
    text += "rounds, of which the first does not count.\n"
    if "by_writers" in result:
        text += "\n" + _by_writers(result["by_writers"], targets["r_squared"])
    if "flare_share" in result:
        text += "\n" + _flare_share(result["flare_share"], targets["flare_share"])
    if "memory" in result:
        text += "\n" + _memory(result["memory"], targets["peak_mb"], targets["growth"])
    return text


def _by_writers(part: dict[str, Any], target: float) -> str:
    line, rows = part["line"], []
    for count, rounds in part["rounds"].items():
        seconds = [entry["seconds"] for entry in rounds]
        on_line = line["constant_s"] + line["slope_s"] * int(count)
        spans = f"{min(seconds):.2f} to {max(seconds):.2f}"
        rows.append([count, f"{statistics.median(seconds):.2f}", spans, f"{on_line:.2f}"])
    text = table(["writers a round, E 1", "seconds of a round (median)", "rounds", "on the line"], rows)
    fit = line["r_squared"]
    return text + (
        f"\nThe line is {line['constant_s']:.2f} s and {1000 * line['slope_s']:.0f} ms a writer: R² {fit:.4f}, target "
        f"at least {target:g}: {met(fit >= target)}. The largest deviation is {line['largest_deviation']:.1%}. A round "
        "waits for the site that drew the most samples; over single rounds, R² against these is "
        f"{part['line_by_samples']['r_squared']:.4f}.\n"
    )


def _flare_share(part: dict[str, Any], target: float) -> str:
    share = part["share"]
    spans = f"{part['lowest_share']:.1%} to {part['highest_share']:.1%}"
    name = f"{part['writers']} writers a round, E {part['epochs']}"
    row = [name, f"{part['seconds']:.2f}", f"{share:.1%}", spans, f"under {target:.0%}", met(share < target)]
    head = ["", "seconds of a round (median)", "not in the slowest site's executor", "rounds", "target", ""]
    return table(head, [row])


def _memory(part: dict[str, Any], limit: float, growth: float) -> str:
    few, many = part["rows"][:2]
    rows = []
    for row in part["rows"]:
        name = f"{row['writers']:,} writers" + (", and all that are held out scored" if row["scores"] else "")
        peaks = [f"{row['peak_mb']:.0f} MB", f"{row['above_mb']:.0f} MB"]
        rows.append([name, *peaks, f"under {limit:.0f} MB", met(row["peak_mb"] < limit)])
    name = f"{many['writers']:,} writers over {few['writers']:,}"
    rows.append([name, f"{part['growth']:.2f}x", "", f"at most {growth:g}x", met(part["growth"] <= growth)])
    head = ["peak of a site that hosts", "in all", "above an empty process", "target", ""]
    return table(head, rows) + (
        f"\n{part['samples_per_writer']} images a writer, converted before. An empty process is one that imports torch "
        f"and nvflare; its peak is {part['empty_mb']:.0f} MB.\n"
    )


def per_fed_avg(result: dict[str, Any]) -> str:
    """A row for each number of local epochs, of writers, and each variant of the meta phase."""
    cells: dict[tuple[int, int, str], list[dict[str, Any]]] = {}
    for run in result["runs"]:
        for variant, scores in run["variants"].items():
            cells.setdefault((run["epochs"], run["writers"], variant), []).append(scores)
    order = list(dict.fromkeys(variant for _, _, variant in cells))
    rows = []
    for key in sorted(cells, key=lambda key: (key[0], key[1], order.index(key[2]))):
        epochs, writers, variant = key
        seeds = cells[key]
        accuracy = [_over_seeds(scores[when]["accuracy"]["mean"] for scores in seeds) for when in WHEN]
        gain = _paired([scores["gain"] for scores in seeds])
        harmed = f"{100 * statistics.mean(scores['harmed'] for scores in seeds):.1f}"
        above = "" if variant == "none" else _paired([scores["above_no_meta"] for scores in seeds])
        rows.append(
            [str(epochs), str(writers), VARIANTS.get(variant, variant), *accuracy, gain, harmed, above, str(len(seeds))]
        )
    columns = ["initial (%)", "personalised (%)", "gain (points)", "harmed (%)", "above none (points)", "seeds"]
    return table(["E", "writers a round", "meta phase", *columns], rows) + "\n" + _per_fed_avg_notes(result)


def _over_seeds(shares: Iterable[float]) -> str:
    """Mean of accuracies in percent, and their standard deviation if there are several."""
    values = [100 * share for share in shares]
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def _paired(differences: list[dict[str, float]]) -> str:
    """Mean difference in points ± standard error over writers, both averaged over seeds; then the seeds' range."""
    means = [100 * entry["mean"] for entry in differences]
    error = 100 * statistics.mean(entry["standard_error"] for entry in differences)
    spans = f" ({min(means):+.2f} to {max(means):+.2f})" if len(means) > 1 else ""
    return f"{statistics.mean(means):+.2f} ± {error:.2f}{spans}"


def _per_fed_avg_notes(result: dict[str, Any]) -> str:
    arguments = result["arguments"]
    held_out = sorted({scores["writers"] for run in result["runs"] for scores in run["variants"].values()})
    variants = "; ".join(
        f"{name} ({', '.join(f'{key} {value:g}' for key, value in entry['args'].items())})"
        for name, entry in result["variants"].items()
    )
    settings = f" ({', '.join(arguments['set'])})" if arguments["set"] else ""
    return (
        f"{arguments['rounds']} rounds of FedAvg, then {arguments['meta_rounds']} of the meta phase; "
        f"{' or '.join(map(str, held_out))} held-out writers; {arguments['sites']} sites{settings}. Meta phases: "
        f"{variants}.\n\nAccuracy is the mean over the held-out writers; ± is the standard deviation over seeds. Gains "
        "are paired by writer: ± is the standard error over writers, averaged over seeds, and brackets hold the lowest "
        f"and the highest seed. Harmed are the writers whose accuracy fell.{_reptile(result)}{_halves(result)}\n"
    )


def _reptile(result: dict[str, Any]) -> str:
    """What the rows of Reptile do not say."""
    entry = result["variants"].get("reptile")
    if entry is None:
        return ""
    steps, rate = entry["args"]["inner_steps"], entry["args"]["inner_lr"]
    return (
        f" Reptile was run with {steps} batches of Adam at {rate:g} a round, so no weight moves by more than about "
        f"{steps * rate:.1g} a round; larger steps, such as the 10 epochs at 0.001 of FedLab's code, were not tested."
    )


def _halves(result: dict[str, Any]) -> str:
    """How held-out writers' images were divided, which decides what personalising can gain."""
    summaries = [scores for run in result["runs"] for scores in run["variants"].values()]
    shares = [scores["unseen_query_share"] for scores in summaries if "unseen_query_share" in scores]
    if not shares:
        return (
            " Measured with halves at random, not by class: query images of classes without a support image are among "
            "them, which understates the gain where classes are many."
        )
    unseen = statistics.mean(shares)
    return f" Halves are by class; {unseen:.1%} of the query images are of classes without a support image."


OTHERS = """What **others report, on other data (FEMNIST)**; not measured here, and so no row of the tables above:

| reported by | E | clients a round | initial (%) | personalised (%) |
| --- | --- | --- | --- | --- |
| FedLab, README of its perfedavg, 500 rounds of FedAvg and 100 of the meta phase | 5 | 5 | 83.2 | 89.0 |
| FedLab, likewise | 5 | 20 | 81.5 | 90.8 |
| Jiang et al. 2019, https://arxiv.org/abs/1909.12488 |  |  | 80.3 | 87.1 |
| Jiang et al. 2019, likewise |  |  | 84.7 | 90.6 |
"""
