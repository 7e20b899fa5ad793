# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The web page that launches and follows training on a running FLARE system. See docs/adr/0007-dashboard.md."""

import sys

from bundle import missing_packages

if problem := missing_packages("nicegui"):
    print(f"error: {problem} [package-missing]", file=sys.stderr)
    raise SystemExit(2)
