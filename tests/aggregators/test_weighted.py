# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""WeightedAggregator: numbers by hand, and FLARE's InTimeAccumulateWeightedAggregator as the independent reference."""

from __future__ import annotations

import io
import itertools
import logging
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.aggregators.intime_accumulate_model_aggregator import InTimeAccumulateWeightedAggregator
from nvflare.app_common.aggregators.weighted_aggregation_helper import AggregationStatsKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from custom.aggregators.weighted import WeightedAggregator
from custom.errors import BundleError
from custom.keys import SAMPLES, STANDINGS
from tests.filters.flare_contexts import Server, submission


def accept(aggregator: Any, server: Server, site: str, *args: Any, **kwargs: Any) -> bool:
    return aggregator.accept(submission(site, 0, *args, **kwargs), server.context(site))


def aggregate(aggregator: Any, server: Server) -> DXO:
    return from_shareable(aggregator.aggregate(server.context()))


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_mean_is_weighted_by_samples_tensor_by_tensor():
    """w: (1*1 + 3*5) / 4 = 4 and (1*2 + 3*6) / 4 = 5; b only from site-2: 7; site-3 has nothing to contribute."""
    server, aggregator = Server({}), WeightedAggregator()
    assert accept(aggregator, server, "site-2", {"w": array(5, 6), "b": np.float32(7)}, 3, {"val_accuracy": 0.75})
    assert accept(aggregator, server, "site-1", {"w": array(1, 2)}, 1, {"val_accuracy": 0.25, "data": "mnist"})
    assert accept(aggregator, server, "site-3", {}, 0, {"val_accuracy": 0.0})
    result = aggregate(aggregator, server)
    assert result.data_kind == DataKind.WEIGHT_DIFF
    assert result.data["w"].tolist() == [4, 5]
    assert result.data["b"].tolist() == 7
    assert {value.dtype for value in result.data.values()} == {np.dtype(np.float32)}
    # (1 * 0.25 + 3 * 0.75) / 4 = 0.625
    assert result.meta == {MetaKey.NUM_STEPS_CURRENT_ROUND: 4, MetaKey.INITIAL_METRICS: {"val_accuracy": 0.625}}


def test_metrics_of_two_classes_are_weighted_by_their_own_samples():
    """9 of 10 ill and 1 of 2: 10 of 12, though both sites train on as many samples; counts are added up."""
    server, aggregator = Server({}), WeightedAggregator()
    for site, sensitivity, positives in (("site-1", 0.9, 10), ("site-2", 0.5, 2)):
        metrics = {"val_sensitivity": sensitivity, "val_positives": positives, "val_negatives": 1}
        assert accept(aggregator, server, site, {"w": array(1)}, 100, metrics)
    means = aggregate(aggregator, server).get_meta_prop(MetaKey.INITIAL_METRICS)
    assert means == {"val_sensitivity": pytest.approx(10 / 12), "val_positives": 12, "val_negatives": 2}


def test_sums_run_in_float64():
    """In float32, 2^24 + 1 is 2^24; in float64 the mean of 2^24, 1 and -2^24 is 1/3."""
    server, aggregator = Server({}), WeightedAggregator()
    for site, value in (("a", 2.0**24), ("b", 1.0), ("c", -(2.0**24))):
        accept(aggregator, server, site, {"w": array(value)})
    assert aggregate(aggregator, server).data["w"][0] == np.float32(1 / 3)


def random_updates() -> dict[str, tuple[dict[str, np.ndarray], int, dict[str, float]]]:
    generator = np.random.default_rng(0)
    return {
        site: (
            {"w": generator.normal(size=(50, 20)).astype(np.float32), "b": generator.normal(size=20)},
            weight,
            {"val_accuracy": float(generator.random())},
        )
        for site, weight in (("site-1", 7), ("site-10", 3001), ("site-2", 111))
    }


def test_the_order_of_arrival_does_not_change_a_bit():
    server, seen = Server({}), set()
    for order in itertools.permutations(random_updates().items()):
        aggregator = WeightedAggregator()
        for site, update in order:
            assert accept(aggregator, server, site, *update)
        result = aggregate(aggregator, server)
        seen.add((result.data["w"].tobytes(), result.data["b"].tobytes(), repr(result.meta)))
    assert len(seen) == 1


