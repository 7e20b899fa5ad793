# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Held-out writers, before and after."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from custom.data.writers import WriterPool
from custom.errors import BundleError
from custom.learning import stacked_copies
from custom.learning.device import place
from custom.learning.personalize import Personalization
from tests.writers import CPU, make_writers, small_cnn

POOL = WriterPool(make_writers([12, 2, 31], side=8), np.array([0, 1, 2]), seed=3)


def cnn():
    return place(small_cnn(), CPU)


def test_scores_the_query_samples_before_and_after_sgd_on_the_support_samples():
    """Against a loop of torch's own for one writer, without dropout."""
    personalization = Personalization(2, 0.1, batch_size=100, support_fraction=0.25)
    model = place(small_cnn(dropout=0.0), CPU)
    pool = WriterPool(POOL.writers, np.array([2]), seed=3)
    images, labels = pool.load(0, CPU)
    support, query = pool.support_and_query(0, 0.25)
    result = personalization.run(model, pool, CPU, stacked=False)
    assert (result.support, result.query) == ([len(support)], [len(query)])
    assert result.unseen == [sum(label not in labels[support].tolist() for label in labels[query].tolist())] == [0]

    def scores():
        with torch.no_grad():
            logits = model(images[query])
        loss = float(functional.cross_entropy(logits, labels[query]))
        return loss, float((logits.argmax(1) == labels[query]).float().mean())

    assert (result.initial_loss[0], result.initial_accuracy[0]) == pytest.approx(scores())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(model(images[support]), labels[support]).backward()
        optimizer.step()
    assert (result.personalized_loss[0], result.personalized_accuracy[0]) == pytest.approx(scores(), rel=1e-5)
    assert result.personalized_loss[0] != result.initial_loss[0]


def test_query_samples_of_classes_without_a_support_sample_are_counted():
    """Four classes of one sample each are divided 2 and 2, and none of the 2 to score can have been learned."""
    writers = replace(make_writers([4], side=8), labels=np.arange(4))
    result = Personalization(1).run(cnn(), WriterPool(writers, np.array([0]), seed=0), CPU, stacked=False)
    assert (result.support, result.query, result.unseen) == ([2], [2], [2])


def test_all_at_once_is_one_after_the_other():
    one, together = (Personalization().run(cnn(), POOL, CPU, stacked=stacked) for stacked in (False, True))
    assert one.query == together.query == [4, 1, 15]
    for name in ("initial_loss", "initial_accuracy", "personalized_loss", "personalized_accuracy"):
        assert getattr(together, name) == pytest.approx(getattr(one, name), rel=1e-5)


def test_the_model_is_left_as_it_was():
    model = cnn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Personalization().run(model, POOL, CPU, stacked=False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_means_count_every_writer_alike():
    result = Personalization().run(cnn(), POOL, CPU, stacked=False)
    assert result.means()["writers"] == 3
    assert result.means()["initial_accuracy"] == pytest.approx(sum(result.initial_accuracy) / 3)


def test_when_it_is_due():
    assert [index for index in range(12) if Personalization(eval_every=5).is_due(index)] == [0, 5, 10]
    assert not any(Personalization(eval_every=0).is_due(index) for index in range(12))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"personalization_epochs": 0}, "personalization_epochs"),
        ({"personalization_lr": -1.0}, "personalization_lr"),
        ({"support_fraction": 1.0}, "support_fraction"),
        ({"support_fraction": "half"}, "support_fraction"),
        ({"eval_every": -1}, "eval_every"),
    ],
)
def test_bad_settings_are_named(settings, key):
    with pytest.raises(BundleError, match=key):
        Personalization(**settings).check()


@pytest.mark.parametrize("stacked", [False, True])
def test_a_writer_whose_model_diverges_is_dropped_and_counted(stacked):
    good = Personalization(1, 0.01).run(cnn(), POOL, CPU, stacked=stacked)
    bad = Personalization(8, 1e20).run(cnn(), POOL, CPU, stacked=stacked)
    assert (good.dropped, len(good.query)) == (0, 3)
    assert bad.dropped > 0
    assert bad.dropped + len(bad.query) == 3
    assert all(map(math.isfinite, bad.personalized_loss))
    assert bad.means()["writers"] == len(bad.query)


def test_long_query_sets_are_scored_in_parts(monkeypatch):
    whole = Personalization().run(cnn(), POOL, CPU, stacked=True)
    monkeypatch.setattr(stacked_copies, "SCORED_AT_ONCE", 4)
    parts = Personalization().run(cnn(), POOL, CPU, stacked=True)
    assert parts.initial_loss == pytest.approx(whole.initial_loss)
    assert parts.personalized_accuracy == whole.personalized_accuracy
