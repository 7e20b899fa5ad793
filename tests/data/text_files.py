# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Small CSV files as AG News has them, and environments without network, or without an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
from transformers import BertConfig

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


def write_encoder_config(folder: Path, vocab_size: int, **changes: Any) -> Path:
    """config.json of a BERT with as many embeddings; returns the folder."""
    BertConfig(vocab_size=vocab_size, **changes).save_pretrained(folder)
    return folder


def cut_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Nothing listens on port 9 of this machine; nothing is in the Hub's cache, nor remembered by this process.

    Returns:
        The repositories that the Hub's client is asked for from now on; with "all of " before the name where it is by
        `snapshot_download`, which would try for minutes.
    """
    asked: list[str] = []
    ask, download = huggingface_hub.HfApi.model_info, pretrained.snapshot_download

    def model_info(api: huggingface_hub.HfApi, name: str, **options: Any) -> Any:
        asked.append(name)
        return ask(api, name, **options)

    def snapshot_download(name: str, local_files_only: bool, **options: Any) -> str:
        asked.extend([] if local_files_only else [f"all of {name}"])
        return download(name, local_files_only=local_files_only, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(pretrained, "snapshot_download", snapshot_download)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path))
    huggingface_hub.close_session()  # it would remember the proxies of before
    pretrained._ask_hub.cache_clear()
    return asked


class MuteHub(NamedTuple):
    """What was asked, see `cut_network`, and the connections made, of which one may come when nobody waits any more."""

    asked: list[str]
    connections: list[socket.socket]


@contextlib.contextmanager
def mute_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drip: bytes = b"") -> Iterator[MuteHub]:
    """In place of the Hub a server that accepts connections and never answers, as if packets were lost.

    Args:
        monkeypatch: sets its address, and shortens the time-out to half a second.
        tmp_path: an empty cache.
        drip: what it sends ten times a second, after the beginning of an answer.
    """
    asked = cut_network(monkeypatch, tmp_path)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name)
    connections: list[socket.socket] = []
    closed = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                threading.Thread(target=send, args=(connections[-1],), daemon=True).start()

    def send(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" if drip else b"")
            while drip and not closed.wait(0.1):
                connection.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(pretrained, "HUB_TIMEOUT_S", 0.5)
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield MuteHub(asked, connections)
        finally:
            closed.set()
            server.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()
            pretrained._ask_hub.cache_clear()


def put_in_cache(tmp_path: Path, name: str) -> Path:
    """A snapshot of the repository `name`, as an earlier download leaves it; returns its folder."""
    repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    return snapshot
