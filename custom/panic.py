# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""How a component at the server answers wrong settings: the job ends with the sentence that says what is wrong."""

from __future__ import annotations

from typing import Protocol

from nvflare.apis.fl_context import FLContext

from custom.errors import BundleError


class Checked(Protocol):
    """A FLARE component that can look at its own settings."""

    def check(self) -> None:
        """Raises BundleError if one is out of range."""

    def system_panic(self, reason: str, fl_ctx: FLContext) -> None:
        """FLARE's way to end a job."""


def check_or_panic(component: Checked, fl_ctx: FLContext) -> None:
    """Ends the job if the settings are wrong; a constructor that raises would end a FLARE process with exit code 0."""
    try:
        component.check()
    except BundleError as error:
        component.system_panic(error.coded(), fl_ctx)
