"""Laws of sampling: limits are exact, truncations keep the sets they say, frequencies match the distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.generate.sampling import SamplingConfig, filter_logits, penalise, sample_token


@pytest.fixture
def logits_bv():
    return jnp.asarray(np.random.default_rng(0).normal(0, 2, (5, 37)), jnp.float32)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def test_temperature_zero_is_argmax(logits_bv):
    token_b, _ = sample_token(keys(5), logits_bv, SamplingConfig(temperature=0, top_p=0.3))
    np.testing.assert_array_equal(token_b, np.argmax(logits_bv, -1))


@pytest.mark.parametrize("config", [SamplingConfig(top_k=1), SamplingConfig(top_p=1e-6), SamplingConfig(min_p=1.0)])
def test_narrowest_truncations_are_greedy(logits_bv, config):
    for seed in range(5):
        token_b, _ = sample_token(keys(5, seed), logits_bv, config)
        np.testing.assert_array_equal(token_b, np.argmax(logits_bv, -1))


def test_a_tie_keeps_k_tokens_and_greedy_takes_the_first():
    logits_bv = jnp.zeros((1, 8))
    kept_bv = filter_logits(logits_bv, SamplingConfig(top_k=3))
    np.testing.assert_array_equal(np.isfinite(kept_bv[0]), [True] * 3 + [False] * 5)
    assert sample_token(keys(1), logits_bv, SamplingConfig(top_k=1))[0] == 0


def test_logprob_is_the_models_own(logits_bv):
    config = SamplingConfig(temperature=0.3, top_k=5, top_p=0.8, repetition_penalty=2.0)
    token_b, logprob_b = sample_token(keys(5), logits_bv, config, jnp.ones(logits_bv.shape, bool))
    own_bv = jax.nn.log_softmax(logits_bv, axis=-1)
    np.testing.assert_allclose(logprob_b, own_bv[np.arange(5), token_b], rtol=1e-5)


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_top_p_keeps_the_smallest_set_of_that_mass(logits_bv, top_p):
    kept_bv = np.isfinite(filter_logits(logits_bv, SamplingConfig(top_p=top_p)))
    for probs_v, kept_v in zip(np.asarray(jax.nn.softmax(logits_bv, -1)), kept_bv, strict=True):
        assert probs_v[kept_v].sum() >= top_p - 1e-6
        if kept_v.sum() > 1:
            assert probs_v[kept_v].sum() - probs_v[kept_v].min() < top_p + 1e-6
        if not kept_v.all():
            assert probs_v[kept_v].min() >= probs_v[~kept_v].max()


def test_top_p_on_ties_keeps_the_lower_ids():
    kept_bv = filter_logits(jnp.zeros((1, 10)), SamplingConfig(top_p=0.25))
    np.testing.assert_array_equal(np.isfinite(kept_bv[0]), [True] * 3 + [False] * 7)
    one_hot_bv = jnp.where(jnp.arange(10) == 4, 0.0, -jnp.inf)[None]
    assert np.isfinite(filter_logits(one_hot_bv, SamplingConfig(top_p=0.9))).sum() == 1


def test_order_top_p_counts_the_mass_that_top_k_left():
    logits_bv = jnp.log(jnp.asarray([[0.4, 0.3, 0.2, 0.1]]))
    both_bv = filter_logits(logits_bv, SamplingConfig(top_k=2, top_p=0.55))  # 0.4 / 0.7 = 0.571 is enough
    np.testing.assert_array_equal(np.isfinite(both_bv[0]), [True, False, False, False])
    alone_bv = filter_logits(logits_bv, SamplingConfig(top_p=0.55))
    np.testing.assert_array_equal(np.isfinite(alone_bv[0]), [True, True, False, False])


def test_min_p_is_a_fraction_of_the_best():
    logits_bv = jnp.log(jnp.asarray([[0.5, 0.26, 0.24]]))
    np.testing.assert_array_equal(
        np.isfinite(filter_logits(logits_bv, SamplingConfig(min_p=0.5))[0]), [True, True, False]
    )


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(),
        SamplingConfig(temperature=0.5),
        SamplingConfig(top_k=4),
        SamplingConfig(top_p=0.8),
        SamplingConfig(min_p=0.2, temperature=1.5),
        SamplingConfig(temperature=0.7, top_k=6, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
    ],
)
def test_frequencies_match_the_truncated_distribution(config):
    logits_v = np.asarray([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0], np.float32)
    seen_v = np.arange(8) % 2 == 0
    n = 20_000
    logits_nv, seen_nv = jnp.tile(logits_v, (n, 1)), jnp.tile(seen_v, (n, 1))
    token_n, _ = jax.jit(sample_token, static_argnums=2)(keys(n), logits_nv, config, seen_nv)
    counts_v = np.bincount(token_n, minlength=8)

    scores = logits_v.astype(np.float64)  # the same rule, written again in NumPy
    if config.repetition_penalty != 1:
        scores = np.where(seen_v, np.where(scores > 0, scores / 1.3, scores * 1.3), scores)
    probs = np.exp(scores / config.temperature)
    probs /= probs.sum()
    if config.top_k:
        probs[np.argsort(-probs)[config.top_k :]] = 0
        probs /= probs.sum()
    if config.top_p:
        order = np.argsort(-probs)
        probs[order[1 + np.searchsorted(np.cumsum(probs[order]), config.top_p) :]] = 0
        probs /= probs.sum()
    if config.min_p:
        probs[probs < config.min_p * probs.max()] = 0
        probs /= probs.sum()
    assert counts_v[probs == 0].sum() == 0
    expected = n * probs[probs > 0]
    chi2 = ((counts_v[probs > 0] - expected) ** 2 / expected).sum()
    assert chi2 < 30, (chi2, counts_v, n * probs)  # 7 degrees of freedom: 30 is passed once in 10,000


def test_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    logits_bv = jnp.asarray([[2.0, -2.0, 1.0]])
    out_bv = penalise(logits_bv, jnp.asarray([[True, True, False]]), 2.0)
    np.testing.assert_allclose(out_bv, [[1.0, -4.0, 1.0]])


def test_a_row_depends_on_its_own_key_and_logits_only(logits_bv):
    together, _ = sample_token(keys(5), logits_bv, SamplingConfig())
    for row in range(5):
        alone, _ = sample_token(keys(5)[row : row + 1], logits_bv[row : row + 1], SamplingConfig())
        assert alone[0] == together[row]


def test_a_scalar_key_is_folded_with_the_row():
    token_b, _ = sample_token(jax.random.key(0), jnp.zeros((8, 1000)), SamplingConfig())
    again_b, _ = sample_token(jax.random.key(0), jnp.zeros((3, 1000)), SamplingConfig())
    assert len(set(token_b.tolist())) > 6
    np.testing.assert_array_equal(again_b, token_b[:3])


def test_a_tiny_temperature_stays_finite(logits_bv):
    token_b, logprob_b = sample_token(keys(5), logits_bv, SamplingConfig(temperature=1e-30))
    np.testing.assert_array_equal(token_b, np.argmax(logits_bv, -1))
    assert np.isfinite(logprob_b).all()


@pytest.mark.parametrize(
    "field",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
    ],
)
def test_bad_values_are_named(field):
    name, value = next(iter(field.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        SamplingConfig(**field)
