# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Where FLARE's POC lies on this machine, as FLARE itself looks for it: `nvflare.tool.poc` without its side effects."""

from __future__ import annotations

import os
from pathlib import Path

from custom.data.folders import without_tilde
from custom.errors import BundleError

VARIABLE = "NVFLARE_POC_WORKSPACE"
DEFAULT = "/tmp/nvflare/poc"
KEYS = ("poc.workspace", "poc_workspace.path")


def poc_workspace() -> tuple[Path, str]:
    """The folder, and what says that it is that one.

    Raises:
        BundleError: FLARE's configuration cannot be read.
    """
    if set_here := os.environ.get(VARIABLE, "").strip():
        return without_tilde(set_here), VARIABLE
    config = without_tilde("~/.nvflare", f"set HOME, or {VARIABLE}") / "config.conf"
    if configured := _configured(config):
        return without_tilde(configured), str(config)
    return Path(DEFAULT), f"the default; {VARIABLE} is not set"


def _configured(config: Path) -> str:
    if not config.is_file():
        return ""
    from nvflare.utils.cli_utils import load_config  # HOCON; half a second that other commands need not wait

    try:
        content = load_config(str(config))
    except Exception as error:  # the parser's own, of a library that FLARE brings
        raise BundleError(
            "is not HOCON", code="kit-unusable", key=str(config), remedy=f"correct it, or set {VARIABLE}"
        ) from error
    return next((value.strip() for key in KEYS if (value := content.get(key, None))), "")