def test_agrees_with_flares_own_aggregator():
    server, ours = Server({}), WeightedAggregator()
    reference = InTimeAccumulateWeightedAggregator(expected_data_kind=DataKind.WEIGHT_DIFF)
    contexts = {}
    for name, aggregator in (("ours", ours), ("reference", reference)):
        aggregator.handle_event(EventType.START_RUN, server.context())
        for site, update in random_updates().items():
            assert accept(aggregator, server, site, *update)
        contexts[name] = server.context()
    mine = from_shareable(ours.aggregate(contexts["ours"])).data
    theirs = from_shareable(reference.aggregate(contexts["reference"])).data
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(mine[key], value, rtol=1e-4, atol=1e-6)
    stats = [fl_ctx.get_prop(AppConstants.AGGREGATION_STATS) for fl_ctx in contexts.values()]
    assert stats[0] == stats[1]
    assert stats[0][AggregationStatsKey.CONTRIBUTORS] == ["site-1", "site-10", "site-2"]


def test_what_it_refuses(caplog):
    server, aggregator = Server({}), WeightedAggregator()
    update = {"w": array(1)}
    not_a_dxo = Shareable()
    assert not aggregator.accept(not_a_dxo, server.context("site-1"))
    assert not accept(aggregator, server, "site-1", update, data_kind=DataKind.WEIGHTS)
    assert not accept(aggregator, server, "site-1", update, float("nan"))
    assert accept(aggregator, server, "site-1", update)
    assert not accept(aggregator, server, "site-1", update)
    server.enter(1)
    assert not accept(aggregator, server, "site-2", update)
    reasons = [record.message.split("(")[1].split(")")[0] for record in caplog.records]
    assert reasons == ["kind", "kind", "weight", "duplicate", "stale_round"]


def test_nobody_has_data():
    server, aggregator = Server({}), WeightedAggregator(min_contributions=2)
    assert accept(aggregator, server, "site-1", {}, 0)
    assert accept(aggregator, server, "site-2", {}, 0)
    result = aggregate(aggregator, server)
    assert (result.data_kind, result.data) == (DataKind.WEIGHT_DIFF, {})
    assert result.meta == {MetaKey.NUM_STEPS_CURRENT_ROUND: 0}
    assert EventType.FATAL_SYSTEM_ERROR not in dict(server.engine.events)


@pytest.mark.parametrize(
    ("current_round", "saved"), [(0, "no trained model was saved"), (4, "The last good model stays saved")]
)
def test_too_few_contributions_end_the_job(current_round, saved):
    server, aggregator = Server({}, current_round), WeightedAggregator(min_contributions=2)
    aggregator.accept(submission("site-2", current_round, {"w": array(1)}), server.context("site-2"))
    fl_ctx = server.context()
    assert from_shareable(aggregator.aggregate(fl_ctx)).data == {}
    reason = dict(server.engine.events)[EventType.FATAL_SYSTEM_ERROR]
    assert reason.startswith(f"round {current_round + 1}: 1 usable update(s) (site-2), but min_contributions is 2")
    assert saved in reason
    assert fl_ctx.get_prop(AppConstants.AGGREGATION_STATS)[AggregationStatsKey.ROUND] == current_round


def test_each_round_starts_empty():
    server, aggregator = Server({}), WeightedAggregator()
    accept(aggregator, server, "site-1", {"w": array(1)})
    aggregate(aggregator, server)
    assert accept(aggregator, server, "site-1", {"w": array(1)})
    aggregator.reset(server.context())
    assert accept(aggregator, server, "site-1", {"w": array(2)})
    assert aggregate(aggregator, server).data["w"].tolist() == [2]


def test_an_update_that_was_checked_for_too_long_does_not_count_in_the_next_round(caplog):
    """The round is closed while site-1's update is being checked."""
    server = Server({})

    class Slow(WeightedAggregator):
        def check_content(self, *args: Any) -> None:
            aggregate(self, server)

    aggregator = Slow()
    assert not accept(aggregator, server, "site-1", {"w": array(7)})
    assert "the round was closed while this update was checked" in caplog.text
    assert aggregate(aggregator, server).data == {}


def test_the_result_is_what_flares_metrics_writer_and_persistor_can_use():
    server, aggregator = Server({}), WeightedAggregator()
    accept(aggregator, server, "site-1", {"w": array(1)}, np.int64(3), {"val_accuracy": np.float32(0.5)})
    result = aggregator.aggregate(server.context())
    assert FLModelUtils.from_shareable(result).metrics == {"val_accuracy": 0.5}
    checkpoint = io.BytesIO()
    torch.save(from_shareable(result).meta, checkpoint)
    checkpoint.seek(0)
    assert torch.load(checkpoint, weights_only=True)[MetaKey.NUM_STEPS_CURRENT_ROUND] == 3


