# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A provisioned `privacy` on loopback: what the sites' own filters leave of dense and of sparse updates.

Expected values are recomputed from the models on the sites' disks, by the formulas of the filters' papers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.jobs.deployment import Deployment, provisioned
from tests.jobs.flare import export
from tests.jobs.test_sparse_exchange import config_of, edit, sparse_job
from tests.reference.topk import best

pytestmark = pytest.mark.e2e
Tensors = dict[str, NDArray[np.float32]]
WITHHELD = {"fc2.bias", "fc3.bias"}  # of LeNet, by the pattern of privacy.json
GAMMA = 0.0001  # of privacy.json
SAMPLES = 1800  # of each site
KEPT = 0.1  # of a sparse update


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with provisioned("privacy", tmp_path_factory.mktemp("privacy"), forked=True) as system:
        yield system


def run(system: Deployment, job: Path) -> tuple[Path, str]:
    """The downloaded result and the id of the job."""
    done = system.submit("admin@flare.example", job, download=True)
    ended = re.search(r"ENDED (\S+) FINISHED:COMPLETED (\S+)", done)
    assert ended, done[-3000:]
    return Path(ended[2]), ended[1]


def load(path: Path) -> Tensors:
    return {name: value.numpy() for name, value in torch.load(path, weights_only=True)["model"].items()}


def filtered(system: Deployment, job_id: str) -> dict[str, Tensors]:
    """What each site's update is after its filters: the biases gone, the smaller half 0, the largest limited.

    Shokri and Shmatikov 2015, over all tensors together. FLARE's filter divides by the samples, so gamma is a sample's.
    """
    updates = {}
    for site in system.sites:
        folder = system.folder / site / job_id
        first, last = load(folder / "first_model.pt"), load(folder / "local_model.pt")
        update = {name: (last[name] - first[name]) / SAMPLES for name in first if name not in WITHHELD}
        sizes = np.concatenate([np.abs(value).ravel() for value in update.values()])
        cutoff = np.percentile(sizes, 50)
        assert sizes.max() > GAMMA > cutoff  # both are put to the test
        updates[site] = {
            name: np.where(np.abs(value) < cutoff, 0, np.clip(value, -GAMMA, GAMMA) * SAMPLES)
            for name, value in update.items()
        }
    return updates


def sparse(update: Tensors) -> Tensors:
    """Exactly k entries, the others zero. Ties decide: grey digits in three equal channels give equal gradients."""
    kept = best({name: np.abs(value) for name, value in update.items()}, KEPT, "model")
    sent = {name: np.zeros_like(value) for name, value in update.items()}
    for name, indices in kept.items():
        sent[name].flat[indices] = update[name].flat[indices]
    return sent


def test_dense_updates_are_filtered_and_the_local_models_stay(system: Deployment, tmp_path: Path) -> None:
    result, job_id = run(
        system, export("hello-pt", tmp_path / "job", "dataset=digits", "num_rounds=1", "allow_partial=true")
    )
    start = load(system.folder / "site-1" / job_id / "first_model.pt")
    after = load(result / "workspace" / "app_server" / "FL_global_model.pt")
    updates = list(filtered(system, job_id).values())
    for name, value in start.items():
        change = 0.0 if name in WITHHELD else (updates[0][name] + updates[1][name]) / 2  # they weigh the same
        np.testing.assert_allclose(after[name], value + change, rtol=0, atol=1e-6, err_msg=name)
    zeros = np.mean([np.mean(np.concatenate([v.ravel() for v in update.values()]) == 0) for update in updates])
    assert zeros == pytest.approx(0.5, abs=0.001)

    scored = {path.name for path in (result / "workspace" / "cross_site_val" / "model_shareables").iterdir()}
    assert scored <= {"SRV_FL_global_model.pt", "SRV_best_FL_global_model.pt"}
    assert scored
    log = (system.folder / "site-1" / job_id / "log.txt").read_text()
    assert "submit_model: the trained model of site-1 stays there" in log


def test_sparse_updates_are_chosen_from_what_the_filters_left(system: Deployment, tmp_path: Path) -> None:
    job = sparse_job(tmp_path / "job")
    edit(config_of(job, "server"), lambda server: server["workflows"][1]["args"].update(num_rounds=1))
    result, job_id = run(system, job)  # without allow_partial: what a sparse update leaves out is zero
    start = load(system.folder / "site-1" / job_id / "first_model.pt")
    after = load(result / "workspace" / "app_server" / "FL_global_model.pt")
    assert all(np.array_equal(after[name], start[name]) for name in WITHHELD)
    updates = filtered(system, job_id)
    sent = [sparse(update) for update in updates.values()]
    for name in sent[0]:
        change = (sent[0][name] + sent[1][name]) / 2
        np.testing.assert_allclose(after[name], start[name] + change, rtol=0, atol=1e-6, err_msg=name)

    # What is held back for later rounds has passed the filters too: what they zeroed is never sent.
    [path] = (system.folder / "site-1" / job_id).glob("residual_*.pt")
    held = torch.load(path, weights_only=True)["residual"]
    whole = updates["site-1"]
    assert held.keys() == whole.keys()
    for name in whole:
        np.testing.assert_array_equal(held[name].numpy(), whole[name] - sent[0][name], err_msg=name)
