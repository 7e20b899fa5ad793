# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The setting of the criteria; what they choose is in test_topk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from custom.compression.criteria import FinalMagnitude, MagnitudeChange, MagnitudeIncrease
from custom.errors import BundleError


@pytest.mark.parametrize("kind", [MagnitudeChange, FinalMagnitude, MagnitudeIncrease])
@pytest.mark.parametrize("largest", ["no", 0, None])
def test_largest_is_true_or_false_and_nothing_else(kind: Any, largest: Any) -> None:
    criterion = kind(largest)
    piece = np.ones(2, np.float32)
    for use in (criterion.check, lambda: criterion(piece, piece, np.random.default_rng(0))):
        with pytest.raises(BundleError, match=f"^largest: expected true or false, got {largest!r}$"):
            use()