def test_a_variance_that_was_rounded_on_its_way_stays_a_variance():
    """1 - 1.001 = -0.001, from all sites, of which BatchNorm (epsilon 0.00001) makes NaN; a mean may be negative."""
    server, aggregator = Server({"bn.running_var": array(1, 1), "bn.running_mean": array(1)}), WeightedAggregator()
    for site in ("site-1", "site-2"):
        update = {"bn.running_var": array(-1.001, -0.5), "bn.running_mean": array(-2)}
        assert accept(aggregator, server, site, update, 1)
    result = aggregate(aggregator, server).data
    assert result["bn.running_var"].tolist() == [-1, -0.5]
    assert result["bn.running_mean"].tolist() == [-2]


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2", None])
def test_bad_arguments(value):
    with pytest.raises(BundleError, match="expected a whole number of at least 1"):
        WeightedAggregator(min_contributions=value).check()


def test_what_the_sites_reported_is_not_sent_to_the_others():
    """FLARE puts the aggregate's meta into the model that every site receives."""
    server, aggregator = Server({"w": np.zeros(1, np.float32)}), WeightedAggregator()
    context = server.context("site-1")
    context.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.META] = {"initial_metrics": {"val_accuracy": 0.5}}
    aggregator.handle_event(AppEventType.AFTER_SHAREABLE_TO_LEARNABLE, context)
    assert context.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.META] == {}


def send_all(aggregator: WeightedAggregator, server: Server, sent: dict[str, list[float]], **weights: float) -> None:
    for site, values in sent.items():
        assert accept(aggregator, server, site, {"w": array(*values)}, weights.get(site.replace("-", "_"), 1))


def test_a_blast_in_the_first_round_is_bounded_by_the_others_and_named(caplog):
    """Norms 1, 1, 1, 1 and 1e6: the last is scaled to 3. The mean is (4 - 3) / 5; the honest ones are not touched."""
    server, aggregator = Server({"w": np.zeros(2, np.float32)}), WeightedAggregator()
    honest = {f"site-{k}": [1, 0] for k in (1, 2, 4, 5)}
    with caplog.at_level(logging.INFO):
        for order in (1, -1):  # whoever answers first
            send_all(aggregator, server, dict(list({"site-3": [-1e6, 0], **honest}.items())[::order]))
            context = server.context()
            result = from_shareable(aggregator.aggregate(context)).data
            assert result["w"] == pytest.approx([0.2, 0])
    assert caplog.text.count("update of site-3 clipped from norm 1e+06 to 3") == 2
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert ["site-3" in text and "1e+06 x" in text for text in warnings] == [True]
    facts = context.get_prop(STANDINGS)
    assert facts["site-3"] == {
        "norm": 1e6,
        "norm_ratio": 1e6,
        "cosine": -1,
        "samples_ratio": 1,
        "clipped_to": pytest.approx(3),
    }
    assert facts["site-1"] == {"norm": 1, "norm_ratio": 1, "cosine": 1, "samples_ratio": 1}


def test_an_honest_round_is_the_mean_bit_for_bit():
    """Clipping leaves what is within the limit as it is."""
    rng = np.random.default_rng(5)
    sent = {f"site-{k}": rng.normal(size=30).astype(np.float32) for k in range(1, 6)}
    results = []
    for ratio in (3.0, None):
        server, aggregator = Server({"w": np.zeros(30, np.float32)}), WeightedAggregator(max_norm_ratio=ratio)
        for k, (site, values) in enumerate(sent.items(), start=1):
            assert accept(aggregator, server, site, {"w": values}, k)
        results.append(aggregate(aggregator, server).data["w"])
    assert np.array_equal(*results)


def test_statistics_have_a_limit_of_their_own():
    """Weights of norm 1 beside statistics of norm 1000 and 1e6, which become 3000: (1000 + 1000 + 3000) / 3."""
    server = Server({"w": np.zeros(1, np.float32), "bn.running_mean": np.zeros(1, np.float32)})
    aggregator = WeightedAggregator()
    for site, value in (("site-1", 1000), ("site-2", 1000), ("site-3", 1e6)):
        assert accept(aggregator, server, site, {"w": array(1), "bn.running_mean": array(value)}, 1)
    result = aggregate(aggregator, server).data
    assert result["w"].tolist() == [1]
    assert result["bn.running_mean"] == pytest.approx([5000 / 3])


