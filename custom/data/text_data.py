# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The component with the id `data` of the text jobs: which texts, how they are split over the sites and tokenised."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from custom.data.ag_news import CLASSES, TextSource, open_ag_news
from custom.data.component import check, check_choice, check_folder_name, is_number, or_embedded
from custom.data.folders import data_root
from custom.data.headlines import make_headlines
from custom.data.known_words import Known, check_known, count_known
from custom.data.partition import Indices
from custom.data.split import Split
from custom.data.text_batches import TextSiteData, Tokens, tokenise
from custom.data.tokenizer import case_warnings, embeddings, fingerprint, is_embedded, load_tokenizer
from custom.errors import BundleError
from custom.learning.seed import derive
from custom.models.pretrained import AGREES, check_setting

SAMPLE_STREAM = 2_000_007  # so that the random numbers are others

logger = logging.getLogger(__name__)


class TextData:
    """Texts in 4 classes; see `custom.data.site_data.DataComponent`.

    Args:
        dataset: `ag_news`, or `headlines`, which are made up here and need no download.
        dataset_path: the folder that holds, or is to hold, `ag_news/ag_news_csv/{train,test}.csv`. FLARE_DATA_ROOT
            overrides it.
        model_name_or_path: whose tokenizer; the same as that of the model, see `custom.models.pretrained`.
        on_missing: when AG News or the tokenizer are not available, take what is `embedded` with a warning, or make it
            an `error`.
        partition: `iid`, `dirichlet`, or `none` for a site that holds data of its own.
        beta: of `dirichlet`; the smaller, the more the sites differ.
        sample_percentage: the share of the training rows that is used, in (0, 1], drawn with the seed.
        validation_fraction: of a site's training samples, in (0, 1).
        max_length: tokens of a text; the rest is cut off.
    """

    agrees = AGREES

    def __init__(
        self,
        dataset: str = "ag_news",
        dataset_path: str = "~/.cache/flare-bundle",
        model_name_or_path: str = "google-bert/bert-base-cased",
        on_missing: str = "embedded",
        partition: str = "iid",
        beta: float = 1.0,
        sample_percentage: float = 1.0,
        validation_fraction: float = 0.1,
        max_length: int = 128,
    ) -> None:
        self.dataset, self.dataset_path, self.on_missing = dataset, dataset_path, on_missing
        self.model_name_or_path, self.sample_percentage = model_name_or_path, sample_percentage
        self.max_length = max_length
        self.split = Split(partition, beta, validation_fraction, alpha_key="beta")

    def check(self) -> None:
        """Looks at the settings; called by `site`, and by `bundle export` before a job leaves.

        Raises:
            BundleError: one is out of range.
        """
        check_choice("dataset", self.dataset, ("ag_news", "headlines"))
        check_folder_name("dataset_path", self.dataset_path)
        check_setting(self.model_name_or_path, self.on_missing)
        share = self.sample_percentage
        check(is_number(share) and 0 < share <= 1, "sample_percentage", "a share above 0, at most 1", share)
        self.split.check()
        length = self.max_length
        check(type(length) is int and length >= 3, "max_length", "an integer of at least 3", length)

    def site(self, name: str, roster: Sequence[str], seed: int) -> TextSiteData:
        """The share of site `name` among the sites of `roster`, in any order, drawn with `seed`.

        Raises:
            BundleError: the site is not in the roster, has too few samples, data or tokenizer are not available, or the
                tokenizer does not know the words of the site's texts.
        """
        self.check()
        tokenizer = load_tokenizer(self.model_name_or_path, self.on_missing)
        if self.max_length > (longest := tokenizer.model_max_length):
            raise BundleError(
                code="setting-value",
                key="max_length",
                expected=f"at most {longest} for this encoder",
                got=self.max_length,
                remedy=f"set max_length={longest}",
            )
        source = self._source()
        official = {"train": source.splits["train"], "test": source.splits["test"]}
        used = self._sample(len(official["train"].labels), seed)
        remedy = "change validation_fraction or sample_percentage, or use fewer sites"
        labels = official["train"].labels[used], official["test"].labels
        held = self.split.of_site(name, roster, seed, labels, len(CLASSES), remedy)
        chosen = {
            "train": (official["train"], used[held["train"]]),
            "validation": (official["train"], used[held["validation"]]),
            "test": (official["test"], held["test"]),
        }
        tokens = {
            split: tokenise(tokenizer, [texts.texts[row] for row in rows], texts.labels[rows], self.max_length)
            for split, (texts, rows) in chosen.items()
        }
        known = count_known(tokenizer, tokens)
        unknown = check_known(name, known, embeddings(tokenizer))
        absent = _log(name, tokens, known, self.max_length)
        warnings = [*source.warnings, *case_warnings(tokenizer), *unknown, *absent]
        facts = {
            "dataset": source.name,
            "embedded": source.embedded,
            "num_classes": len(CLASSES),
            "input_shape": [self.max_length],
            "tokenizer": fingerprint(tokenizer),
            "encoder_embedded": is_embedded(tokenizer),
            # Else a text could be tested on at one site and trained on at another.
            **({"digest": source.digest()} if self.split.shared else {}),
        }
        return TextSiteData(facts, tokens, tokenizer.pad_token_id, source.left_out, warnings)

    def _source(self) -> TextSource:
        """AG News or the headlines."""
        if self.dataset == "headlines":
            return make_headlines()
        names = "MADE-UP HEADLINES, NOT ON AG NEWS"
        return or_embedded(self._ag_news, make_headlines, self.on_missing, names, self.dataset_path, "headlines")

    def _ag_news(self) -> TextSource:
        return open_ag_news(data_root(self.dataset_path))

    def _sample(self, number: int, seed: int) -> Indices:
        """The training rows in use, ascending; the same at every site."""
        used = max(1, round(number * self.sample_percentage))
        order = np.random.default_rng(derive(seed, SAMPLE_STREAM)).permutation(number)
        return np.sort(order[:used])


def _log(site: str, tokens: Mapping[str, Tokens], known: Known, max_length: int) -> list[str]:
    """What became of the texts; returns a warning of classes that a site can learn nothing of."""
    cut = sum(int((part.lengths() >= max_length).sum()) for part in tokens.values())
    unknown = f"{100 * known.unknown / max(known.tokens, 1):.2f} % of them unknown"
    logger.info("%s: %d tokens, %s; %d texts have max_length=%d or more", site, known.tokens, unknown, cut, max_length)
    per_class = np.bincount(tokens["train"].labels, minlength=len(CLASSES))
    absent = [name for name, count in zip(CLASSES, per_class, strict=True) if not count]
    return [f"no text to train on is of {', '.join(absent)}"] if absent else []
