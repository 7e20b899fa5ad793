# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Masks that depend on the key alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call, vmap

from custom.models.keyed_dropout import KeyedDropout, keyed_layers, keys, uniform


def test_the_numbers_are_those_of_splitmix64():
    """Its first three outputs for seed 0, as in the test vectors of Java's and the Xoshiro family's implementations."""
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    expected = [(output >> 40) * 2.0**-24 for output in published]
    assert uniform(torch.tensor(0), torch.tensor([1, 2, 3])).tolist() == expected


def test_keeps_the_mean_and_the_share():
    layer = KeyedDropout(0.3).train()
    out = layer(torch.ones(200, 500))
    assert abs(float((out > 0).float().mean()) - 0.7) < 0.005
    assert abs(float(out.mean()) - 1.0) < 0.01


def test_nothing_happens_in_evaluation():
    values = torch.randn(3, 4)
    assert torch.equal(KeyedDropout(0.9).eval()(values), values)


def test_every_layer_and_step_and_seed_has_a_key_of_its_own():
    model = nn.Sequential(KeyedDropout(), nn.Linear(2, 2), KeyedDropout())
    layers = keyed_layers(model)
    drawn = [key for seed in range(3) for step in range(4) for key in keys(layers, seed, step).values()]
    assert keys(layers, 0, 0).keys() == {"0.key", "2.key"}
    assert len(set(drawn)) == len(drawn) == 24
    assert min(drawn) >= 0


def test_the_key_does_not_travel():
    assert KeyedDropout().state_dict() == {}


def test_a_stacked_copy_draws_the_mask_it_would_draw_alone():
    layer = KeyedDropout(0.5).train()
    values, drawn = torch.randn(3, 7, 11), torch.tensor([5, 6, 2**62])
    together = vmap(lambda key, one: functional_call(layer, {"key": key}, (one,)))(drawn, values)
    for key, one, expected in zip(drawn, values, together, strict=True):
        layer.key.fill_(int(key))
        assert torch.equal(layer(one), expected)
    assert not torch.equal(together[0] == 0, together[1] == 0)
