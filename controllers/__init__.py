# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE workflows, one a file."""

import custom  # noqa: F401  # which puts a job's own controllers in the place of these
