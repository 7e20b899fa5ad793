# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Reading CIFAR-10's files, sound and damaged, and getting them over the network."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from custom.data.cifar10 import ARCHIVE, FOLDER, BatchFiles, Cifar10, find_folder, official_files, read_batch
from custom.data.download import Unavailable, download
from custom.errors import BundleError
from tests.data.batch_files import batch_bytes, write_archive, write_folder
from tests.poisoned import Touch

REPOSITORY = Path(__file__).parents[2]
DATA_ROOT = Path(os.environ.get("FLARE_DATA_ROOT", "/nonexistent"))


def with_md5_of(files: BatchFiles, path: Path) -> BatchFiles:
    """The same list, with the checksum that `path` has now."""
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return dataclasses.replace(
        files, train=tuple((name, md5 if name == path.name else old) for name, old in files.train)
    )


def test_images_and_labels_of_rows_across_files(tmp_path):
    source = Cifar10(tmp_path / FOLDER, write_folder(tmp_path))
    assert source.labels("train").tolist() == [i % 10 for i in range(120)]
    assert source.labels("test").tolist() == [i % 10 for i in range(40)]
    rows = np.array([0, 39, 40, 41, 119])  # in the first, second and third file
    images = source.images("train", rows)
    assert images.shape == (5, 3, 32, 32)
    assert images[:, 0, 0, 0].tolist() == rows.tolist()
    assert source.images("test", np.array([3]))[0, 0, 0, 0] == 252
    assert source.images("train", np.array([], dtype=np.int64)).shape == (0, 3, 32, 32)


def test_the_folder_itself_is_found(tmp_path):
    files = write_folder(tmp_path)
    assert find_folder(tmp_path, files) == find_folder(tmp_path / FOLDER, files) == tmp_path / FOLDER
    renamed = (tmp_path / FOLDER).rename(tmp_path / "cifar")
    assert find_folder(renamed, files) == renamed


@pytest.mark.parametrize("given", [".", ARCHIVE])
def test_an_archive_that_is_there_is_unpacked(tmp_path, given):
    """Nothing is downloaded; the archive stays."""
    files = write_archive(tmp_path, "http://127.0.0.1:9/")
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "cifar.tar.gz").rename(root / ARCHIVE)
    assert find_folder(root / given, files) == root / FOLDER
    assert Cifar10(root / FOLDER, files).labels("train").tolist() == [i % 10 for i in range(120)]
    assert sorted(path.name for path in root.iterdir() if path.suffix != ".lock") == [FOLDER, ARCHIVE]


def test_an_archive_that_is_there_and_damaged_is_named(tmp_path):
    files = write_archive(tmp_path, "http://127.0.0.1:9/")
    (tmp_path / ARCHIVE).write_bytes(b"half")
    with pytest.raises(BundleError, match=ARCHIVE) as error:
        find_folder(tmp_path, files)
    assert error.value.code == "data-damaged"
    assert not isinstance(error.value, Unavailable)  # else embedded data would take its place


def test_pixels_are_red_green_blue_planes_row_by_row(tmp_path):
    """Byte c * 1024 + y * 32 + x of a row is channel c, line y, column x."""
    pixels = np.zeros((1, 3072), dtype=np.uint8)
    pixels[0, 2 * 1024 + 5 * 32 + 7] = 200
    (tmp_path / "batch").write_bytes(batch_bytes(pixels, [4]))
    md5 = hashlib.md5((tmp_path / "batch").read_bytes()).hexdigest()
    source = Cifar10(tmp_path, BatchFiles((("batch", md5),), (), "", ""))
    assert source.images("train", np.array([0])).nonzero().tolist() == [[0, 2, 5, 7]]


def test_an_empty_folder(tmp_path):
    files = write_folder(tmp_path / "sound")
    with pytest.raises(BundleError, match=r"data_batch_1: missing.*got No such file or directory; delete"):
        Cifar10(tmp_path, files)


def test_a_truncated_file(tmp_path):
    files = write_folder(tmp_path)
    path = tmp_path / FOLDER / "data_batch_2"
    os.truncate(path, 50_000)
    with pytest.raises(BundleError, match=r"data_batch_2: missing, truncated.*\(50,000 bytes\)"):
        Cifar10(tmp_path / FOLDER, files)


def test_a_changed_byte(tmp_path):
    files = write_folder(tmp_path)
    path = tmp_path / FOLDER / "test_batch"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"test_batch: .*expected md5"):
        Cifar10(tmp_path / FOLDER, files)


