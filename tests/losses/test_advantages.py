"""Advantages, whitening and group baselines against loops in float64, and their laws."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.losses import advantages as adv

B, T = 3, 7
MASK = np.array([[0, 0, 1, 1, 1, 1, 0], [1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0]], np.float32)


def f32(*arrays):
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def reference_gae(rewards, values, mask, bootstrap, gamma, lam):
    """The sum of eq. 16 written out over each row's own tokens: no recursion."""
    advantages, returns = np.zeros(rewards.shape), np.zeros(rewards.shape)
    for b in range(len(rewards)):
        places = np.flatnonzero(mask[b])
        r, v = rewards[b, places], np.append(values[b, places], bootstrap[b])
        deltas = r + gamma * v[1:] - v[:-1]
        for i, place in enumerate(places):
            advantages[b, place] = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[i:]))
            returns[b, place] = advantages[b, place] + v[i]
    return advantages, returns


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_gae_equals_the_sum_of_temporal_differences(gamma, lam):
    rng = np.random.default_rng(0)
    rewards, values, bootstrap = rng.normal(size=(B, T)), rng.normal(size=(B, T)), rng.normal(size=B)
    found = adv.gae(*f32(rewards, values, MASK, bootstrap), gamma=gamma, gae_lambda=lam)
    wanted = reference_gae(rewards, values, MASK, bootstrap, gamma, lam)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    ended = adv.gae(*f32(rewards, values, MASK), gamma=gamma, gae_lambda=lam)
    np.testing.assert_allclose(
        ended[0], reference_gae(rewards, values, MASK, np.zeros(B), gamma, lam)[0], rtol=1e-5, atol=1e-6
    )


def test_lambda_1_gives_monte_carlo_returns_whatever_the_values():
    rng = np.random.default_rng(1)
    rewards, values, mask = f32(rng.normal(size=(B, T)), rng.normal(size=(B, T)), MASK)
    _, returns = adv.gae(rewards, values, mask, gamma=1.0, gae_lambda=1.0)
    to_go = np.cumsum((np.asarray(rewards) * MASK)[:, ::-1], axis=1)[:, ::-1] * MASK
    np.testing.assert_allclose(returns, to_go, rtol=1e-5, atol=1e-5)


def test_right_values_leave_no_advantage():
    rewards, mask = f32(np.ones((B, T)), MASK)
    to_go = jnp.cumsum((rewards * mask)[:, ::-1], axis=1)[:, ::-1]
    advantages, _ = adv.gae(rewards, to_go, mask, gamma=1.0, gae_lambda=0.9)
    np.testing.assert_allclose(advantages, 0, atol=1e-6)


def test_masked_places_may_hold_anything():
    rng = np.random.default_rng(2)
    rewards, values = rng.normal(size=(B, T)), rng.normal(size=(B, T))
    clean = adv.gae(*f32(rewards, values, MASK), gamma=0.9, gae_lambda=0.9)
    rewards[MASK == 0] = values[MASK == 0] = np.nan
    dirty = adv.gae(*f32(rewards, values, MASK), gamma=0.9, gae_lambda=0.9)
    for got, want in zip(dirty, clean, strict=True):
        np.testing.assert_array_equal(got, want)


def test_token_rewards_pay_the_score_at_the_last_token():
    scores, kl = f32([5.0, 7.0, 9.0], np.full((B, T), 2.0))
    found = adv.token_rewards(scores, kl, jnp.asarray(MASK), kl_coef=0.1)
    wanted = -0.2 * MASK
    wanted[0, 5] += 5
    wanted[1, 6] += 7
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_whitening_uses_all_counted_places_and_no_other():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(B, T)) * 3 + 100
    values[MASK == 0] = np.inf
    counted = values[MASK == 1]
    found = np.asarray(adv.whiten(*f32(values, MASK)))
    np.testing.assert_allclose(found[MASK == 1], (counted - counted.mean()) / counted.std(), rtol=1e-4, atol=1e-5)
    assert not found[MASK == 0].any()
    kept = np.asarray(adv.whiten(*f32(values, MASK), shift_mean=False))[MASK == 1]
    np.testing.assert_allclose(kept, found[MASK == 1] + counted.mean(), rtol=1e-6)


