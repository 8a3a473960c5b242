"""Losses of preferences: values and gradients against the published equations in float64, and their laws."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.losses import preference
from jaxlm.losses.tokens import masked_sum
from tests.losses.complex_step import gradient, log_sigmoid, sigmoid


def agree(fn, reference, *arrays, rtol=1e-5):
    """Value and gradient by every array, of the sum over fn's output under random weights."""
    weights = np.random.default_rng(9).uniform(0.5, 1.5, np.shape(reference(*arrays)))

    def total(*xs):
        return jnp.sum(fn(*xs) * jnp.asarray(weights, jnp.float32))

    f32 = [jnp.asarray(x, jnp.float32) for x in arrays]
    exact = [np.asarray(x, np.float64) for x in f32]
    np.testing.assert_allclose(fn(*f32), reference(*exact), rtol=rtol, atol=1e-6)
    grads = jax.jit(jax.grad(total, argnums=tuple(range(len(arrays)))))(*f32)
    for i, found in enumerate(grads):
        wanted = gradient(lambda x, i=i: np.sum(weights * reference(*exact[:i], x, *exact[i + 1 :])), exact[i])
        assert np.linalg.norm(found - wanted) <= rtol * np.linalg.norm(wanted)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    return rng.normal(size=7) * 3, rng.normal(size=7) * 3


PAIR_LOSSES = {
    "bradley_terry": (preference.bradley_terry_loss, lambda c, r: -log_sigmoid(c - r)),
    "centre": (preference.reward_centre_penalty, lambda c, r: (c + r) ** 2),
    "dpo": (
        lambda p, q: preference.dpo_loss(p, q, beta=0.3),
        lambda p, q: -log_sigmoid(0.3 * (p - q)),
    ),
    "cdpo": (
        lambda p, q: preference.cdpo_loss(p, q, beta=0.3, label_noise=0.2),
        lambda p, q: -0.8 * log_sigmoid(0.3 * (p - q)) - 0.2 * log_sigmoid(-0.3 * (p - q)),
    ),
    "robust": (
        lambda p, q: preference.robust_dpo_loss(p, q, beta=0.3, label_noise=0.2),
        lambda p, q: (-0.8 * log_sigmoid(0.3 * (p - q)) + 0.2 * log_sigmoid(-0.3 * (p - q))) / 0.6,
    ),
    "ipo": (
        lambda p, q: preference.ipo_loss(p, q, beta=0.4),
        lambda p, q: (p - q - 1 / 0.8) ** 2,
    ),
    "simpo": (
        lambda c, r: preference.simpo_loss(c, r, beta=2.0, margin=0.5),
        lambda c, r: -log_sigmoid(2.0 * (c - r) - 0.5),
    ),
}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_pair_losses_and_gradients_equal_the_equations(name, pairs):
    agree(*PAIR_LOSSES[name], *pairs)


def test_orpo_equals_the_odds_ratio():
    rng = np.random.default_rng(1)
    chosen, rejected = -rng.uniform(0.005, 6, 12), -rng.uniform(0.005, 6, 12)

    def reference(c, r):
        odds_c, odds_r = np.exp(c) / (1 - np.exp(c)), np.exp(r) / (1 - np.exp(r))
        return -log_sigmoid(np.log(odds_c) - np.log(odds_r))

    agree(preference.orpo_loss, reference, chosen, rejected)


@pytest.mark.parametrize("ends", [(-0.0, -1.0), (-1.0, -0.0), (-200.0, -0.1), (-0.0, -0.0), (-1e-9, -300.0)])
def test_orpo_stays_finite_at_the_ends(ends):
    value, grads = jax.value_and_grad(lambda c, r: preference.orpo_loss(c, r), argnums=(0, 1))(*map(jnp.float32, ends))
    assert np.isfinite(value)
    assert np.isfinite(grads).all()


@pytest.mark.parametrize("reference_point", [0.0, 1.3])
def test_kto_equals_the_equation(reference_point):
    rng = np.random.default_rng(2)
    policy, ref = rng.normal(size=8) * 4, rng.normal(size=8) * 4
    good = np.array([1, 0, 1, 1, 0, 0, 1, 0])

    def fn(p, q):
        return preference.kto_loss(
            p, q, jnp.asarray(good), reference_point, beta=0.2, desirable_weight=1.3, undesirable_weight=0.7
        )

    def reference(p, q):
        reward = p - q
        return np.where(
            good == 1,
            1.3 - 1.3 * sigmoid(0.2 * (reward - reference_point)),
            0.7 - 0.7 * sigmoid(0.2 * (reference_point - reward)),
        )

    agree(fn, reference, policy, ref)


