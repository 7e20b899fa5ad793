# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Size and speed of `custom.compression` against what information theory allows, and against the usual way.

    python -m benchmarks.compression [--json FILE] [--repeats N] [--no-bert]     (about 5 minutes, 5 GB)

Size: random positions, the hardest case, in one 2-D tensor. The bound is log2(n choose k) bits for the positions and
the values as they are; nothing that works for all choices of k among n can be smaller. FLARE's own serialisation of
the two parts is measured too, on a whole model.

Speed: one process, selection and encoding together, against the textbook way: concatenate all scores, sort them all to
find the threshold, a dense mask a tensor, `torch.nonzero`, 64-bit coordinates (8 bytes a dimension and 4 a value).
Both take turns on the same arrays. Memory is the peak of what NumPy allocates, results included, in dense models.

Aggregation: the mean of ten sites' payloads, against making each dense and adding it up in float32.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvflare.app_common.decomposers import common_decomposers
from nvflare.fuel.utils import fobs

from benchmarks import machine
from custom.aggregators.sparse import mean_of_entries
from custom.aggregators.weighted import Update
from custom.checks.update import Origin
from custom.compression import topk, wire
from custom.compression.criteria import MagnitudeChange

DENSITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.38, 0.5, 0.7, 0.9)
MATRIX = (3072, 768)
SITES, SENT = 10, 0.01
TARGETS = {
    "over_bound": 1.05,
    "float32": 3.6,
    "float16": 5.5,
    "speed": 20.0,
    "memory": 1.0,
    "aggregation_speed": 5.0,
    "aggregation_memory": 1.5,
}

Arrays = dict[str, np.ndarray]


def bert(hidden: int, layers: int, vocabulary: int = 30522) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a BERT encoder's parameters, without the pooler."""
    rows = {"word": vocabulary, "position": 512, "token_type": 2}
    shapes: dict[str, tuple[int, ...]] = {f"embeddings.{name}.weight": (n, hidden) for name, n in rows.items()}
    blocks = {"attention.query": (hidden, hidden), "attention.key": (hidden, hidden)}
    blocks |= {"attention.value": (hidden, hidden), "attention.output": (hidden, hidden)}
    blocks |= {"intermediate": (4 * hidden, hidden), "output": (hidden, 4 * hidden)}
    norms = ["embeddings.norm"]
    for layer in range(layers):
        for name, shape in blocks.items():
            shapes[f"layer.{layer}.{name}.weight"] = shape
            shapes[f"layer.{layer}.{name}.bias"] = shape[:1]
        norms += [f"layer.{layer}.attention.norm", f"layer.{layer}.norm"]
    return shapes | {f"{name}.{kind}": (hidden,) for name in norms for kind in ("weight", "bias")}


def random_model(shapes: dict[str, tuple[int, ...]], scale: float, rng: np.random.Generator) -> Arrays:
    """Normally distributed float32 arrays."""
    return {name: rng.standard_normal(shape, dtype=np.float32) * np.float32(scale) for name, shape in shapes.items()}


def bound_bits(n: int, k: int) -> float:
    """log2 of n choose k."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def sizes(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Bytes by density and value type."""
    update = {"w": rng.standard_normal(MATRIX, dtype=np.float32)}
    n = update["w"].size
    rows = []
    for density in DENSITIES:
        k = round(density * n)
        indices = {"w": np.sort(rng.choice(n, k, replace=False).astype(np.int32))}
        for value_type in wire.VALUE_TYPES:
            payload = wire.encode(update, indices, value_type)
            width = np.dtype(value_type).itemsize
            ours = wire.nbytes(payload)
            rows.append(
                {
                    "density": density,
                    "values": value_type,
                    "bytes_an_entry": ours / k,
                    "over_bound": ours / (bound_bits(n, k) / 8 + width * k),
                    "fewer_than_coordinates": (8 * len(MATRIX) + 4) * k / ours,
                    "of_dense": ours / (n * width),
                }
            )
    return rows


