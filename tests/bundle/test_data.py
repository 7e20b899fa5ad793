# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""`bundle data`: what is not whole is refused, and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.data import prepare
from custom.errors import BundleError


@pytest.mark.parametrize("content", [None, b"", b"not a batch"])
def test_a_folder_that_is_empty_or_corrupt_is_refused(tmp_path: Path, content: bytes | None) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    if content is not None:
        (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(BundleError, match="data_batch_1: missing, truncated or corrupt"):
        prepare("cifar10", tmp_path)
    assert (folder / "data_batch_1").exists() == (content is not None)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such data set; there are: cifar10"):
        prepare("cifar-10", tmp_path)
