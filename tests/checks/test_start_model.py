# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from custom.checks.start_model import fit_to_sites
from custom.errors import BundleError

SITES = {"fc.weight": np.zeros((1, 2), np.float32), "fc.bias": np.zeros(1, np.float32), "n": np.zeros((), np.int64)}


def file_with(prefix: str = "", floats: Any = np.float32, **changed: Any) -> dict[str, np.ndarray]:
    values = {
        "fc.weight": np.array([[1, 2]], floats),
        "fc.bias": np.array([3], floats),
        "n": np.array(7),
        **{name.replace("__", "."): value for name, value in changed.items()},
    }
    return {f"{prefix}{name}": value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("prefix", "notes"),
    [
        ("", []),
        ("module.", ["names without module."]),
        ("model.net.", ["names without model. net."]),
        ("_orig_mod.", ["names without _orig_mod."]),
        ("module._orig_mod.", ["names without _orig_mod. module."]),
    ],
)
def test_wrappers_are_taken_off_the_names(prefix: str, notes: list[str]) -> None:
    fitted, told = fit_to_sites("f", file_with(prefix), SITES)
    assert fitted["fc.weight"].tolist() == [[1, 2]]
    assert fitted["fc.bias"].tolist() == [3]
    assert int(fitted["n"]) == 7
    assert told == notes


def test_a_compiled_part_of_a_model() -> None:
    weights = {name.replace("fc.", "fc._orig_mod."): value for name, value in file_with().items()}
    assert fit_to_sites("f", weights, SITES)[0]["fc.bias"].tolist() == [3]


def test_names_of_the_sites_that_have_a_prefix_stay() -> None:
    wrapped = {f"module.{name}": value for name, value in SITES.items()}
    fitted, told = fit_to_sites("f", file_with("module."), wrapped)
    assert (fitted.keys(), told) == (wrapped.keys(), [])


@pytest.mark.parametrize("floats", [np.float16, np.float64])
def test_number_types_become_those_of_the_sites(floats: Any) -> None:
    fitted, told = fit_to_sites("f", file_with(floats=floats), SITES)
    assert {name: value.dtype for name, value in fitted.items()} == {k: v.dtype for k, v in SITES.items()}
    assert fitted["fc.weight"].tolist() == [[1, 2]]
    assert told == [f"converted {np.dtype(floats)} to float32"]


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"fc__bias": np.array([1e300])}, "f fc.bias"),
        ({"n": np.array(0.5)}, "f n"),
        ({"fc__bias": np.zeros(2, np.float32)}, "f fc.bias"),
        ({"fc__bias": None}, "f fc.bias"),
        ({"head__weight": np.zeros(2, np.float32)}, "f head.weight"),
        ({"fc__weight": None, "gc__weight": np.zeros((1, 2), np.float32)}, "f fc.weight"),
    ],
    ids=["overflow", "half an integer", "shape", "missing", "extra", "another name"],
)
def test_what_does_not_fit_is_named(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(BundleError) as caught:
        fit_to_sites("f", file_with(**changed), SITES)
    assert (caught.value.code, caught.value.key) == ("model-mismatch", key)


def test_the_first_names_of_both_sides_are_told() -> None:
    weights = {f"features.{number}.weight": np.zeros(1, np.float32) for number in range(5)}
    with pytest.raises(BundleError) as caught:
        fit_to_sites("f", weights, SITES)
    for name in ("fc.bias", "fc.weight", "n", "features.0.weight", "features.2.weight"):
        assert name in str(caught.value)
    assert "features.3.weight" not in str(caught.value)
