"""Policy losses, estimates of the KL divergence and distillation against the equations in float64, and their laws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.losses import policy
from jaxlm.losses.distillation import distillation_loss
from jaxlm.losses.tokens import masked_sum
from jaxlm.nn.neftune import neftune, neftune_scale
from tests.losses.complex_step import clip, gradient, log_softmax, maximum

B, T = 4, 6


@pytest.fixture
def rollout():
    rng = np.random.default_rng(0)
    lengths = np.array([6, 1, 4, 0])
    return {
        "logprobs": -rng.exponential(size=(B, T)),
        "old": -rng.exponential(size=(B, T)),
        "ref": -rng.exponential(size=(B, T)),
        "advantages": rng.normal(size=(B, T)),
        "values": rng.normal(size=(B, T)),
        "returns": rng.normal(size=(B, T)),
        "mask": (np.arange(T) < lengths[:, None]).astype(np.float32),
    }


def agree(fn, reference, x, rtol=1e-5):
    """Value and gradient of a scalar by one array."""
    x = np.asarray(x, np.float32)
    value, grad = jax.jit(jax.value_and_grad(fn))(jnp.asarray(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(value, reference(exact), rtol=rtol)
    wanted = gradient(reference, exact)
    assert np.linalg.norm(grad - wanted) <= rtol * np.linalg.norm(wanted)


def f32(*arrays):
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


@pytest.mark.parametrize("reduction", ["sequence", "token", "constant"])
@pytest.mark.parametrize("high", [None, 0.28])
def test_clipped_policy_loss_equals_the_equation(rollout, reduction, high):
    old, advantages, mask = f32(rollout["old"], rollout["advantages"], rollout["mask"])

    def fn(logprobs):
        loss = policy.ppo_policy_loss(logprobs, old, advantages, clip_eps=0.2, clip_eps_high=high)
        term = policy.reduced_term(loss.loss_bt, mask, reduction, max_length=T)
        return term.total / term.count

    old64, advantages64 = np.float64(old), np.float64(advantages)

    def reference(logprobs):
        ratio = np.exp(logprobs - old64)
        held = clip(ratio, 0.8, 1.2 if high is None else 1.28)
        loss = maximum(-ratio * advantages64, -held * advantages64)
        lengths = np.array([6, 1, 4])
        rows = [np.sum(loss[b, :length]) for b, length in enumerate(lengths)]
        if reduction == "sequence":
            return sum(row / length for row, length in zip(rows, lengths, strict=True)) / 3
        return sum(rows) / (lengths.sum() if reduction == "token" else 3 * T)

    agree(fn, reference, rollout["logprobs"])


def test_on_policy_gradient_is_the_policy_gradient(rollout):
    logprobs, advantages = f32(rollout["logprobs"], rollout["advantages"])
    grad = jax.grad(lambda x: jnp.sum(policy.ppo_policy_loss(x, logprobs, advantages, clip_eps=0.2).loss_bt))(logprobs)
    np.testing.assert_allclose(grad, -advantages, rtol=1e-6)


def test_a_clipped_token_has_no_gradient_and_is_counted():
    logprobs, old, advantages = f32([[0.5, -0.5, 0.5, -0.5]], [[0.0, 0, 0, 0]], [[1.0, -1, -1, 1]])
    loss = policy.ppo_policy_loss(logprobs, old, advantages, clip_eps=0.2)
    assert loss.clipped_bt.tolist() == [[1, 1, 0, 0]]
    grad = jax.grad(lambda x: jnp.sum(policy.ppo_policy_loss(x, old, advantages, clip_eps=0.2).loss_bt))(logprobs)
    assert (np.asarray(grad) != 0).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("clip_eps", [0.2, None])
def test_clipped_value_loss_equals_the_equation(rollout, clip_eps):
    returns, old, mask = f32(rollout["returns"], rollout["advantages"], rollout["mask"])

    def reference(values):
        plain = (values - np.float64(returns)) ** 2
        if clip_eps is not None:
            held = clip(values, np.float64(old) - clip_eps, np.float64(old) + clip_eps)
            plain = maximum(plain, (held - np.float64(returns)) ** 2)
        return 0.5 * np.sum(plain * rollout["mask"]) / rollout["mask"].sum()

    def fn(values):
        loss = policy.ppo_value_loss(values, old, returns, clip_eps=clip_eps)
        return masked_sum(loss, mask) / jnp.sum(mask)

    agree(fn, reference, rollout["values"])


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates_equal_their_definitions(rollout, kind):
    (ref,) = f32(rollout["ref"])

    def reference(logprobs):
        ratio = np.exp(np.float64(ref) - logprobs)
        return np.sum({"k1": -np.log(ratio), "k2": np.log(ratio) ** 2 / 2, "k3": ratio - 1 - np.log(ratio)}[kind])

    agree(lambda x: jnp.sum(policy.kl_estimate(x, ref, kind)), reference, rollout["logprobs"])


def test_kl_estimates_in_expectation():
    """Over the policy's own distribution: k1 and k3 are the divergence; k2's gradient is its gradient, k1's is 0."""
    rng = np.random.default_rng(1)
    logits, ref = f32(rng.normal(size=8), jax.nn.log_softmax(jnp.asarray(rng.normal(size=8), jnp.float32)))
    p = jax.nn.softmax(logits)

    def kl(logits):
        log_p = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(log_p) * (log_p - ref))

    def estimate(logits, kind):
        return jnp.sum(p * policy.kl_estimate(jax.nn.log_softmax(logits), ref, kind))  # p: who sampled, held

    for kind in ("k1", "k3"):
        np.testing.assert_allclose(estimate(logits, kind), kl(logits), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(estimate)(logits, "k2"), jax.grad(kl)(logits), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.grad(estimate)(logits, "k1"), 0, atol=1e-6)


