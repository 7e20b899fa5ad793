# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Hello-pt's training in Flower's simulation engine, for benchmarks/peers.py: prints the seconds of each round as JSON.

PYTHON_WITH_FLOWER -m benchmarks.flower_digits --sites 10 --rounds 20 [--cpus 1] [--threads 1]
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import Any

import torch
from flwr.client import ClientApp, NumPyClient
from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

from custom.data.image_data import ImageData
from custom.learning.evaluate import evaluate_split
from custom.learning.train import LocalBudget, train
from custom.learning.weights import get_weights, set_weights
from custom.models.lenet import LeNet

CPU = torch.device("cpu")
LR, MOMENTUM = 0.05, 0.9  # hello-pt's


class Site(NumPyClient):  # type: ignore[misc]
    """Scores the model it receives and trains it for an epoch, as hello-pt's sites do."""

    def __init__(self, number: int, sites: int) -> None:
        roster = tuple(f"site-{index}" for index in range(1, sites + 1))
        self.data, self.model = ImageData(dataset="digits").site(roster[number], roster, 0), LeNet()
        self.names = list(get_weights(self.model))

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, float]]:
        set_weights(self.model, dict(zip(self.names, parameters, strict=True)))
        scores = evaluate_split(self.model, self.data, "validation", CPU)
        batches = LocalBudget().batches(self.data, CPU, torch.Generator().manual_seed(int(config["round"])))
        train(self.model, batches, torch.optim.SGD(self.model.parameters(), LR, MOMENTUM))
        return list(get_weights(self.model).values()), self.data.size("train"), scores


class Timed(FedAvg):  # type: ignore[misc]
    """FedAvg that notes when each round was aggregated, and the sites' mean accuracy."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.times: list[float] = []
        self.accuracy: list[float] = []

    def aggregate_fit(self, number: int, results: list[Any], failures: list[Any]) -> Any:
        if failures:
            raise RuntimeError(f"a site failed in round {number}: {failures[0]}")
        scores = [result.metrics["val_accuracy"] for _, result in results]
        self.times.append(time.monotonic())
        self.accuracy.append(sum(scores) / len(scores))
        return super().aggregate_fit(number, results, failures)


def main() -> None:
    """Prints one line of JSON, the last one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--cpus", type=int, help="of a site; Flower's default without")
    parser.add_argument("--threads", type=int, help="of torch; its default without")
    args = parser.parse_args()
    torch.manual_seed(0)
    first = ndarrays_to_parameters(list(get_weights(LeNet()).values()))
    strategy = Timed(
        fraction_evaluate=0.0,
        min_fit_clients=args.sites,
        min_available_clients=args.sites,
        initial_parameters=first,
        on_fit_config_fn=lambda number: {"round": number},
    )

    def site(context: Context) -> Any:
        if args.threads:
            torch.set_num_threads(args.threads)
        return Site(int(context.node_config["partition-id"]), args.sites).to_client()

    def server(context: Context) -> ServerAppComponents:
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=args.rounds))

    backend = {"client_resources": {"num_cpus": args.cpus, "num_gpus": 0.0}} if args.cpus else None
    run_simulation(ServerApp(server_fn=server), ClientApp(client_fn=site), args.sites, backend_config=backend)
    rounds = [after - before for before, after in itertools.pairwise(strategy.times)]
    print(json.dumps({"rounds_s": rounds, "val_accuracy": strategy.accuracy[-1]}))


if __name__ == "__main__":
    main()
