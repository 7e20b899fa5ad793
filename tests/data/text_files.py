# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Small CSV files as AG News has them, and an environment without network."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from custom.models import pretrained

FOLDER = Path("ag_news") / "ag_news_csv"


def row(label: int, text: str) -> str:
    """One line, quoted as in the published files."""
    return f'"{label}","{text}","about {text}"\n'


def write_ag_news(root: Path, train: int = 80, test: int = 20) -> Path:
    """Text i of a split says `train number i` or `test number i`, and has the label i % 4 + 1; returns the folder."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    for split, number in (("train", train), ("test", test)):
        lines = [row(place % 4 + 1, f"{split} number {place}") for place in range(number)]
        (folder / f"{split}.csv").write_text("".join(lines), encoding="utf-8")
    return folder


def cut_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing listens on port 9 of this machine; nothing is in the Hub's cache, nor remembered by this process."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path))
    huggingface_hub.close_session()  # it would remember the proxies of before
    pretrained._ask_hub.cache_clear()
