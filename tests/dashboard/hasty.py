# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`python -m tests.dashboard.hasty`: the dashboard, but with less time and room for strangers."""

from __future__ import annotations

import sys

from dashboard import __main__ as command
from dashboard import connections

REQUEST_S = 8.0
ANSWER_S = 60.0
MOST_STRANGERS = 30

if __name__ == "__main__":
    connections.REQUEST_S, connections.ANSWER_S, connections.MOST_STRANGERS = REQUEST_S, ANSWER_S, MOST_STRANGERS
    sys.exit(command.main())