def test_kl_is_0_at_equal_policies_and_k3_never_negative(rollout):
    logprobs, ref = f32(rollout["logprobs"], rollout["ref"])
    for kind in ("k1", "k2", "k3"):
        assert not policy.kl_estimate(logprobs, logprobs, kind).any()
    assert policy.kl_estimate(logprobs, ref, "k3").min() >= 0
    with pytest.raises(ValueError, match="k4"):
        policy.kl_estimate(logprobs, ref, "k4")  # pyright: ignore[reportArgumentType]


def test_entropy_and_its_gradient():
    rng = np.random.default_rng(2)

    def reference(logits):
        log_p = log_softmax(logits)
        return -np.sum(np.exp(log_p) * log_p)

    agree(lambda x: jnp.sum(policy.token_entropy(x)), reference, rng.normal(size=(2, 3, 9)) * 2)
    np.testing.assert_allclose(policy.token_entropy(jnp.zeros((1, 50))), math.log(50), rtol=1e-6)
    ruled_out = jnp.where(jnp.arange(50) < 10, 0.0, -1e30)[None]
    np.testing.assert_allclose(policy.token_entropy(ruled_out), math.log(10), rtol=1e-6)


def test_masked_tokens_add_nothing_even_if_not_finite(rollout):
    mask = jnp.asarray(rollout["mask"])
    values = jnp.where(mask > 0, 2.0, jnp.nan)
    expected: dict[policy.TokenReduction, float] = {"sequence": 2.0, "token": 2.0, "constant": 22 / 18}
    for reduction, wanted in expected.items():
        term = policy.reduced_term(values, mask, reduction, max_length=T)
        np.testing.assert_allclose(term.total / term.count, wanted, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["sequence", "token", "constant"])
def test_parts_of_a_batch_sum_to_the_whole(rollout, reduction):
    values, mask = f32(rollout["values"], rollout["mask"])
    count = policy.reduced_count(mask, reduction, max_length=T)
    whole = policy.reduced_term(values, mask, reduction, max_length=T)
    parts = [policy.reduced_term(values[i : i + 1], mask[i : i + 1], reduction, max_length=T) for i in range(B)]
    np.testing.assert_allclose(sum(part.total for part in parts) / count, whole.total / whole.count, rtol=1e-6)
    np.testing.assert_allclose(sum(part.count for part in parts), count)