def serialised(model: Arrays, start: Arrays, keep_fraction: float) -> dict[str, float]:
    """What FLARE makes of a payload, beside the coordinates' bytes without any framing."""
    common_decomposers.register()
    indices = topk.select(model, start, MagnitudeChange(), keep_fraction)
    coordinates = sum((8 * model[name].ndim + 4) * kept.size for name, kept in indices.items())
    result = {"keep_fraction": keep_fraction}
    for value_type in wire.VALUE_TYPES:
        payload = wire.encode(model, indices, value_type)
        result[value_type] = coordinates / len(fobs.dumps([payload.values, payload.positions]))
    return result


def ours(update: Arrays, start: Arrays, keep_fraction: float) -> wire.Payload:
    """Selection over the whole model, and encoding."""
    return wire.encode(update, topk.select(update, start, MagnitudeChange(), keep_fraction))


def textbook(update: Arrays, start: Arrays, keep_fraction: float) -> dict[str, Any]:
    """A full sort, masks, and coordinates."""
    tensors = {name: torch.from_numpy(value) for name, value in update.items()}
    scores = torch.cat([tensor.abs().flatten() for tensor in tensors.values()])
    ranked, _ = torch.sort(scores, descending=True)
    threshold = ranked[max(1, round(keep_fraction * scores.numel())) - 1]
    sent = {}
    for name, tensor in tensors.items():
        mask = tensor.abs() >= threshold
        sent[name] = (torch.nonzero(mask), tensor[mask])
    return sent


