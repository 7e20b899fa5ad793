# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""With this folder on PYTHONPATH, `time.time` of every Python process, and so its log, is an hour ahead.

The clock that OpenSSL compares certificates with, and that of `datetime.now`, stay as they are.
"""

from __future__ import annotations

import time

SHIFT_S = 3600
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + SHIFT_S
time.time_ns = lambda: _time_ns() + SHIFT_S * 10**9
