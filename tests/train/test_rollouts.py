"""What is learnt from a rollout, against NumPy, and the laws of its masks; the signs of collapse."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.train.collapse import CollapseConfig, CollapseState, look
from jaxlm.train.rollouts import AdvantageConfig, KlConfig, learn_from

B, T, G = 8, 6, 4


def rows(seed=0, **changed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, B)
    mask = ((np.arange(T) >= 1) & (np.arange(T) < 1 + lengths[:, None])).astype(np.float32)
    logprobs = (-rng.random((3, B, T)) * 2).astype(np.float32) * mask
    found = {
        "tokens": np.zeros((B, T), np.int32), "targets": np.zeros((B, T), np.int32),
        "segment_ids": np.ones((B, T), np.int32), "loss_mask": mask, "old_logprobs": logprobs[0],
        "ref_logprobs": logprobs[1], "sampler_logprobs": logprobs[0], "entropy": np.ones((B, T), np.float32),
        "old_values": rng.normal(size=(B, T)).astype(np.float32),
    }  # fmt: skip
    return found | changed


SCORES = np.random.default_rng(1).normal(size=B).astype(np.float32)
CUT = np.arange(B) % 3 == 0


KL, WORTH = KlConfig(), AdvantageConfig()


def learn(algorithm, *, kl=KL, config=WORTH, scores=SCORES, cut=CUT, given=None):
    fn = functools.partial(learn_from, algorithm=algorithm, group_size=G, config=config, kl=kl)
    given = rows() if given is None else given
    return jax.device_get(jax.jit(fn)(given, jnp.asarray(scores), jnp.asarray(cut), jnp.float32(kl.coef)))


def kl_sum(given):
    return ((given["old_logprobs"] - given["ref_logprobs"]) * given["loss_mask"]).sum(1)


def test_group_baselines_are_the_published_ones():
    given = rows()
    mask = given["loss_mask"]
    grouped = SCORES.reshape(-1, G)
    for eps in (1e-4, 0.2):
        found, _, figures = learn("grpo", config=AdvantageConfig(std_eps=eps))
        want = (grouped - grouped.mean(1, keepdims=True)) / (grouped.std(1, ddof=1, keepdims=True) + eps)
        np.testing.assert_allclose(found["advantages"], want.reshape(-1, 1) * mask, rtol=1e-5, atol=1e-6)
        assert figures["idle_groups"] == 0
    with pytest.raises(ValueError, match=r"advantages\.std_eps=0\.0 must be above 0"):
        AdvantageConfig(std_eps=0.0)
    found, _, _ = learn("dr_grpo")
    np.testing.assert_allclose(
        found["advantages"], (grouped - grouped.mean(1, keepdims=True)).reshape(-1, 1) * mask, rtol=1e-5, atol=1e-6
    )
    found, _, _ = learn("rloo", kl=KlConfig(coef=0.3))
    worth = (SCORES - 0.3 * kl_sum(given)).reshape(-1, G)
    others = (worth.sum(1, keepdims=True) - worth) / (G - 1)
    np.testing.assert_allclose(found["advantages"], (worth - others).reshape(-1, 1) * mask, rtol=1e-5, atol=1e-6)


def test_ppo_without_discount_has_the_rest_of_the_rewards_as_return():
    given = rows()
    mask, kl = given["loss_mask"], (given["old_logprobs"] - given["ref_logprobs"])
    config = AdvantageConfig(gae_lambda=1.0, whiten=False)
    found, coef, figures = learn("ppo", config=config, kl=KlConfig(coef=0.2))
    rewards = -0.2 * kl * mask
    for i, row in enumerate(mask):
        rewards[i, np.flatnonzero(row)[-1]] += SCORES[i]
    returns = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1] * mask
    np.testing.assert_allclose(found["returns"], returns, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["advantages"], (returns - given["old_values"]) * mask, rtol=1e-4, atol=1e-5)
    assert coef == pytest.approx(0.2)
    assert figures["kl"] == pytest.approx(kl_sum(given).mean(), rel=1e-5)
    whitened, _, _ = learn("ppo", kl=KlConfig(coef=0.2))
    values = whitened["advantages"][mask > 0]
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std() == pytest.approx(1, abs=1e-4)


def test_truncated_answers_are_left_out_or_pay():
    masked, _, _ = learn("grpo", config=AdvantageConfig(truncated="mask"))
    assert (masked["loss_mask"][CUT] == 0).all()
    assert (masked["advantages"][CUT] == 0).all()
    other = np.where(CUT, 100.0, SCORES).astype(np.float32)
    again, _, _ = learn("grpo", config=AdvantageConfig(truncated="mask"), scores=other)
    np.testing.assert_array_equal(again["advantages"], masked["advantages"])
    paid, _, figures = learn("dr_grpo", config=AdvantageConfig(truncated="penalise", truncation_penalty=2.0))
    free, _, plain = learn("dr_grpo", scores=SCORES - 2.0 * CUT)
    np.testing.assert_allclose(paid["advantages"], free["advantages"], atol=1e-6)
    assert figures["reward"] == pytest.approx(SCORES.mean(), abs=1e-6), "what is logged is what was given"
    assert plain["reward"] < figures["reward"]


def test_groups_that_teach_nothing_are_counted():
    scores = SCORES.copy()
    scores[:G] = 1.0
    found, _, figures = learn("grpo", scores=scores)
    assert figures["idle_groups"] == 0.5
    assert (found["advantages"][:G] == 0).all()


def test_the_coefficient_follows_the_kl():
    kl = KlConfig(coef=0.1, target=1e6, gain=0.5)
    _, lower, _ = learn("ppo", kl=kl)
    assert lower == pytest.approx(0.1 * (1 - 0.5 * 0.2))
    _, same, _ = learn("ppo", kl=dataclasses.replace(kl, target=None))
    assert same == pytest.approx(0.1)


GOOD = {"kl": 2.0, "entropy": 0.5, "length": 10.0, "truncated": 0.1, "reward": 0.3}


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({"kl": 200.0}, "run away"),
        ({"kl": -3.0}, "negative"),
        ({"entropy": 0.001, "reward": 0.2}, "entropy is gone"),
        ({"truncated": 0.95, "length": 30.0}, "do not end"),
        ({"kl": float("nan")}, "not finite"),
    ],
)
def test_collapse_is_told_after_patience_and_only_in_a_row(figures, word):
    config = CollapseConfig(patience=3)
    state, diagnosis = look(GOOD, CollapseState(), config)
    assert diagnosis is None
    assert state == CollapseState.from_arrays(state.to_arrays())
    bad = GOOD | figures
    said = []
    for one in (bad, bad, GOOD, bad, bad, bad):
        state, diagnosis = look(one, CollapseState.from_arrays(state.to_arrays()), config)
        said.append(diagnosis)
    assert said[:5] == [None] * 5
    assert word in said[5]


def test_a_sure_and_right_policy_is_no_collapse():
    state, diagnosis = look(GOOD, CollapseState(), CollapseConfig())
    for _ in range(5):
        state, diagnosis = look(GOOD | {"entropy": 0.0001, "reward": 0.99}, state, CollapseConfig())
    assert diagnosis is None