def test_kto_reference_point_is_the_clamped_mean_without_gradient():
    policy, ref = jnp.asarray([1.0, 2.0, jnp.nan]), jnp.asarray([0.5, 0.5, 0.0])
    mask = jnp.asarray([1.0, 1.0, 0.0])
    assert preference.kto_reference_point(policy, ref, mask) == 1.0
    assert preference.kto_reference_point(ref[:2], policy[:2]) == 0.0
    assert not jax.grad(lambda p: preference.kto_reference_point(p, ref[:2]))(policy[:2]).any()


def test_step_reward_loss_is_binary_cross_entropy():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (3, 4))
    agree(
        lambda x: preference.step_reward_loss(x, jnp.asarray(labels)),
        lambda x: -(labels * np.log(sigmoid(x)) + (1 - labels) * np.log(1 - sigmoid(x))),
        rng.normal(size=(3, 4)) * 3,
    )


def test_margins_shift_the_difference(pairs):
    chosen, rejected = (jnp.asarray(x, jnp.float32) for x in pairs)
    margin = jnp.linspace(0, 2, 7)
    found = preference.bradley_terry_loss(chosen, rejected, margin)
    np.testing.assert_allclose(found, preference.bradley_terry_loss(chosen - margin, rejected), rtol=1e-6)


# --- rankings


def reference_plackett_luce(rewards, lengths):
    out = np.zeros(len(rewards), rewards.dtype)
    for b, length in enumerate(lengths):
        for i in range(length):
            out[b] -= np.log(np.exp(rewards[b, i]) / np.sum(np.exp(rewards[b, i:length])))
    return out


def test_plackett_luce_equals_the_product_of_choices():
    rng = np.random.default_rng(4)
    lengths = [1, 2, 5, 4]
    mask = (np.arange(5) < np.array(lengths)[:, None]).astype(np.float32)
    agree(
        lambda r: preference.plackett_luce_loss(r, jnp.asarray(mask)),
        lambda r: reference_plackett_luce(r, lengths),
        rng.normal(size=(4, 5)) * 2,
    )


def test_plackett_luce_probabilities_of_all_orders_sum_to_1():
    rewards = np.random.default_rng(5).normal(size=4)
    orders = np.array([rewards[list(order)] for order in itertools.permutations(range(4))], np.float32)
    losses = preference.plackett_luce_loss(jnp.asarray(orders), jnp.ones((24, 4)))
    np.testing.assert_allclose(np.exp(-np.asarray(losses, np.float64)).sum(), 1, rtol=1e-6)


def test_equal_rewards_cost_log_factorial():
    losses = preference.plackett_luce_loss(jnp.full((1, 5), 3.0), jnp.ones((1, 5)))
    np.testing.assert_allclose(losses, math.log(math.factorial(5)), rtol=1e-6)


def test_all_pairs_equals_the_mean_over_pairs_without_ties():
    rng = np.random.default_rng(6)
    ranks = np.array([[0, 1, 2, 3], [2, 0, 0, 1], [1, 0, 9, 9], [0, 0, 9, 9]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]], np.float32)

    def reference(rewards):
        out = np.zeros(4, rewards.dtype)
        for b in range(4):
            better = [
                (i, j) for i in range(4) for j in range(4) if mask[b, i] and mask[b, j] and ranks[b, i] < ranks[b, j]
            ]
            out[b] = sum(-log_sigmoid(rewards[b, i] - rewards[b, j]) for i, j in better) / max(len(better), 1)
        return out

    agree(
        lambda r: preference.all_pairs_loss(r, jnp.asarray(ranks), jnp.asarray(mask)),
        reference,
        rng.normal(size=(4, 4)),
    )
    assert preference.num_pairs(jnp.asarray(ranks), jnp.asarray(mask)).tolist() == [6, 5, 1, 0]


def test_lists_of_two_are_bradley_terry(pairs):
    rewards = jnp.asarray(np.stack(pairs, axis=1), jnp.float32)
    expected = preference.bradley_terry_loss(rewards[:, 0], rewards[:, 1])
    ranks = jnp.broadcast_to(jnp.arange(2), rewards.shape)
    np.testing.assert_allclose(preference.plackett_luce_loss(rewards, jnp.ones((7, 2))), expected, rtol=2e-6)
    np.testing.assert_allclose(preference.all_pairs_loss(rewards, ranks, jnp.ones((7, 2))), expected, rtol=2e-6)


def test_a_common_shift_of_rewards_changes_no_ranking_loss(pairs):
    rewards = jnp.asarray(np.stack(pairs, axis=1), jnp.float32)
    ones, ranks = jnp.ones((7, 2)), jnp.broadcast_to(jnp.arange(2), rewards.shape)
    for fn in (lambda r: preference.plackett_luce_loss(r, ones), lambda r: preference.all_pairs_loss(r, ranks, ones)):
        np.testing.assert_allclose(fn(rewards + 4), fn(rewards), rtol=1e-5, atol=1e-6)


# --- laws of the pair losses


