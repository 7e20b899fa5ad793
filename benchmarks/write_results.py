# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Writes docs/results/README.md from the JSON files beside it: python -m benchmarks.write_results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.results.dashboard import dashboard
from benchmarks.results.endurance import endurance
from benchmarks.results.robust import malicious_site, robust_aggregation, robust_rules, selection
from benchmarks.results.scaling import scaling
from benchmarks.results.sites import (
    client_memory,
    data_loading,
    federated_vs_central,
    framework_time,
    mnist_accuracy,
    personalization,
)
from benchmarks.results.sparse import compression, sparse_accuracy
from benchmarks.results.startup import peers, startup
from benchmarks.results.tables import made_on
from benchmarks.results.writers import OTHERS, per_fed_avg, writers_rounds, writers_speed
from benchmarks.results.xrays import chest_xray

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results"
HEAD = """# Results

Written by `python -m benchmarks.write_results` from the JSON files in this folder, which `make bench` and the other
scripts in `benchmarks` make. Nothing here is typed by hand but what others report, which says so.
"""

Write = Callable[[dict[str, Any]], str]

SECTIONS: dict[str, tuple[str, Write]] = {
    "data_loading": ("Data loading, LeNet on CIFAR-10, batch 64", data_loading),
    "framework_time": ("Framework time, hello-pt, 2 sites, 2 rounds", framework_time),
    "startup": ("Start and end of `bundle run`", startup),
    "peers": ("The same training in other simulators", peers),
    "client_memory": ("Memory of a client process, hello-pt on CIFAR-10", client_memory),
    "federated_vs_central": ("Federated against central, CIFAR-10, LeNet, 2 IID sites", federated_vs_central),
    "personalization": ("Personalisation by fine-tuning, CIFAR-10, LeNet", personalization),
    "personalization_resnet18": ("Personalisation by fine-tuning, CIFAR-10, ResNet-18, on a GPU", personalization),
    "mnist_accuracy": ("The job mnist as it is, 2 sites, 5 rounds", mnist_accuracy),
    "chest_xray": ("Federated against central, chest X-rays", chest_xray),
    "writers_speed": ("Local training of many writers, perfedavg's CNN", writers_speed),
    "writers_speed_gpu": ("Local training of many writers, perfedavg's CNN, on a GPU", writers_speed),
    "writers_rounds": ("Rounds over many writers, perfedavg under FLARE", writers_rounds),
    "malicious_site": ("One malicious site", malicious_site),
    "robust_rules": ("One malicious site of five, other robust rules", robust_rules),
    "selection": ("The choice of the best model, with a site that lies", selection),
    "robust_aggregation": ("The price of robust aggregation", robust_aggregation),
    "endurance": ("Endurance, four sites in a provisioned system", endurance),
    "scaling": ("Sites and parameters under FLARE", scaling),
    "dashboard": ("The dashboard on a POC with two sites", dashboard),
    "compression": ("Bytes and speed of sparse exchange", compression),
    "sparse_accuracy": ("Accuracy against bytes sent, sparse-bert on AG News under FLARE", sparse_accuracy),
}
PER_FED_AVG = {
    "mnist": "MNIST by writer",
    "femnist": "FEMNIST",
    "unipen62": "UNIPEN, 62 classes",
    "cifar10": "CIFAR-10 dealt in label shards",
}


def sections() -> Iterator[str]:
    """One for each JSON file that is there."""
    for name, (title, write) in SECTIONS.items():
        path = FOLDER / f"{name}.json"
        if path.is_file():
            yield section(title, write, json.loads(path.read_text()))
    paths = sorted(FOLDER.glob("per_fed_avg_*.json"))
    for path in paths:
        result = json.loads(path.read_text())
        yield section(
            f"Personalisation of held-out writers, {PER_FED_AVG[result['arguments']['dataset']]}", per_fed_avg, result
        )
    if paths:
        yield f"### What others report\n\n{OTHERS}"


def section(title: str, write: Write, result: dict[str, Any]) -> str:
    """Title, tables, and what they were made on."""
    return f"## {title}\n\n{write(result)}\n{made_on(result)}"


def main() -> None:
    """Writes the page and prints it."""
    text = "\n".join([HEAD, *sections()])
    (FOLDER / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
