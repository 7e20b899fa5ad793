# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What happened in a job, as text, JSON or a page. Reads files that FLARE and the bundle wrote; imports neither."""