def test_a_poisoned_pickle_with_a_matching_checksum_is_refused(tmp_path):
    files = write_folder(tmp_path)
    victim, path = tmp_path / "victim", tmp_path / FOLDER / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Touch(victim), b"labels": []}, protocol=4))
    source = Cifar10(tmp_path / FOLDER, with_md5_of(files, path))
    with pytest.raises(BundleError, match=r"data_batch_1: .*refused to load pathlib"):
        source.labels("train")
    assert not victim.exists()
    pickle.loads(path.read_bytes())
    assert victim.exists()  # so the payload was a real one


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}.",
        pickle.dumps([1, 2]),
        batch_bytes(np.zeros((2, 3072), dtype=np.uint8), [0]),
        batch_bytes(np.zeros((1, 1024), dtype=np.uint8), [0]),
        batch_bytes(np.zeros((1, 3072), dtype=np.uint8), [10]),
        batch_bytes(np.zeros((2, 3072), dtype=np.uint8), [0, 1])[:1000],
    ],
    ids=["empty", "no keys", "a list", "too few labels", "small images", "label 10", "cut off"],
)
def test_not_a_batch(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(BundleError, match=r"batch: .*expected a batch of 3072-byte images"):
        read_batch(tmp_path / "batch")


@pytest.mark.skipif(not (DATA_ROOT / FOLDER).is_dir(), reason=f"FLARE_DATA_ROOT holds no {FOLDER}")
def test_the_real_files():
    """5,000 and 1,000 images a class; same pixels as torchvision; the constants of normalisation are right."""
    from torchvision.datasets import CIFAR10

    source = Cifar10(DATA_ROOT / FOLDER, official_files())
    assert np.bincount(source.labels("train")).tolist() == [5000] * 10
    assert np.bincount(source.labels("test")).tolist() == [1000] * 10
    reference = CIFAR10(DATA_ROOT)
    assert source.labels("train").tolist() == reference.targets
    rows = np.array([0, 9_999, 10_000, 49_999])
    assert np.array_equal(source.images("train", rows).permute(0, 2, 3, 1).numpy(), reference.data[rows])
    assert reference.data.mean(axis=(0, 1, 2)) / 255 == pytest.approx(source.mean, abs=1e-4)
    assert np.array([reference.data[..., c].std() / 255 for c in range(3)]) == pytest.approx(source.std, abs=1e-4)


class CountingHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files, remembers which, and keeps quiet."""

    served: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.served.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def site(tmp_path):
    """A web server on this machine that offers a small archive; yields the file list with its address."""
    handler = functools.partial(CountingHandler, directory=tmp_path / "www")
    CountingHandler.served.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield write_archive(tmp_path / "www", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        server.shutdown()


DOWNLOAD = """
import json
import sys
from pathlib import Path
from custom.data.cifar10 import BatchFiles
from custom.data.download import download
print("ready", flush=True)
sys.stdin.readline()
download(Path(sys.argv[1]), BatchFiles(**json.loads(sys.argv[2])))
"""


def leftovers(root: Path) -> list[str]:
    """What lies in `root` beside the folder and the empty lock file."""
    return sorted(path.name for path in root.iterdir() if path.name not in (FOLDER, f".{FOLDER}.lock"))


def test_two_processes_download_at_once_and_end_with_one_good_copy(tmp_path, site):
    root = tmp_path / "new" / "root"
    command = [sys.executable, "-c", DOWNLOAD, str(root), json.dumps(dataclasses.asdict(site))]
    pair = [
        subprocess.Popen(
            command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in pair:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(Cifar10(root / FOLDER, site).labels("train")) == 120
    assert leftovers(root) == []
    assert CountingHandler.served == ["/cifar.tar.gz"]  # the second process waited and fetched nothing


def test_the_remains_of_a_killed_download_are_cleared(tmp_path, site):
    part = tmp_path / "root" / f".{FOLDER}.part"
    (part / FOLDER).mkdir(parents=True)
    (part / FOLDER / "data_batch_1").write_bytes(b"half")
    Cifar10(download(tmp_path / "root", site), site)
    assert leftovers(tmp_path / "root") == []


@pytest.mark.parametrize("damage", ["archive_md5", "test"])
def test_a_download_with_a_wrong_checksum_is_not_kept(tmp_path, site, damage):
    wrong = {"archive_md5": "0" * 32, "test": (("test_batch", "0" * 32),)}[damage]
    with pytest.raises(Unavailable, match=r"cannot be downloaded.*md5 0{32}"):
        download(tmp_path / "root", dataclasses.replace(site, **{damage: wrong}))
    assert leftovers(tmp_path / "root") == []
    assert not (tmp_path / "root" / FOLDER).exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/cifar.tar.gz", "file:///nonexistent/cifar.tar.gz"])
def test_no_network(tmp_path, site, url):
    with pytest.raises(Unavailable, match=r"cannot be downloaded from .* point dataset_path or FLARE_DATA_ROOT"):
        download(tmp_path / "root", dataclasses.replace(site, url=url))
    assert not (tmp_path / "root").exists()  # the path may be a mistyped one


def test_a_root_that_cannot_be_made(tmp_path, site):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="cannot be downloaded"):
        download(tmp_path / "file" / "root", site)


def test_a_root_that_this_user_may_not_write(tmp_path, site, monkeypatch):
    """One cause and not two: the address is all right."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / FOLDER))

    monkeypatch.setattr("custom.data.download.make_once", refuse)
    with pytest.raises(Unavailable) as caught:
        download(tmp_path, site)
    assert (caught.value.code, caught.value.key) == ("data-missing", str(tmp_path / FOLDER))
    assert f"let this user write to {tmp_path}" in str(caught.value)
    assert site.url not in str(caught.value)


def test_data_that_are_there_need_neither_lock_nor_network(tmp_path):
    """So a root that cannot be written to is fine."""
    files = write_folder(tmp_path)
    before = sorted(tmp_path.iterdir())
    tmp_path.chmod(0o500)
    try:
        assert download(tmp_path, files) == tmp_path / FOLDER
    finally:
        tmp_path.chmod(0o700)
    assert sorted(tmp_path.iterdir()) == before