def test_a_claim_of_samples_is_named_and_bounded_by_one_setting(caplog):
    """Three sites of 1 sample and one that claims 1e5, and sends 5: with the setting it counts as 2: (3 + 10) / 5."""
    sent = {"site-1": [1], "site-2": [1], "site-3": [1], "site-4": [5]}
    for most, expected in ((None, 5), (2.0, 13 / 5)):
        server, aggregator = Server({"w": np.zeros(1, np.float32)}), WeightedAggregator(max_samples_ratio=most)
        send_all(aggregator, server, sent, site_4=1e5)
        assert aggregate(aggregator, server).data["w"] == pytest.approx([expected], rel=1e-4)
    assert "site-4: it says that it has 1e+05 x as many samples as the others' median" in caplog.text


def test_a_rule_by_its_name():
    """Of 1, 2, 3, 4 and -9: the median is 2, and so is the mean of the three in the middle."""
    sent = {f"site-{k}": [value] for k, value in enumerate((1, 2, 3, 4, -9), start=1)}
    for rule in ("median", "trimmed_mean"):
        server, aggregator = Server({"w": np.zeros(1, np.float32)}), WeightedAggregator(rule=rule)
        send_all(aggregator, server, sent, site_5=1e9)
        assert aggregate(aggregator, server).data["w"].tolist() == [2]


@pytest.mark.parametrize(
    "arguments", [{"rule": "mode"}, {"rule": None}, {"max_norm_ratio": 0.5}, {"max_samples_ratio": "2"}]
)
def test_bad_settings_of_the_defence(arguments):
    with pytest.raises(BundleError) as error:
        WeightedAggregator(**arguments).check()
    assert error.value.code == "setting-value"


def test_the_mean_without_outliers_leaves_out_a_site_while_it_stands_out(caplog):
    """Round 1: -20 stands out at once, and the mean is that of 1, 2 and 3 (weights 1, 1, 2): 9 / 4. Its sums are then
    log(20 / 2 / 2) = 1.61 and (1 - -1) - 0.2 = 1.8; from then on it moves like the others, and 0.4 and 0.2 go in a
    round: 3.41, 2.81, 2.21, 1.61, 1.01 < 1.39, and it counts again, 11 / 5."""
    server = Server({"w": np.zeros(1, np.float32)})
    aggregator = WeightedAggregator(rule="mean_without_outliers")
    means = []
    for number in range(5):
        server.enter(number)
        for site, value in (("site-1", 1), ("site-2", 2), ("site-3", 3), ("site-4", -20 if number == 0 else 2)):
            weight = 2 if site == "site-3" else 1
            assert aggregator.accept(submission(site, number, {"w": array(value)}, weight), server.context(site))
        means.append(aggregate(aggregator, server).data["w"].item())
    assert means == pytest.approx([9 / 4, 9 / 4, 9 / 4, 9 / 4, 11 / 5])
    assert caplog.text.count("site-4: its update") == 1


def test_the_mean_without_outliers_keeps_all_where_half_of_them_stand_out():
    """Two of four: who of them is odd is not known."""
    server, aggregator = Server({"w": np.zeros(1, np.float32)}), WeightedAggregator(rule="mean_without_outliers")
    aggregator._outliers.standing_out = {"site-1", "site-2"}
    send_all(aggregator, server, {"site-1": [1], "site-2": [1], "site-3": [2], "site-4": [2]})
    assert aggregate(aggregator, server).data["w"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("samples", "ends"),
    [
        ({"site-1": {"train": 0}, "site-2": {"train": 0, "test": 5}}, True),
        ({"site-1": {"train": 0}, "site-2": {"train": 1}}, False),
        ({"site-1": {"writers": 3}}, False),
        ({}, False),
    ],
)
def test_a_job_without_any_training_sample_ends_before_its_first_round(samples, ends):
    server, aggregator = Server({"w": np.zeros(1, np.float32)}), WeightedAggregator()
    server.set(SAMPLES, samples)
    aggregator.handle_event(AppEventType.ROUND_STARTED, server.context())
    reason = dict(server.engine.events).get(EventType.FATAL_SYSTEM_ERROR, "")
    assert reason.endswith("[data-too-small]") == ends