def test_log_2_at_equal_policies():
    x = jnp.asarray([0.0, -3.0, 7.0])
    for loss in (
        preference.dpo_loss(x, x, beta=0.1),
        preference.cdpo_loss(x, x, beta=0.1, label_noise=0.3),
        preference.robust_dpo_loss(x, x, beta=0.1, label_noise=0.3),
        preference.simpo_loss(x, x, beta=2.0, margin=0.0),
        preference.bradley_terry_loss(x, x),
        preference.orpo_loss(-1 - x**2, -1 - x**2),
    ):
        np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)
    kto = preference.kto_loss(x, x, jnp.asarray([1, 0, 1]), 0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=3.0)
    np.testing.assert_allclose(kto, [0.5, 1.5, 0.5], rtol=1e-6)


def test_swapping_the_answers_costs_the_logit(pairs):
    """-log s(-h) = -log s(h) + h, and the gradients by the two policies' ratios are opposite."""
    policy, ref = (jnp.asarray(x, jnp.float32) for x in pairs)
    swapped = preference.dpo_loss(-policy, -ref, beta=0.5) - preference.dpo_loss(policy, ref, beta=0.5)
    np.testing.assert_allclose(swapped, 0.5 * (policy - ref), rtol=1e-4, atol=1e-6)
    by_policy, by_ref = jax.grad(lambda p, q: jnp.sum(preference.dpo_loss(p, q, beta=0.5)), (0, 1))(policy, ref)
    np.testing.assert_allclose(by_policy, -by_ref, rtol=1e-6)


def test_only_the_difference_to_the_reference_counts(pairs):
    policy, ref = (jnp.asarray(x, jnp.float32) for x in pairs)
    for fn in (preference.dpo_loss, preference.ipo_loss):
        np.testing.assert_allclose(fn(policy + 2, ref + 2, beta=0.3), fn(policy, ref, beta=0.3), rtol=2e-5, atol=1e-5)


def test_no_noise_is_dpo_and_ipo_is_0_at_its_margin(pairs):
    policy, ref = (jnp.asarray(x, jnp.float32) for x in pairs)
    plain = preference.dpo_loss(policy, ref, beta=0.3)
    np.testing.assert_allclose(preference.cdpo_loss(policy, ref, beta=0.3, label_noise=0.0), plain)
    np.testing.assert_allclose(preference.robust_dpo_loss(policy, ref, beta=0.3, label_noise=0.0), plain)
    assert preference.ipo_loss(ref + 2.5, ref, beta=0.2).max() < 1e-11


def test_cdpo_is_least_where_its_docstring_says():
    least = math.log(0.8 / 0.2) / 0.5
    grad = jax.grad(lambda h: preference.cdpo_loss(h, jnp.zeros(()), beta=0.5, label_noise=0.2))(jnp.float32(least))
    assert abs(grad) < 1e-7


def test_robust_dpo_is_unbiased_under_noise(pairs):
    policy, ref = (jnp.asarray(x, jnp.float32) for x in pairs)
    args = {"beta": 0.3, "label_noise": 0.3}
    mean = 0.7 * preference.robust_dpo_loss(policy, ref, **args) + 0.3 * preference.robust_dpo_loss(
        -policy, -ref, **args
    )
    np.testing.assert_allclose(mean, preference.dpo_loss(policy, ref, beta=0.3), rtol=1e-5)
    with pytest.raises(ValueError, match=r"label_noise=0\.5"):
        preference.robust_dpo_loss(policy, ref, beta=0.3, label_noise=0.5)


def test_large_margins_stay_finite():
    h = jnp.asarray([-1e4, 1e4])
    value, grad = jax.value_and_grad(lambda h: jnp.sum(preference.dpo_loss(h, jnp.zeros(2), beta=1.0)))(h)
    assert value == 1e4
    np.testing.assert_allclose(grad, [-1, 0])


def test_sequence_logprobs_sum_or_average_counted_tokens_alone():
    logprobs = jnp.asarray([[-1.0, -2.0, jnp.nan], [-3.0, -jnp.inf, -1.0], [jnp.nan, 0.0, 0.0]])
    mask = jnp.asarray([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert preference.sequence_logprobs(logprobs, mask).tolist() == [-3, -4, 0]
    assert preference.sequence_logprobs(logprobs, mask, mean=True).tolist() == [-1.5, -2, 0]


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(pairs):
    """Sums by the global count, with rows that do not count: any cut of the batch is the same number."""
    policy, ref = (jnp.asarray(np.append(x, np.nan), jnp.float32) for x in pairs)
    mask = jnp.asarray([1.0] * 7 + [0.0])

    def part(scale, rows):
        losses = preference.dpo_loss(policy[rows] * scale, ref[rows], beta=0.3)
        return masked_sum(losses, mask[rows]) / jnp.sum(mask)

    whole = jax.value_and_grad(part)(jnp.float32(1.1), slice(0, 8))
    parts = [jax.value_and_grad(part)(jnp.float32(1.1), slice(i, i + 2)) for i in range(0, 8, 2)]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-6)