def test_whitening_is_unmoved_by_shift_and_scale():
    values, mask = f32(np.random.default_rng(4).normal(size=(B, T)), MASK)
    np.testing.assert_allclose(adv.whiten(values * 4 + 8, mask), adv.whiten(values, mask), rtol=1e-4, atol=1e-5)


def test_explained_variance_at_its_marks():
    returns, mask = f32(np.random.default_rng(5).normal(size=(B, T)), MASK)
    np.testing.assert_allclose(adv.explained_variance(returns + 3, returns, mask), 1, atol=1e-6)
    np.testing.assert_allclose(adv.explained_variance(jnp.zeros((B, T)), returns, mask), 0, atol=1e-6)
    assert adv.explained_variance(-returns, returns, mask) < -2


# --- groups


REWARDS = np.random.default_rng(6).normal(size=(3, 4))


def test_group_advantages_equal_their_definitions():
    (rewards,) = f32(REWARDS)
    mean, std = REWARDS.mean(1, keepdims=True), REWARDS.std(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(adv.grpo_advantages(rewards), (REWARDS - mean) / (std + 1e-4), rtol=1e-5)
    np.testing.assert_allclose(adv.dr_grpo_advantages(rewards), REWARDS - mean, rtol=1e-5, atol=1e-6)
    others = np.array([[np.delete(row, i).mean() for i in range(4)] for row in REWARDS])
    np.testing.assert_allclose(adv.rloo_advantages(rewards), REWARDS - others, rtol=1e-5, atol=1e-6)


def test_a_large_eps_quiets_groups_whose_rewards_hardly_differ():
    # One right answer of eight; and none, where a tenth of a tenth is all that tells answers apart.
    (rewards,) = f32(np.array([[1.0] + [0.0] * 7, [0.01] + [0.0] * 7]))
    first, second = np.asarray(adv.grpo_advantages(rewards))[:, 0]
    np.testing.assert_allclose(second, first, rtol=0.03)
    first, second = np.asarray(adv.grpo_advantages(rewards, eps=0.2))[:, 0]
    assert first > 1.5
    assert second < 0.05


def test_answers_without_a_score_take_no_part():
    mask = np.ones((3, 4))
    mask[0, 1] = mask[1, :3] = mask[2] = 0
    dirty = np.where(mask == 1, REWARDS, np.nan)
    for fn in (adv.grpo_advantages, adv.dr_grpo_advantages, adv.rloo_advantages):
        found = np.asarray(fn(*f32(dirty, mask)))
        alone = np.asarray(fn(*f32(np.delete(REWARDS[:1], 1, axis=1))))
        np.testing.assert_allclose(np.delete(found[:1], 1, axis=1), alone, rtol=1e-5)
        assert not found[mask == 0].any()
        assert not found[1].any()


@pytest.mark.parametrize("fn", [adv.grpo_advantages, adv.dr_grpo_advantages, adv.rloo_advantages])
def test_groups_are_centred_unmoved_by_a_shift_and_silent_where_equal(fn):
    (rewards,) = f32(REWARDS)
    np.testing.assert_allclose(jnp.sum(fn(rewards), axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(fn(rewards + 4), fn(rewards), rtol=1e-4, atol=1e-5)
    assert not fn(jnp.full((2, 4), 0.75)).any()


def test_grpo_is_unmoved_by_scale_and_the_others_follow_it():
    (rewards,) = f32(REWARDS)
    np.testing.assert_allclose(adv.grpo_advantages(rewards * 8), adv.grpo_advantages(rewards), rtol=1e-3)
    for fn in (adv.dr_grpo_advantages, adv.rloo_advantages):
        np.testing.assert_allclose(fn(rewards * 8), 8 * fn(rewards), rtol=1e-5, atol=1e-6)
