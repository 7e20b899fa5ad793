# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Steps per second of a site's training, writer by writer, against FedLab 1.1.2 and against a loop without writers.

    pip install --no-deps --target workspace/peers -r requirements-bench.txt
    FLARE_DATA_ROOT=... python -m benchmarks.writers_speed --fedlab workspace/peers [--json FILE]   (about 5 minutes)

A turn is a site's part of one round of FedAvg: from the weights it receives to the mean over its writers. FedLab's is
that of its `SubsetSerialTrainer` (weights deserialised, a DataLoader, SGD, weights serialised) and its
`Aggregators.fedavg_aggregate`, with the same model on the same images, which it has in memory as normalised float32;
ours reads and normalises them. The bare loop has all batches ready and one model. They take turns, and a ratio is the
median of the ratios of the turns, so a busy machine slows all. Before that, both train on the same batches and must
come to the same weights. On a GPU, a stacked cohort is compared with one writer at a time.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from custom.data.writer_data import WriterData
from custom.data.writers import WriterPool, Writers
from custom.learning.cohort import Work
from custom.learning.device import place
from custom.learning.fed_avg import FedAvg
from custom.learning.one_copy import take
from custom.learning.train_writers import train_writers
from custom.learning.weights import get_weights, set_weights
from custom.models.emnist_cnn import EmnistCnn

BATCH_SIZE, LR = 20, 0.02
TARGETS = {"fedlab": 1.1, "bare_loop": 0.9, "one_at_a_time": 5.0}  # ours is to be so many times as fast, at least
CLOSE = 1e-4  # norm of the difference of two updates over that of one; FedLab's mean takes float32 weights
CPU = torch.device("cpu")

Turn = Callable[[], None]