def test_a_constant_length_must_be_named(rollout):
    mask = jnp.asarray(rollout["mask"])
    with pytest.raises(ValueError, match="max_length"):
        policy.reduced_count(mask, "constant")
    with pytest.raises(ValueError, match="mean"):
        policy.reduced_count(mask, "mean")  # pyright: ignore[reportArgumentType]


def test_adaptive_kl_follows_the_published_rule():
    coef = jnp.float32(0.2)
    for kl, wanted in ((6.0, 0.2), (6.6, 0.2 * 1.01), (60.0, 0.2 * 1.02), (0.0, 0.2 * 0.98), (-3.0, 0.2 * 0.98)):
        np.testing.assert_allclose(policy.adaptive_kl_coef(coef, jnp.float32(kl), target=6.0), wanted, rtol=1e-6)
    np.testing.assert_allclose(policy.adaptive_kl_coef(coef, jnp.float32(jnp.nan), target=6.0), coef)


# --- distillation


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_distillation_equals_the_divergence(direction, temperature):
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(2, 2, 3, 7)) * 3
    mask = jnp.asarray([[1.0, 1, 0], [1, 0, 0]])

    def reference(student):
        q, p = log_softmax(student / temperature), log_softmax(np.float64(np.float32(teacher)) / temperature)
        kl = np.sum(np.exp(p) * (p - q), -1) if direction == "forward" else np.sum(np.exp(q) * (q - p), -1)
        return temperature**2 * np.sum(kl * np.asarray(mask)) / 3

    def fn(student):
        options = {"direction": direction, "temperature": temperature}
        loss = distillation_loss(student, jnp.asarray(teacher, jnp.float32), **options)
        return masked_sum(loss, mask) / jnp.sum(mask)

    agree(fn, reference, student)


def test_distillation_laws():
    student, teacher = f32(*np.random.default_rng(4).normal(size=(2, 1, 3, 7)))
    for direction in ("forward", "reverse"):
        np.testing.assert_allclose(distillation_loss(teacher + 3, teacher, direction=direction), 0, atol=1e-6)
        assert distillation_loss(student, teacher, direction=direction).min() > 0
    swapped = distillation_loss(teacher, student, direction="reverse")
    np.testing.assert_allclose(distillation_loss(student, teacher, direction="forward"), swapped, rtol=1e-6)
    assert not jax.grad(lambda t: jnp.sum(distillation_loss(student, t)))(teacher).any()
    with pytest.raises(ValueError, match="7 symbols and the teacher 5"):
        distillation_loss(student, teacher[..., :5])


def test_a_symbol_ruled_out_by_both_adds_nothing():
    logits = jnp.asarray([[0.0, 1.0, -jnp.inf]])
    other = jnp.asarray([[1.0, 1.0, -jnp.inf]])
    for direction in ("forward", "reverse"):
        found = distillation_loss(logits, other, direction=direction)
        np.testing.assert_allclose(
            found, distillation_loss(logits[:, :2], other[:, :2], direction=direction), rtol=1e-6
        )


# --- noise on embeddings


def test_neftune_scale_is_that_of_each_conversation():
    segments = jnp.asarray([[1, 1, 1, 1, 2, 2, 0, 0]])
    found = neftune_scale(segments, 16, alpha=5.0)
    np.testing.assert_allclose(found, [[5 / 8] * 4 + [5 / math.sqrt(32)] * 2 + [0, 0]], rtol=1e-6)


def test_neftune_noise_has_the_published_size_and_leaves_padding():
    x, segments = jnp.zeros((64, 32, 24)), jnp.broadcast_to(jnp.arange(32) < 24, (64, 32)).astype(jnp.int32)
    noise = neftune(x, segments, jax.random.key(0), alpha=5.0)
    assert not noise[:, 24:].any()
    assert jnp.abs(noise).max() <= 5 / math.sqrt(24 * 24)
    norms = np.sqrt(np.sum(np.square(np.asarray(noise, np.float64)), axis=(1, 2)))
    np.testing.assert_allclose(norms.mean(), 5 / math.sqrt(3), rtol=0.01)
