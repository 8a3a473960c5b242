"""Losses of policy gradients: PPO's clipped policy and value losses, KL estimates, entropy, what tokens are divided by.

All by token, [b, t], in f32. ``logprobs`` are those of the tokens that were chosen, under the parameters being trained;
``old_logprobs`` those under which they were sampled; ``ref_logprobs`` those of the reference.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array, Term
from jaxlm.losses.tokens import masked_sum

KlEstimator = Literal["k1", "k2", "k3"]

TokenReduction = Literal["sequence", "token", "constant"]
"""sequence: mean over each answer's tokens, then over answers (GRPO, Shao et al. 2024, eq. 3). token: mean over all
tokens of the batch (DAPO, Yu et al. 2025, eq. 8; PPO). constant: sum over tokens divided by answers x a fixed length,
so that a long answer's tokens weigh no less than a short one's (Dr. GRPO, Liu et al. 2025)."""


def kl_estimate(logprobs: Array, ref_logprobs: Array, kind: KlEstimator = "k1") -> Array:
    """An estimate of KL(policy || reference) at each token that the policy sampled, nats (Schulman 2020).

    With ``d = log p_policy - log p_ref``: k1 = d, unbiased, may be negative; k2 = d^2 / 2, biased, of low variance;
    k3 = exp(-d) - 1 + d, unbiased, never negative. As values all three; as a loss only k2 has the gradient of the KL
    divergence in expectation (k1's is 0, k3's that of the KL divergence the other way round).
    """
    difference = logprobs.astype(jnp.float32) - ref_logprobs.astype(jnp.float32)
    if kind not in get_args(KlEstimator):
        raise ValueError(f"kind={kind!r} is none of {', '.join(get_args(KlEstimator))}")
    if kind == "k1":
        return difference
    return 0.5 * jnp.square(difference) if kind == "k2" else jnp.expm1(-difference) + difference


class PolicyLoss(NamedTuple):
    """Of each token."""

    loss_bt: Array
    ratio_bt: Array
    """p / p_old."""
    clipped_bt: Array
    """1.0 where the clip holds the token: its gradient is 0. The mean is the clip fraction."""


def ppo_policy_loss(
    logprobs_bt: Array,
    old_logprobs_bt: Array,
    advantages_bt: Array,
    *,
    clip_eps: float,
    clip_eps_high: float | None = None,
) -> PolicyLoss:
    """``-min(ratio A, clip(ratio, 1 - eps, 1 + eps_high) A)`` (Schulman et al. 2017, eq. 7; a higher upper bound: Yu et
    al. 2025, DAPO). ``advantages_bt`` may be [b, 1]. At p = p_old the gradient is the policy gradient,
    ``-A grad log p``."""
    advantages_bt = advantages_bt.astype(jnp.float32)
    high = clip_eps if clip_eps_high is None else clip_eps_high
    ratio_bt = jnp.exp(logprobs_bt.astype(jnp.float32) - old_logprobs_bt.astype(jnp.float32))
    held_bt = jnp.clip(ratio_bt, 1.0 - clip_eps, 1.0 + high)
    loss_bt = -jnp.minimum(ratio_bt * advantages_bt, held_bt * advantages_bt)
    over_bt = (ratio_bt > 1.0 + high) & (advantages_bt > 0)
    under_bt = (ratio_bt < 1.0 - clip_eps) & (advantages_bt < 0)
    return PolicyLoss(loss_bt, ratio_bt, (over_bt | under_bt).astype(jnp.float32))


def ppo_value_loss(values_bt: Array, old_values_bt: Array, returns_bt: Array, *, clip_eps: float | None) -> Array:
    """``max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2) / 2``, [b, t] (Schulman et al. 2017's code; Huang et
    al. 2022, detail 9). ``clip_eps`` None: no clip."""
    values_bt, old_values_bt, returns_bt = (x.astype(jnp.float32) for x in (values_bt, old_values_bt, returns_bt))
    plain_bt = jnp.square(values_bt - returns_bt)
    if clip_eps is None:
        return 0.5 * plain_bt
    held_bt = jnp.clip(values_bt, old_values_bt - clip_eps, old_values_bt + clip_eps)
    return 0.5 * jnp.maximum(plain_bt, jnp.square(held_bt - returns_bt))


def token_entropy(logits_btv: Array) -> Array:
    """Entropy of the next token, ``log Z - sum of p x``, nats, [b, t]: log v for uniform logits."""
    logits_btv = logits_btv.astype(jnp.float32)
    log_z_bt = jax.nn.logsumexp(logits_btv, axis=-1)
    return log_z_bt - jnp.sum(jax.nn.softmax(logits_btv, axis=-1) * logits_btv, axis=-1)


def reduced_term(
    values_bt: Array, mask_bt: Array, reduction: TokenReduction, *, max_length: int | None = None, weight: float = 1.0
) -> Term:
    """Values by token as a term of the loss, divided once by the count of the whole batch (`reduced_count`)."""
    values_bt = jnp.broadcast_to(values_bt, mask_bt.shape)
    mask_bt = mask_bt.astype(jnp.float32)
    if reduction == "sequence":
        length_b1 = jnp.maximum(jnp.sum(mask_bt, axis=-1, keepdims=True), 1.0)
        values_bt = values_bt / length_b1
    return Term(masked_sum(values_bt, mask_bt), reduced_count(mask_bt, reduction, max_length=max_length), weight)


def reduced_count(mask_bt: Array, reduction: TokenReduction, *, max_length: int | None = None) -> Array:
    """What `reduced_term` is divided by, f32 scalar: answers, tokens, or answers x ``max_length``. An answer without a
    token counts for nothing."""
    answers = jnp.sum(jnp.any(mask_bt > 0, axis=-1), dtype=jnp.float32)
    if reduction == "sequence":
        return answers
    if reduction == "token":
        return jnp.sum(mask_bt.astype(jnp.float32))
    if reduction != "constant":
        raise ValueError(f"reduction={reduction!r} is none of {', '.join(get_args(TokenReduction))}")
    if max_length is None:
        raise ValueError("reduction='constant' needs max_length: the length that all answers are divided by")
    return answers * max_length


def adaptive_kl_coef(kl_coef: Array, kl: Array, *, target: float, gain: float = 0.1, max_error: float = 0.2) -> Array:
    """The next coefficient of the KL penalty: ``coef (1 + gain e)``, ``e = clip(KL / target - 1, +-max_error)``, f32
    scalar (Ziegler et al. 2019, section 2.2, whose K_beta is the gain). It rises while the policy is further from the
    reference than ``target`` nats an answer, and falls while it is nearer. Not finite KL: unchanged."""
    error = jnp.clip(kl.astype(jnp.float32) / target - 1.0, -max_error, max_error)
    return jnp.where(jnp.isfinite(kl), kl_coef * (1.0 + gain * error), kl_coef)