@dataclass(frozen=True)
class Share:
    """What one turn trains on: some writers, and how often."""

    pool: WriterPool
    places: list[int]
    epochs: int

    def sizes(self) -> list[int]:
        """Samples of each writer."""
        return [self.pool.num_samples(place) for place in self.places]

    def steps(self) -> int:
        """Batches of a turn."""
        return self.epochs * sum(-(-size // BATCH_SIZE) for size in self.sizes())


def choose_writers(count: int, epochs: int) -> Share:
    """Writers of MNIST where it is at hand, or else random images."""
    if "FLARE_DATA_ROOT" in os.environ:
        pool = WriterData("mnist", on_missing="error").site("benchmark", ["benchmark"], seed=0).training
    else:
        generator, size = np.random.default_rng(0), 110
        images = generator.integers(0, 256, (count * size, 28, 28, 1), dtype=np.uint8)
        offsets = np.arange(count + 1) * size
        writers = Writers("random images", False, 10, images, generator.integers(0, 10, count * size), offsets)
        pool = WriterPool(writers, np.arange(count), seed=0)
    chosen = np.random.default_rng(0).choice(len(pool), count, replace=False)
    return Share(pool, chosen.tolist(), epochs)


def ours(share: Share, device: torch.device = CPU, *, stacked: bool = False) -> Turn:
    """As `custom.executors.meta_trainer` does it, from NumPy to NumPy."""
    model = place(EmnistCnn(), device)
    received, algorithm = get_weights(model), FedAvg(share.epochs, LR, BATCH_SIZE)

    def works() -> Iterator[Work]:
        for writer in share.places:
            images, labels = share.pool.load(writer, device)
            seed = share.pool.random_seed(writer, 0)
            generator = torch.Generator().manual_seed(seed)
            yield Work(images, labels, algorithm.draw(torch.arange(len(labels)), generator), seed)

    def turn() -> None:
        set_weights(model, received)
        update = train_writers(model, algorithm, works(), stacked=stacked)
        if update.dropped:
            sys.exit(f"{update.dropped} updates were not finite")
        _ = [tensor.cpu().numpy() for tensor in update.diff]

    return turn


def bare_loop(share: Share) -> Turn:
    """The same number of steps of the same size on one model."""
    model = place(EmnistCnn(), CPU).train()
    received = get_weights(model)
    optimizer = torch.optim.SGD(model.parameters(), LR, fused=True)
    batches = []
    for writer in share.places:
        images, labels = share.pool.load(writer, CPU)
        rows = torch.arange(len(labels)).split(BATCH_SIZE)
        batches += [(take(images, row), labels[row]) for row in rows]

    def turn() -> None:
        set_weights(model, received)
        for _ in range(share.epochs):
            for images, labels in batches:
                optimizer.zero_grad(set_to_none=True)
                functional.cross_entropy(model(images), labels).backward()
                optimizer.step()

    return turn


class FedLab:
    """A turn of FedLab's serial trainer and its aggregator."""

    def __init__(self, share: Share, model: nn.Module) -> None:
        from fedlab.core.client.scale.trainer import SubsetSerialTrainer
        from fedlab.utils import Aggregators, Logger

        logging.getLogger("fedlab").setLevel(logging.WARNING)  # it prints a line a client
        loaded = [share.pool.load(writer, CPU) for writer in share.places]
        images, labels = (torch.cat(parts) for parts in zip(*loaded, strict=True))
        data = TensorDataset(images.to(next(model.parameters()).dtype), labels)
        self.sizes = share.sizes()
        ends = np.cumsum(self.sizes).tolist()
        self.rows = [list(range(end - size, end)) for end, size in zip(ends, self.sizes, strict=True)]
        settings = {"batch_size": BATCH_SIZE, "epochs": share.epochs, "lr": LR}
        self.trainer = SubsetSerialTrainer(model, data, self.rows, logger=Logger("fedlab"), cuda=False, args=settings)
        self.aggregate = Aggregators.fedavg_aggregate
        self.received = self.trainer.model_parameters
        self.mean = self.received
        self.aggregation_s: list[float] = []

    def __call__(self) -> None:
        """One turn."""
        models = self.trainer.train(self.received, range(len(self.rows)))
        started = time.perf_counter()
        self.mean = self.aggregate(models, self.sizes)
        self.aggregation_s.append(time.perf_counter() - started)


def disagreement(share: Share) -> float:
    """Norm of the difference between FedLab's update and ours, over that of FedLab's.

    On two writers, without dropout, and in float64, since training amplifies how float32 is rounded in each layout.
    """
    share = Share(share.pool, share.places[:2], share.epochs)
    model = EmnistCnn(dropout=0.0).double()
    theirs = FedLab(share, copy.deepcopy(model))
    theirs()
    works = []
    for writer, shuffled in zip(share.places, theirs.rows, strict=True):
        images, labels = share.pool.load(writer, CPU)
        rows = torch.tensor(shuffled) - min(shuffled)  # FedLab has shuffled them, once for all epochs
        works.append(Work(images.double(), labels, [*rows.split(BATCH_SIZE)] * share.epochs, seed=0))
    update = train_writers(place(model, CPU), FedAvg(share.epochs, LR, BATCH_SIZE), works, stacked=False)
    our_diff = torch.cat([tensor.reshape(-1) for tensor in update.diff])
    their_diff = theirs.mean - theirs.received
    return float((our_diff - their_diff).norm() / their_diff.norm())


def matrix_products(share: Share) -> Turn:
    """As many floating-point operations as the steps of a turn have, by torch's own product of large matrices."""
    batch = torch.zeros(BATCH_SIZE, 1, 28, 28), torch.zeros(BATCH_SIZE, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(EmnistCnn()(batch[0]), batch[1]).backward()
    per_sample = counter.get_total_flops() / BATCH_SIZE
    size = 2048
    left, right = torch.rand(size, size), torch.rand(size, size)
    products = round(per_sample * share.epochs * sum(share.sizes()) / (2 * size**3))

    def turn() -> None:
        for _ in range(products):
            torch.mm(left, right)

    return turn


def measure(turns: Mapping[str, Turn], repeats: int) -> dict[str, list[float]]:
    """Seconds of each turn; the first, for warming up, does not count. The order turns round every time."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for repeat in range(repeats + 1):
        for name in sorted(turns, reverse=bool(repeat % 2)):
            started = time.perf_counter()
            turns[name]()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def compare(first: str, seconds: Mapping[str, list[float]], steps: int) -> dict[str, Any]:
    """Median steps per second, and how many times as fast `first` is as each of the others."""
    result: dict[str, Any] = {"steps_per_second": {n: steps / statistics.median(s) for n, s in seconds.items()}}
    for name in seconds.keys() - {first}:
        ratios = [other / own for other, own in zip(seconds[name], seconds[first], strict=True)]
        facts = {"ratio": statistics.median(ratios), "lowest_ratio": min(ratios), "highest_ratio": max(ratios)}
        result[f"against_{name}"] = facts | ({"target": TARGETS[name]} if name in TARGETS else {})
    return result


def on_cpu(share: Share, args: argparse.Namespace) -> dict[str, Any]:
    """Ours against FedLab, the bare loop and the products of matrices."""
    turns: dict[str, Turn] = {"bundle": ours(share), "bare_loop": bare_loop(share), "sgemm": matrix_products(share)}
    facts: dict[str, Any] = {"threads": torch.get_num_threads()}
    if args.fedlab:
        sys.path.append(str(args.fedlab))
        facts["disagreement"] = disagreement(share)
        print(f"FedLab's update and ours differ by {facts['disagreement']:.1e} of their norm", flush=True)
        if not facts["disagreement"] < CLOSE:
            sys.exit(f"they do not compute the same: at most {CLOSE:g} was expected")
        turns["fedlab"] = fedlab = FedLab(share, EmnistCnn())
    else:
        print("FedLab is left out: --fedlab says where it is installed")
    seconds = measure(turns, args.repeats)
    if args.fedlab:
        facts["fedlab_aggregation_share"] = sum(fedlab.aggregation_s[1:]) / sum(seconds["fedlab"])
    return facts | compare("bundle", seconds, share.steps())


def on_gpu(share: Share, repeats: int) -> dict[str, Any]:
    """The stacked cohort against one writer at a time."""
    device = torch.device("cuda")
    turns = {"stacked": ours(share, device, stacked=True), "one_at_a_time": ours(share, device)}
    return compare("stacked", measure(turns, repeats), share.steps())


def print_lines(where: str, result: dict[str, Any]) -> None:
    """Rates, then ratios."""
    rates = result["steps_per_second"]
    for name, rate in rates.items():
        line = f"{where}  {name:14}{rate:8.1f} steps/s"
        if facts := result.get(f"against_{name}"):
            runs = f"{facts['lowest_ratio']:.2f}-{facts['highest_ratio']:.2f}"
            line += f"  ours is {facts['ratio']:.2f}x as fast ({runs})"
            line += f", target at least {facts['target']:g}x" if "target" in facts else ""
        print(line, flush=True)


def main() -> None:
    """Prints rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fedlab", type=Path, help="folder that requirements-bench.txt was installed to")
    parser.add_argument("--threads", type=int, help="of each side; torch's own choice, all cores, by default")
    parser.add_argument("--writers", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side (default 7)")
    parser.add_argument("--gpu-only", action="store_true", help="leave out what runs on the CPU")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.gpu_only and not torch.cuda.is_available():
        sys.exit("--gpu-only needs a GPU")
    torch.manual_seed(0)
    share = choose_writers(args.writers, args.epochs)
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "data": share.pool.writers.name,
        "settings": {"writers": args.writers, "epochs": args.epochs, "batch_size": BATCH_SIZE, "lr": LR},
        "samples_per_writer": statistics.mean(share.sizes()),
        "steps": share.steps(),
        "repeats": args.repeats,
    }
    print(f"{result['data']}: {args.writers} writers, {result['steps']} steps a turn", flush=True)
    if not args.gpu_only:
        result["cpu"] = on_cpu(share, args)
        print_lines("CPU", result["cpu"])
    if torch.cuda.is_available():
        result["gpu"] = on_gpu(share, args.repeats)
        print_lines("GPU", result["gpu"])
    else:
        print("GPU: none here, so stacked cohorts are not measured")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
