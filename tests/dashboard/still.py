# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m tests.dashboard.still`: the dashboard, where no time goes by between attempts to log in."""

from __future__ import annotations

import sys
from functools import partial

from dashboard import __main__ as command
from dashboard import app
from dashboard.logins import Gate

if __name__ == "__main__":
    app.Gate = partial(Gate, clock=lambda: 1000.0)  # type: ignore[assignment,misc]
    sys.exit(command.main())
