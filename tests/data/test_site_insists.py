# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""FLARE_ON_MISSING=error in a site's environment: no embedded data and no embedded encoder, whatever a job says."""

from __future__ import annotations

import pytest

from custom.data.component import missing_is_error, or_embedded
from custom.data.download import Unavailable
from custom.errors import BundleError
from custom.models import pretrained


def unavailable() -> str:
    raise Unavailable("not there", code="data-missing")


@pytest.mark.parametrize(
    ("site", "job", "expected"),
    [
        ("", "embedded", False),
        ("", "error", True),
        ("error", "embedded", True),
        ("error", "error", True),
        ("embedded", "error", True),  # a site insists, it does not relax
        ("embedded", "embedded", False),
    ],
)
def test_the_stricter_of_job_and_site(monkeypatch: pytest.MonkeyPatch, site: str, job: str, expected: bool) -> None:
    monkeypatch.setenv("FLARE_ON_MISSING", site)
    assert missing_is_error(job) is expected


def test_a_misspelt_site_does_not_train_on_embedded_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLARE_ON_MISSING", "Error")
    with pytest.raises(BundleError, match="FLARE_ON_MISSING of this site: expected embedded or error, got 'Error'"):
        or_embedded(unavailable, lambda: "embedded", "embedded", "DIGITS")


def test_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLARE_ON_MISSING", raising=False)
    monkeypatch.delenv("FLARE_DATA_ROOT", raising=False)
    assert or_embedded(unavailable, lambda: "embedded", "embedded", "DIGITS") == "embedded"
    monkeypatch.setenv("FLARE_ON_MISSING", "error")
    with pytest.raises(Unavailable, match="not there"):
        or_embedded(unavailable, lambda: "embedded", "embedded", "DIGITS")


def test_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_ask_hub", lambda name: "no network")
    monkeypatch.setenv("FLARE_ON_MISSING", "error")
    with pytest.raises(BundleError, match="cannot be downloaded from the Hugging Face Hub"):
        pretrained.find_pretrained("google-bert/bert-base-cased", "embedded")
    assert pretrained.find_pretrained("embedded", "embedded") is None  # asked for by name
