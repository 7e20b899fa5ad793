# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Names of jobs, apps and sites that come from elsewhere and become a file or folder here.

FLARE 2.9.0 takes a submitted job whose name is `/etc` or `../..`: whoever makes a path of a name checks it first.
"""

from __future__ import annotations

import re

from custom.errors import BundleError

PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # nvflare.fuel.utils.validation_utils.JOB_NAME_PATTERN
LONGEST = 100  # a file system has 255, and more is put before and behind
RESERVED = frozenset({"meta.json"})  # a file beside the folders of apps


def is_name(name: object) -> bool:
    """Is it one part of a path that stays in its folder, and that shells, terminals and FLARE take for a word?"""
    return isinstance(name, str) and len(name) <= LONGEST and bool(PATTERN.fullmatch(name)) and name not in RESERVED


def check_name(name: object, where: str) -> str:
    """The name.

    Raises:
        BundleError: it is none; `where` says whose.
    """
    if not isinstance(name, str) or not is_name(name):
        raise BundleError(
            code="job-name",
            key=where,
            expected=f"up to {LONGEST} letters, digits, '.', '_' and '-', the first of them a letter or digit",
            got=f"{name!r:.{LONGEST}}" if isinstance(name, str) else type(name).__name__,
        )
    return name
