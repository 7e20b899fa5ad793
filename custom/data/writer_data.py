# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The component with the id `data` of jobs over many writers: which writers there are, and which a site hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from custom.data.component import (
    check,
    check_choice,
    check_folder_name,
    check_fraction,
    or_embedded,
    place_in_roster,
)
from custom.data.digits import Digits
from custom.data.folders import cache_folder, data_root
from custom.data.leaf import open_leaf
from custom.data.mnist_writers import open_mnist_writers
from custom.data.shards import deal_cifar10, deal_digits
from custom.data.writers import WriterPool, Writers, WriterSiteData
from custom.errors import BundleError
from custom.learning.seed import derive

Chosen = NDArray[np.int64]

DRAW_STREAM, DEAL_STREAM = 2_000_003, 2_000_005  # beyond any number of writers, so that the random numbers are others


class WriterData:
    """Images by writer; see `custom.data.site_data.DataComponent`.

    Args:
        dataset: `femnist` made with LEAF, or other handwriting in its layout, `mnist` by writer, `cifar10` dealt to 500
            writers in label shards, so that each has at most two classes, or `digits`, dealt to 100 likewise, which
            needs no download.
        dataset_path: the folder that holds, or is to hold, `femnist`, `MNIST` and `qmnist`, or `cifar-10-batches-py`;
            or the folder with `data/train` and `data/test` in LEAF's layout itself. FLARE_DATA_ROOT overrides it.
        on_missing: when the data are not available, take the `embedded` digits with a warning, or make it an `error`.
        partition: `split` where all sites read the same data and each hosts its share of the writers, or `none` for a
            site that holds data of its own and hosts all writers of them.
        num_writers: this many, drawn with the seed, or 0 for all; training and held-out writers together. Where the
            data name their held-out writers, both are drawn, in the proportion that they have in the data.
        test_fraction: of the writers, in (0, 1), drawn with the seed and held out of training, unless the data name
            their held-out writers, as those of `mnist` do, and LEAF's with `-t user`.
        cache_dir: where `femnist` and `mnist` are kept in files that are opened at once. FLARE_CACHE_DIR overrides it.
    """

    def __init__(
        self,
        dataset: str = "femnist",
        dataset_path: str = "~/.cache/flare-bundle",
        on_missing: str = "embedded",
        partition: str = "split",
        num_writers: int = 0,
        test_fraction: float = 0.2,
        cache_dir: str = "~/.cache/flare-bundle",
    ) -> None:
        self.dataset, self.dataset_path, self.on_missing, self.partition = dataset, dataset_path, on_missing, partition
        self.num_writers, self.test_fraction, self.cache_dir = num_writers, test_fraction, cache_dir

    def check(self) -> None:
        """Looks at the settings; called by `site`, and by `bundle export` before a job leaves.

        Raises:
            BundleError: one is out of range.
        """
        check_choice("dataset", self.dataset, ("femnist", "mnist", "cifar10", "digits"))
        check_choice("on_missing", self.on_missing, ("embedded", "error"))
        check_choice("partition", self.partition, ("split", "none"))
        check_folder_name("dataset_path", self.dataset_path)
        check_folder_name("cache_dir", self.cache_dir)
        number = self.num_writers
        check(type(number) is int and number >= 0, "num_writers", "0 for all writers, or how many", number)
        check_fraction("test_fraction", self.test_fraction)

    def site(self, name: str, roster: Sequence[str], seed: int) -> WriterSiteData:
        """The writers that site `name` hosts, among the sites of `roster`, in any order, drawn with `seed`.

        The shares of all sites in the order of their names, put together, are the same whatever the number of sites.

        Raises:
            BundleError: the site is not in the roster, there are too few writers, or the data are not available.
        """
        self.check()
        shared = self.partition == "split"
        place = place_in_roster(name, roster if shared else [*roster, name])
        own_seed = seed if shared else derive(seed, place)
        writers = self._writers(seed)
        # What is dealt here is the same at every site: so are the writers held out, whom no site must train on.
        dealt = writers.embedded or self.dataset == "cifar10"
        pools = self._divide(name, writers, seed if dealt else own_seed)
        if shared:
            pools = _share(pools, place, len(set(roster)))
        training, held_out = (WriterPool(writers, chosen, own_seed) for chosen in pools)
        return WriterSiteData(training, held_out, shared)

    def _writers(self, seed: int) -> Writers:
        embedded = partial(deal_digits, derive(seed, DEAL_STREAM))
        sources: dict[str, Callable[[], Writers]] = {
            "femnist": lambda: open_leaf(data_root(self.dataset_path), cache_folder(self.cache_dir)),
            "mnist": lambda: open_mnist_writers(data_root(self.dataset_path), cache_folder(self.cache_dir)),
            "cifar10": lambda: deal_cifar10(data_root(self.dataset_path), derive(seed, DEAL_STREAM)),
            "digits": embedded,
        }
        names = f"{Digits.name}, NOT ON {self.dataset}"
        return or_embedded(sources[self.dataset], embedded, self.on_missing, names, self.dataset_path)

    def _divide(self, name: str, writers: Writers, seed: int) -> tuple[Chosen, Chosen]:
        """Training and held-out writers, at least one of each, in an order that takes the data to know."""
        number = self.num_writers or len(writers)
        if number > len(writers):
            raise BundleError(
                code="data-too-small",
                key="num_writers",
                expected=f"at most {len(writers)}, the writers of {writers.name}",
                got=number,
                remedy="ask for fewer, or 0 for all",
            )
        generator = np.random.default_rng(derive(seed, DRAW_STREAM, writers.digest()))
        if writers.held_out is None:
            order = generator.permutation(len(writers))[:number]
            num_held_out = round(number * self.test_fraction)
            held_out, training = order[:num_held_out], order[num_held_out:]
        else:
            num_held_out = round(number * len(writers.held_out) / len(writers))
            held_out = generator.permutation(writers.held_out)[:num_held_out]
            others = np.setdiff1d(np.arange(len(writers)), writers.held_out)
            training = generator.permutation(others)[: number - num_held_out]
        if not 0 < num_held_out < number:
            some = f"1 to {number - 1}" if number > 2 else "1"
            of = f"of {number} writers held out with test_fraction={self.test_fraction:g}"
            raise BundleError(
                "writers to train on and writers held out are both needed",
                code="data-too-small",
                site=name if self.partition == "none" else "",
                key="num_writers",
                expected=f"{some} {of}" if number > 1 else "2 writers or more",
                got=num_held_out if number > 1 else number,
                remedy="take more writers, or another test_fraction" if number > 2 else "take more writers",
            )
        return training, held_out


def _share(pools: tuple[Chosen, Chosen], place: int, sites: int) -> tuple[Chosen, Chosen]:
    """The block of training and of held-out writers that one of `sites` sites hosts; it may have none held out."""
    training, held_out = pools
    if len(training) < sites:
        raise BundleError(
            code="data-too-small",
            key="partition",
            expected=f"at most {len(training)} sites, as many as writers to train on",
            got=sites,
            remedy="use fewer sites, more writers (num_writers) or a smaller test_fraction",
        )
    return np.array_split(training, sites)[place], np.array_split(held_out, sites)[place]