def seconds(work: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_bytes(work: Callable[[], Any]) -> int:
    """What Python and NumPy allocate at most at a time, above what is there before."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def speed(update: Arrays, start: Arrays, keep_fraction: float, repeats: int) -> dict[str, Any]:
    """Medians over turns of both; one turn of ours is for warming up."""
    n = sum(value.size for value in update.values())
    payload = ours(update, start, keep_fraction)
    turns = [
        (seconds(lambda: ours(update, start, keep_fraction)), seconds(lambda: textbook(update, start, keep_fraction)))
        for _ in range(repeats)
    ]
    return {
        "parameters": n,
        "keep_fraction": keep_fraction,
        "seconds": statistics.median(our for our, _ in turns),
        "textbook_seconds": statistics.median(their for _, their in turns),
        "decode_seconds": seconds(lambda: wire.decode(*payload, start, Origin("benchmark"))),
        "ratio": statistics.median(their / our for our, their in turns),
        "lowest_ratio": min(their / our for our, their in turns),
        "highest_ratio": max(their / our for our, their in turns),
        "peak_dense_models": peak_bytes(lambda: ours(update, start, keep_fraction)) / (4 * n),
    }


def speeds(rng: np.random.Generator, repeats: int, with_bert: bool) -> list[dict[str, Any]]:
    """All models and fractions."""
    rows = []
    models = [(bert(384, 6), (0.001, 0.01, 0.1, 0.4), repeats)]
    if with_bert:
        models.append((bert(768, 12), (0.01, 0.1, 0.4), 1))
    for shapes, fractions, turns in models:
        update, start = random_model(shapes, 1e-3, rng), random_model(shapes, 0.02, rng)
        rows += [speed(update, start, fraction, turns) for fraction in fractions]
    return rows


def updates(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, Update]:
    """One in a hundred entries of every tensor from each site."""
    result = {}
    for number in range(SITES):
        kept, values = {}, {}
        for name, shape in shapes.items():
            size = math.prod(shape)
            kept[name] = np.unique(rng.integers(0, size, max(1, round(SENT * size)), dtype=np.int32))
            values[name] = np.zeros(shape, np.float32)
            values[name].flat[kept[name]] = rng.standard_normal(kept[name].size, dtype=np.float32)
        payload = wire.encode(values, kept)
        result[f"site-{number}"] = Update(1.0 + number, payload.values, {}, payload.positions)
    return result


def densify_and_add(contributions: dict[str, Update], model: Arrays) -> Arrays:
    """The usual way; a site is unpacked, made dense and added up before the next one."""
    weight = sum(update.weight for update in contributions.values())
    total = {name: np.zeros_like(value) for name, value in model.items()}
    for site, update in contributions.items():
        entries = wire.decode(update.diff, update.positions, model, Origin(site))
        for name, value in total.items():
            dense = np.zeros_like(value)
            if name in entries:
                dense.flat[entries[name].indices] = entries[name].values
            value += dense * np.float32(update.weight / weight)
    return total


def aggregation(rng: np.random.Generator, repeats: int) -> dict[str, Any]:
    """Both ways on the same payloads, in turns."""
    shapes = bert(768, 12)
    contributions, model = updates(shapes, rng), {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    n = sum(value.size for value in model.values())
    turns = [
        (
            seconds(lambda: mean_of_entries(contributions, model, "zero_update")),
            seconds(lambda: densify_and_add(contributions, model)),
        )
        for _ in range(repeats)
    ]
    return {
        "parameters": n,
        "sites": SITES,
        "sent": SENT,
        "seconds": statistics.median(our for our, _ in turns),
        "dense_seconds": statistics.median(their for _, their in turns),
        "ratio": statistics.median(their / our for our, their in turns),
        "lowest_ratio": min(their / our for our, their in turns),
        "highest_ratio": max(their / our for our, their in turns),
        "peak_dense_models": peak_bytes(lambda: mean_of_entries(contributions, model, "zero_update")) / (4 * n),
    }


def show(result: dict[str, Any]) -> None:
    """Tables."""
    print(f"one tensor {MATRIX}   density  values   bytes/entry  x bound  x fewer than coordinates  of dense")
    for row in result["sizes"]:
        print(
            f"{row['density']:32g}  {row['values']}  {row['bytes_an_entry']:10.3f}  {row['over_bound']:8.4f}  "
            f"{row['fewer_than_coordinates']:23.2f}  {row['of_dense']:9.4f}"
        )
    for row in result["serialised"]:
        print(
            f"as FLARE serialises it, {row['keep_fraction']:g}: {row['float32']:.2f}x fewer, "
            f"{row['float16']:.2f}x with float16"
        )
    for row in result["speeds"]:
        print(
            f"{row['parameters']:11,} parameters, {row['keep_fraction']:5g}: {row['seconds'] * 1e3:6.0f} ms, textbook "
            f"{row['textbook_seconds'] * 1e3:6.0f} ms: {row['ratio']:.1f}x ({row['lowest_ratio']:.1f}-"
            f"{row['highest_ratio']:.1f}); decoding {row['decode_seconds'] * 1e3:.0f} ms; peak "
            f"{row['peak_dense_models']:.2f} dense models"
        )
    if row := result.get("aggregation"):
        print(
            f"{row['parameters']:11,} parameters, {row['sites']} sites, {row['sent']:g}: mean {row['seconds']:.2f} s, "
            f"made dense {row['dense_seconds']:.2f} s: {row['ratio']:.1f}x ({row['lowest_ratio']:.1f}-"
            f"{row['highest_ratio']:.1f}); peak {row['peak_dense_models']:.2f} dense models"
        )


def main() -> None:
    """Prints sizes, ratios and peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--no-bert", action="store_true", help="leave out the model of 108 M parameters")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    shapes = bert(384, 6)
    update, start = random_model(shapes, 1e-3, rng), random_model(shapes, 0.02, rng)
    result = {
        "machine": machine.describe() | {"threads": torch.get_num_threads(), "numpy": np.__version__},
        "targets": TARGETS,
        "sizes": sizes(rng),
        "serialised": [serialised(update, start, fraction) for fraction in (0.001, 0.01, 0.1)],
    }
    del update, start
    result["speeds"] = speeds(rng, args.repeats, not args.no_bert)
    if not args.no_bert:
        result["aggregation"] = aggregation(rng, args.repeats)
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
