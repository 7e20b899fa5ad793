# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Peak memory of a client process of hello-pt on CIFAR-10, above an empty process that imports the same libraries.

    FLARE_DATA_ROOT=... python -m benchmarks.client_memory [--json FILE]

Peaks are the kernel's own (VmHWM), so a short peak while data are loaded counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.peaks import Peaks, peak_mb
from benchmarks.simulate import export, simulate

TARGET_MB = 250.0
EMPTY = "import torch, torchvision, nvflare; print(open('/proc/self/status').read())"


def peaks_of(job: Path, workspace: Path, sites: int) -> dict[str, float]:
    """Runs an exported job; megabytes at the peak of each site's process."""
    with Peaks(workspace) as peaks:
        simulate(job, workspace, sites=sites)
    if not peaks.highest:
        sys.exit("no client process was seen; has it another name?")
    return peaks.highest


def main() -> None:
    """Prints megabytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "FLARE_DATA_ROOT" not in os.environ:
        sys.exit("set FLARE_DATA_ROOT to the folder that holds cifar-10-batches-py")
    empty = subprocess.run([sys.executable, "-c", EMPTY], capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        job = export("hello-pt", Path(folder) / "job", ["num_rounds=2", "on_missing=error"])
        peaks = peaks_of(job, Path(folder) / "run", sites=2)
    base = peak_mb(empty)
    above = {site: peak - base for site, peak in sorted(peaks.items())}
    for site, value in above.items():
        print(f"{site}: {peaks[site]:.0f} MB, {value:.0f} MB above an empty process ({base:.0f} MB)")
    print(f"target: at most {TARGET_MB:.0f} MB above")
    if args.json:
        result = {"machine": machine.describe(), "empty_mb": base, "above_mb": above, "target_mb": TARGET_MB}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
