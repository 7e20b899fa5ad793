# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Images per second of `custom.data` against torchvision's Dataset and DataLoader, on CIFAR-10, on the CPU.

    FLARE_DATA_ROOT=... python -m benchmarks.data_loading [--json FILE]     (about 1 minute)

Both sides deliver the same shuffled, normalised float32 batches of 64 in one process; ours, as in a job, with channels
last, and the model laid out alike. They take turns, and a ratio is the median of the ratios of the turns, so a busy
machine slows both. How much faster training can become is bounded by the time that the network itself takes, which is
measured too, with all batches ready in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Normalize, ToTensor

from benchmarks import machine
from custom.data.cifar10 import FOLDER, Cifar10
from custom.data.image_data import ImageData
from custom.learning.device import place
from custom.models.lenet import LeNet

BATCH_SIZE = 64
OUR_BATCHES, THEIR_BATCHES = 450, 150  # a turn

Batches = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
Work = Callable[[Batches, int], None]


def our_batches() -> Batches:
    """Those of a site that holds all of CIFAR-10."""
    data = ImageData(on_missing="error", partition="none").site("benchmark", [], seed=0)
    generator = torch.Generator().manual_seed(0)
    return lambda: data.batches("train", BATCH_SIZE, torch.device("cpu"), generator)


def torchvision_batches(root: str) -> Batches:
    """Images decoded by PIL and transformed one by one."""
    transform = Compose([ToTensor(), Normalize(Cifar10.mean, Cifar10.std)])
    loader = DataLoader(CIFAR10(root, transform=transform), BATCH_SIZE, shuffle=True, num_workers=0)
    return lambda: loader


def load(batches: Batches, num_batches: int) -> None:
    """Loads and throws away."""
    for _ in islice(batches(), num_batches):
        pass


def train_ours(batches: Batches, num_batches: int) -> None:
    """Trains a new LeNet, laid out as in a job."""
    train(batches, num_batches, place(LeNet(num_classes=10), torch.device("cpu")))


def train(batches: Batches, num_batches: int, model: nn.Module | None = None) -> None:
    """Trains a new LeNet as it is."""
    model = model or LeNet(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for images, labels in islice(batches(), num_batches):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


def images_per_second(work: Work, batches: Batches, num_batches: int) -> float:
    """The rate of one turn."""
    start = time.perf_counter()
    work(batches, num_batches)
    return num_batches * BATCH_SIZE / (time.perf_counter() - start)


def compare(our_work: Work, ours: Batches, their_work: Work, theirs: Batches, repeats: int) -> dict[str, float]:
    """Medians of the rates and of their ratio; one turn of each is for warming up."""
    our_work(ours, 20)
    their_work(theirs, 20)
    rates = [
        (images_per_second(our_work, ours, OUR_BATCHES), images_per_second(their_work, theirs, THEIR_BATCHES))
        for _ in range(repeats)
    ]
    return {
        "bundle_images_per_second": statistics.median(our for our, _ in rates),
        "torchvision_images_per_second": statistics.median(their for _, their in rates),
        "ratio": statistics.median(our / their for our, their in rates),
        "lowest_ratio": min(our / their for our, their in rates),
        "highest_ratio": max(our / their for our, their in rates),
    }


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side (default 7)")
    args = parser.parse_args()
    root = os.environ.get("FLARE_DATA_ROOT", "")
    if not (Path(root) / FOLDER).is_dir():
        sys.exit(f"set FLARE_DATA_ROOT to the folder that holds {FOLDER}")
    torch.manual_seed(0)
    ours, theirs = our_batches(), torchvision_batches(root)
    in_memory = list(islice(ours(), OUR_BATCHES))  # float32, ready: no loader can be faster
    result: dict[str, Any] = {
        "machine": machine.describe() | {"threads": torch.get_num_threads()},
        "batch_size": BATCH_SIZE,
        "repeats": args.repeats,
        "loading": compare(load, ours, load, theirs, args.repeats) | {"target": 20.0},
        "training": compare(train_ours, ours, train, theirs, args.repeats) | {"target": 2.2},
        "training_if_loading_were_free": compare(train_ours, lambda: in_memory, train, theirs, args.repeats),
    }
    for name in ("loading", "training", "training_if_loading_were_free"):
        numbers = result[name]
        print(
            f"{name:30}{numbers['bundle_images_per_second']:10,.0f} images/s, torchvision "
            f"{numbers['torchvision_images_per_second']:7,.0f}: {numbers['ratio']:.2f}x "
            f"({numbers['lowest_ratio']:.2f}-{numbers['highest_ratio']:.2f})"
            + (f", target {numbers['target']:g}x" if "target" in numbers else "")
        )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
