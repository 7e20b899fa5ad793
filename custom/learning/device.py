# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which device a site computes on."""

from __future__ import annotations

import os

import torch
from torch import nn

from custom.errors import BundleError


def choose_device(setting: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        setting: `auto` (CUDA where there is one, else the CPU) or a torch device name. The environment variable
            FLARE_DEVICE of a site overrides it, since the configuration of a job is the same at every site.

    Raises:
        BundleError: no such device here.
    """
    name = os.environ.get("FLARE_DEVICE") or setting
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BundleError(
            code="device-missing",
            key="device",
            expected="auto, cpu, or a device that this machine has",
            got=f"{name} ({str(error).splitlines()[0]})",
            remedy="set FLARE_DEVICE=cpu at this site, or device in the job",
        ) from error
    return device


def has_bfloat16(where: torch.Tensor) -> bool:
    """Does the device of this tensor multiply matrices in bfloat16 faster than in float32?"""
    return where.is_cuda or (where.device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16")))


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Moves `model` to `device`, in place, and lays out its image convolutions as channels last.

    With batches in the same layout, a step on a CPU is faster. Values and shapes stay. `Module.to(memory_format=...)`
    does the same but refuses models with three-dimensional convolutions.
    """
    model.to(device)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def share_cores(sites: int) -> None:
    """Gives each of `sites` processes on this machine its part of the cores, unless OMP_NUM_THREADS says otherwise.

    By default every process takes all cores, and their threads then wait for each other: with two sites on two cores a
    round of hello-pt on CIFAR-10 took 62 to 88 s in place of 3.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // sites))
