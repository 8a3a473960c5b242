"""Mixtures: shares, caps, stages, and copies that depend on nothing but the document."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.core.errors import UserError
from jaxlm.data.mixture import MixtureConfig, SourceSize, StageConfig, order_keys, plan_mixture, take

NUMBERS = np.arange(40_000)


def shares(plan):
    return [source.share for source in plan.sources]


def test_by_size_every_document_is_taken_once():
    plan = plan_mixture([SourceSize("web", 900), SourceSize("books", 100)], MixtureConfig())
    assert shares(plan) == pytest.approx([0.9, 0.1])
    assert [source.epochs for source in plan.sources] == [1.0, 1.0]
    assert (take(plan, "web", NUMBERS, seed=3) == 1).all()


def test_a_weight_is_the_number_of_epochs_at_temperature_one():
    plan = plan_mixture([SourceSize("web", 900), SourceSize("poems", 50, weight=3)], MixtureConfig())
    assert plan.num_tokens == 1050
    assert (take(plan, "poems", NUMBERS, seed=0) == 3).all()


def test_temperature_flattens_up_to_the_weights_alone():
    sizes = [SourceSize("en", 10_000), SourceSize("zh", 100)]
    found = [shares(plan_mixture(sizes, MixtureConfig(t, max_epochs=None)))[1] for t in (1.0, 2.0, 1000.0, None)]
    assert found[0] == pytest.approx(100 / 10_100)
    assert found[1] == pytest.approx(10 / 110)
    assert found[2] == pytest.approx(0.5, abs=0.01)
    assert found[3] == pytest.approx(0.5)


def test_what_the_cap_cuts_goes_to_the_others_in_proportion():
    sizes = [SourceSize("a", 6000), SourceSize("b", 3000), SourceSize("c", 10)]
    config = MixtureConfig(temperature=None, max_epochs=2, num_tokens=900)
    plan = plan_mixture(sizes, config)
    a, b, c = plan.sources
    assert c.epochs == 2
    assert (c.wanted_share, c.cut_tokens) == (pytest.approx(1 / 3), pytest.approx(280))
    assert a.taken_tokens == pytest.approx(440)
    assert (a.gained_tokens, b.gained_tokens) == (pytest.approx(140), pytest.approx(140))
    assert plan.num_tokens == pytest.approx(900)
    assert plan.short_tokens < 1e-3


def test_a_source_has_a_cap_of_its_own_and_all_capped_falls_short():
    sizes = [SourceSize("a", 100, max_epochs=1), SourceSize("b", 100)]
    plan = plan_mixture(sizes, MixtureConfig(max_epochs=2, num_tokens=1000))
    assert [source.epochs for source in plan.sources] == [1, 2]
    assert (plan.num_tokens, plan.short_tokens) == (300, 700)


def test_stages_have_their_own_weights_and_share_the_cap():
    stages = (StageConfig("start", 0.8), StageConfig("end", 0.2, (("web", 0.0), ("good", 1.0))))
    sizes = [SourceSize("web", 10_000), SourceSize("good", 100), SourceSize("code", 1000)]
    plan = plan_mixture(sizes, MixtureConfig(max_epochs=4, num_tokens=5000, stages=stages))
    web, good, code = plan.sources
    assert plan.stages == ("start", "end")
    assert web.stage_epochs[1] == 0
    assert good.stage_epochs[1] > good.stage_epochs[0]
    assert sum(good.stage_epochs) == pytest.approx(good.epochs)
    ends = [source.stage_epochs[1] * source.tokens for source in plan.sources]
    assert sum(ends) == pytest.approx(1000)
    json.dumps(plan.to_dict())
    # Through the stages a document is not taken again while another waits, and the stages sum to the whole.
    parts = [take(plan, "code", NUMBERS, seed=1, stage=k) for k in (0, 1)]
    assert (parts[0] + parts[1] == take(plan, "code", NUMBERS, seed=1)).all()
    assert parts[1].mean() == pytest.approx(code.stage_epochs[1], abs=0.01)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.floats(0.01, 50)), min_size=1, max_size=6),
    st.sampled_from([0.5, 1.0, 3.0, None]),
    st.floats(0.1, 8),
    st.integers(1, 10**10),
    st.lists(st.floats(0.1, 5), max_size=3),
)
def test_laws_of_every_plan(sizes, temperature, cap, num_tokens, parts):
    named = [SourceSize(f"s{i}", tokens, weight) for i, (tokens, weight) in enumerate(sizes)]
    stages = tuple(
        StageConfig(f"k{i}", part / math.fsum(parts), (("s0", float(i)),) if len(sizes) > 1 else ())
        for i, part in enumerate(parts)
    )
    plan = plan_mixture(named, MixtureConfig(temperature, cap, num_tokens, stages))
    room = cap * sum(size.tokens for size in named)
    assert sum(shares(plan)) == pytest.approx(1)
    assert all(source.epochs <= cap * (1 + 1e-6) for source in plan.sources)
    # Epochs are whole multiples of 2^-32, so totals are right to that part of the sizes.
    error = sum(size.tokens for size in named) * len(plan.stages) / 2**32
    assert plan.num_tokens <= min(num_tokens, room) * (1 + 1e-9) + error
    if not stages:  # a stage may have capped sources alone while another has room
        assert plan.num_tokens == pytest.approx(min(num_tokens, room), rel=1e-6, abs=2 * error)


def test_copies_are_a_function_of_seed_source_and_number():
    plan = plan_mixture([SourceSize("a", 100, 2.3), SourceSize("b", 100, 2.3)], MixtureConfig())
    copies = take(plan, "a", NUMBERS, seed=7)
    assert set(np.unique(copies).tolist()) == {2, 3}
    # 0.3 of n, within four standard deviations.
    assert copies.mean() == pytest.approx(2.3, abs=4 * math.sqrt(0.3 * 0.7 / len(NUMBERS)))
    order = np.random.default_rng(0).permutation(NUMBERS)
    assert (take(plan, "a", order, seed=7) == copies[order]).all()
    assert int(take(plan, "a", 12, seed=7)) == copies[12]
    for other in (take(plan, "b", NUMBERS, seed=7), take(plan, "a", NUMBERS, seed=8)):
        assert abs(np.corrcoef(copies, other)[0, 1]) < 0.03
    with pytest.raises(KeyError, match="'c' is not in the mixture of a, b"):
        take(plan, "c", NUMBERS, seed=7)


def test_more_weight_takes_all_that_less_weight_took():
    small, large = (plan_mixture([SourceSize("a", 100, w)], MixtureConfig()) for w in (0.3, 0.7))
    assert (take(small, "a", NUMBERS, seed=1) <= take(large, "a", NUMBERS, seed=1)).all()


def test_the_order_is_of_the_copy_alone():
    first = order_keys("a", NUMBERS, seed=1)
    assert len(np.unique(first)) == len(NUMBERS)
    assert (order_keys("a", NUMBERS[::-1], seed=1) == first[::-1]).all()
    for other in (
        order_keys("a", NUMBERS, seed=1, copy=1),
        order_keys("a", NUMBERS, seed=1, stage=1),
        order_keys("b", NUMBERS, seed=1),
        order_keys("a", NUMBERS, seed=2),
    ):
        ranks = np.stack([np.argsort(np.argsort(keys)) for keys in (first, other)])
        assert abs(np.asarray(np.corrcoef(ranks))[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("sizes", "config", "message"),
    [
        ([], MixtureConfig(), "no source"),
        ([SourceSize("a", 1), SourceSize("a", 2)], MixtureConfig(), "two sources are named 'a'"),
        ([SourceSize("a", 0)], MixtureConfig(), "'a' has no token to take"),
        ([SourceSize("a", 1, 0.0)], MixtureConfig(), "'a' has weight 0.0"),
        ([SourceSize("a", 1, math.inf)], MixtureConfig(), "'a' has weight inf"),
        ([SourceSize("a", 1, 1.0, 0.0)], MixtureConfig(), "max_epochs=0.0"),
        ([SourceSize("a", 1)], MixtureConfig(stages=(StageConfig("k", 1.0, (("b", 1.0),)),)), "which is no source"),
        ([SourceSize("a", 1)], MixtureConfig(stages=(StageConfig("k", 1.0, (("a", 0.0),)),)), "every source weight 0"),
    ],
)
def test_bad_sources_are_named(sizes, config, message):
    with pytest.raises(UserError, match=message):
        plan_mixture(sizes, config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": math.inf}, "use None"),
        ({"max_epochs": -1.0}, "max_epochs=-1.0"),
        ({"num_tokens": 0}, "num_tokens=0"),
        ({"stages": (StageConfig("a", 0.5),)}, "sum to 0.5"),
        ({"stages": (StageConfig("a", 0.5), StageConfig("a", 0.5))}, "two stages of one name"),
    ],
)
def test_bad_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MixtureConfig(**fields)


@pytest.mark.parametrize(
    ("share", "weights", "message"),
    [(0.0, (), "share=0.0"), (1.0, (("a", -1.0),), "weight -1.0"), (1.0, (("a", 1.0), ("a", 2.0)), "two weights")],
)
def test_bad_stages_are_refused(share, weights, message):
    with pytest.raises(ValueError, match=message):
        StageConfig("k", share, weights)
