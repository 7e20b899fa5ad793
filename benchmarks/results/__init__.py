# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What `benchmarks.write_results` writes, a function a section; not part of what a job needs."""
