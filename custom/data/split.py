# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which samples a site holds, and which of them it sets aside: the settings that most data components have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from custom.data.component import check, check_choice, check_fraction, is_number, place_in_roster
from custom.data.partition import MIN_TEST, MIN_TRAIN, Indices, draw_of, share_out, split_validation


class Split:
    """Shares out the official training and test samples.

    Args:
        partition: `iid`, `dirichlet`, `k_classes`, or `none` for a site that holds data of its own.
        alpha: of `dirichlet`; the smaller, the more the sites differ.
        validation_fraction: of a site's training samples, in (0, 1).
        classes_per_site: of `k_classes`; None if there is no such partition.
        alpha_key: what the component calls `alpha`.
    """

    def __init__(
        self,
        partition: str,
        alpha: float,
        validation_fraction: float,
        classes_per_site: int | None = None,
        alpha_key: str = "alpha",
    ) -> None:
        self.partition, self.alpha, self.validation_fraction = partition, alpha, validation_fraction
        self.classes_per_site, self.alpha_key = classes_per_site, alpha_key

    @property
    def shared(self) -> bool:
        """Do all sites draw from the same samples?"""
        return self.partition != "none"

    def check(self) -> None:
        """Looks at the settings.

        Raises:
            BundleError: one is out of range.
        """
        by_classes = () if self.classes_per_site is None else ("k_classes",)
        check_choice("partition", self.partition, ("iid", "dirichlet", *by_classes, "none"))
        check(is_number(self.alpha) and self.alpha > 0, self.alpha_key, "a finite number above 0", self.alpha)
        number = self.classes_per_site
        good = number is None or (type(number) is int and 1 <= number <= 10)
        check(good, "classes_per_site", "an integer from 1 to 10", number)
        check_fraction("validation_fraction", self.validation_fraction)

    def of_site(
        self,
        name: str,
        roster: Sequence[str],
        seed: int,
        labels: tuple[NDArray[np.int64], NDArray[np.int64]],
        num_classes: int,
        remedy: str = "change validation_fraction, or use fewer sites",
    ) -> dict[str, Indices]:
        """The rows of site `name` among the sites of `roster`, in any order, drawn with `seed`.

        Args:
            name: of the site.
            roster: the names of all sites.
            seed: of the job.
            labels: of the training set and of the test set, each of shape (samples,).
            num_classes: of both.
            remedy: what the user may change if training or validation would be left empty.

        Returns:
            Ascending rows: `train` and `validation` of the training set, and `test`.

        Raises:
            BundleError: the site is not in the roster, or some site has too few samples.
        """
        train, test = (np.arange(len(of_set)) for of_set in labels)
        if self.shared:
            place, sites = place_in_roster(name, roster), len(set(roster))
            draw = draw_of(self.partition, sites, num_classes, self.alpha, self.classes_per_site or 1)
            train, test = (shares[place] for shares in share_out(labels, (MIN_TRAIN, MIN_TEST), draw, seed))
        rest, aside = split_validation(len(train), self.validation_fraction, seed, name, remedy)
        return {"train": train[rest], "validation": train[aside], "test": test}
