# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Writers, pools of them, and one site's view of them, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from custom.data.writers import WriterPool, Writers, WriterSiteData, divide_by_class

CPU = torch.device("cpu")
SIZES = [3, 2, 5, 4]


def make_writers(**changes) -> Writers:
    """Four writers with 3, 2, 5 and 4 samples; sample i of all has the grey i and the label of its writer."""
    total = sum(SIZES)
    arguments = {
        "name": "toy",
        "embedded": False,
        "num_classes": 4,
        "images": np.broadcast_to(np.arange(total, dtype=np.uint8)[:, None, None, None], (total, 2, 3, 1)),
        "labels": np.repeat(np.arange(4), SIZES),
        "offsets": np.array([0, 3, 5, 10, 14]),
    }
    return Writers(**(arguments | changes))


def pool(*chosen: int, seed: int = 7) -> WriterPool:
    return WriterPool(make_writers(), np.array(chosen, dtype=np.int64), seed)


def greys(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def test_a_writers_images_are_its_rows_normalised():
    """Grey 3 of 255, mean 0.5, std 0.25: (3 / 255 - 0.5) / 0.25 = -1.952941."""
    images, labels = make_writers(mean=0.5, std=0.25).load(1, CPU)
    assert images.shape == (2, 1, 2, 3)
    assert images.dtype == torch.float32
    assert images[0].unique().tolist() == pytest.approx([-1.952941])
    assert labels.tolist() == [1, 1]
    assert labels.dtype == torch.int64


def test_colours_become_channels():
    images = np.zeros((14, 2, 3, 3), dtype=np.uint8)
    images[0, 1, 2, 0], images[0, 0, 1, 2] = 255, 51
    batch, _ = make_writers(images=images).load(0, CPU)
    assert batch[0].nonzero().tolist() == [[0, 1, 2], [2, 0, 1]]
    assert batch[0, 2, 0, 1].item() == pytest.approx(0.2)


def test_mapped_images_are_read_writer_by_writer_and_never_written(tmp_path):
    np.save(tmp_path / "images.npy", np.full((14, 2, 3, 1), 255, np.uint8))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    images, _ = make_writers(images=mapped).load(3, CPU)
    images.zero_()
    assert (mapped == 255).all()


def test_a_pool_counts_its_own():
    mine = pool(0, 2)
    assert len(mine) == 2
    assert [mine.num_samples(place) for place in range(2)] == [3, 5]
    assert mine.total_samples() == 8
    assert greys(mine.load(1, CPU)[0]) == [5, 6, 7, 8, 9]
    assert pool().total_samples() == 0


@pytest.mark.parametrize(
    ("fraction", "writer", "support"),
    [(0.5, 2, 2), (0.5, 0, 2), (0.5, 1, 1), (0.01, 3, 1), (0.99, 3, 3)],
    ids=["2.5 rounds to even", "1.5 rounds to even", "a pair", "one at least", "one is left"],
)
def test_support_and_query_by_hand(fraction, writer, support):
    chosen, rest = pool(writer).support_and_query(0, fraction)
    assert (len(chosen), len(rest)) == (support, SIZES[writer] - support)
    assert sorted(chosen.tolist() + rest.tolist()) == list(range(SIZES[writer]))


def divided(sizes: list[int], fraction: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Of a writer with sizes[c] samples of class c, in mixed order: samples by class, in support and in query."""
    labels = np.random.default_rng(9).permutation(np.repeat(np.arange(len(sizes)), sizes))
    parts = divide_by_class(labels, fraction, torch.Generator().manual_seed(seed))
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    support, query = (np.bincount(labels[part.numpy()], minlength=len(sizes)).tolist() for part in parts)
    return support, query


@pytest.mark.parametrize(
    ("sizes", "fraction", "support"),
    [
        ([4, 2, 6], 0.5, [2, 1, 3]),
        ([5, 1, 2], 0.5, [2, 1, 1]),  # 8 samples: the odd one of class 0 makes up for class 1, so 4 and 4
        ([1, 1, 1, 3, 2], 0.5, [1, 1, 1, 1, 1]),  # 8 samples, 5 and 3: three classes cannot be divided
        ([10, 4, 2], 0.25, [2, 1, 1]),  # quotas 2.5, 1 and 0.5, raised to 1: the total of 4 is reached
        ([10, 10], 0.75, [8, 7]),  # quotas 7.5 and 7.5, a total of 15: one of the two has 8
        ([2, 3], 0.99, [1, 2]),  # one of each is left to score
        ([2, 3], 0.01, [1, 1]),
    ],
    ids=[
        "even",
        "a single makes up for an odd one",
        "many singles",
        "a quarter",
        "a tie",
        "one is left",
        "one at least",
    ],
)
def test_each_class_is_divided_by_hand(sizes, fraction, support):
    got, rest = divided(sizes, fraction)
    if sizes == [10, 10]:
        got.sort(reverse=True)
        rest.sort()
    assert got == support
    assert rest == [size - part for size, part in zip(sizes, support, strict=True)]


def test_odd_classes_are_rounded_at_random_and_the_halves_differ_by_at_most_one():
    """Three classes of 3: 9 samples, of which round(4.5) = 4 support, so one class of the three has 2 there."""
    larger = {tuple(divided([3, 3, 3], 0.5, seed)[0]) for seed in range(30)}
    assert larger == {(2, 1, 1), (1, 2, 1), (1, 1, 2)}


def test_query_classes_are_support_classes_whenever_a_class_has_two_samples():
    random = np.random.default_rng(1)
    for trial in range(200):
        sizes = random.integers(1, 6, random.integers(1, 20)).tolist()
        sizes[0] = max(sizes[0], 2)
        support, query = divided(sizes, float(random.choice([0.1, 0.3, 0.5, 0.8])), trial)
        assert all(support)
        assert sum(query) > 0
        assert all(part > 0 for part, size in zip(query, sizes, strict=True) if size > 1)


def test_without_two_samples_of_any_class_the_division_is_random():
    """Half of 6 classes of one sample each: no query class can be a support class."""
    supports = {tuple(divided([1] * 6, 0.5, seed)[0]) for seed in range(30)}
    assert {sum(support) for support in supports} == {3}
    assert len(supports) > 5


def test_equal_seeds_divide_alike():
    assert divided([3, 1, 5], 0.5, 4) == divided([3, 1, 5], 0.5, 4)


def test_a_writers_random_numbers_do_not_depend_on_its_site():
    """Writer 2 alone, and as the last of three; other writers, seeds and uses have others."""
    alone, among = pool(2), pool(0, 1, 2)
    assert alone.random_seed(0, 5) == among.random_seed(2, 5)
    for there, here in zip(alone.support_and_query(0, 0.5), among.support_and_query(2, 0.5), strict=True):
        assert torch.equal(there, here)
    others = {among.random_seed(1, 5), among.random_seed(2, 6), pool(2, seed=8).random_seed(0, 5)}
    assert alone.random_seed(0, 5) not in others
    assert len(others) == 3


@pytest.fixture
def site() -> WriterSiteData:
    return WriterSiteData(pool(0, 2), pool(3))


def test_description_and_counts(site):
    assert site.describe() == {"dataset": "toy", "embedded": False, "num_classes": 4, "input_shape": [1, 2, 3]}
    assert [site.size(split) for split in ("train", "validation", "test")] == [8, 0, 4]
    writers = {"largest_writer": 5, "training_writers": 2, "held_out_writers": 1, "skipped_writers": 0}
    counts = {"train": 8, "test": 4} | writers
    assert site.counts() == counts


def test_batches_are_of_one_writer_each_in_order(site):
    assert [greys(images) for images, _ in site.batches("train", 2, CPU)] == [[0, 1], [2], [5, 6], [7, 8], [9]]
    assert [labels.tolist() for _, labels in site.batches("test", 3, CPU)] == [[3, 3, 3], [3]]


def test_shuffled_batches_hold_each_sample_once_with_its_label(site):
    batches = list(site.batches("train", 2, CPU, torch.Generator().manual_seed(3)))
    assert all(len(labels.unique()) == 1 for _, labels in batches)
    seen = [(grey, label) for images, labels in batches for grey, label in zip(greys(images), labels, strict=True)]
    assert seen != sorted(seen)
    assert sorted(seen) == [(0, 0), (1, 0), (2, 0), (5, 2), (6, 2), (7, 2), (8, 2), (9, 2)]


def test_validation_is_empty_and_never_the_held_out_writers(site):
    assert list(site.batches("validation", 2, CPU)) == []


def test_an_unknown_split_is_an_error(site):
    with pytest.raises(KeyError):
        list(site.batches("tset", 2, CPU))
