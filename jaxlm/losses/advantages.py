"""What an action was worth beyond what was expected: rewards by token, GAE, whitening, and baselines from a group.

Nothing here has a gradient to give: advantages and returns are targets, computed once for a rollout.
"""

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array


def token_rewards(scores_b: Array, kl_bt: Array, mask_bt: Array, *, kl_coef: float | Array) -> Array:
    """``-kl_coef KL_t`` at each token of the answer, and the answer's score on its last one, [b, t] (Ziegler et al.
    2019, eq. 2; by token as Ouyang et al. 2022). ``mask_bt``: 1 = a token of the answer."""
    mask_bt = mask_bt.astype(jnp.float32)
    later_bt = jnp.cumsum(mask_bt[:, ::-1], axis=1)[:, ::-1]
    last_bt = (mask_bt > 0) & (later_bt == 1)
    penalty_bt = jnp.where(mask_bt > 0, -kl_coef * kl_bt.astype(jnp.float32), 0.0)
    return penalty_bt + jnp.where(last_bt, scores_b.astype(jnp.float32)[:, None], 0.0)


def gae(
    rewards_bt: Array,
    values_bt: Array,
    mask_bt: Array,
    bootstrap_b: Array | None = None,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Array, Array]:
    """Advantages and returns, both [b, t], 0 where masked (Schulman et al. 2015, eq. 16).

    ``A_t = delta_t + gamma lambda A_{t+1}``, ``delta_t = r_t + gamma V_{t+1} - V_t``, ``return_t = A_t + V_t``, over
    the tokens with ``mask_bt`` = 1: masked ones (a prompt, a tool's words, padding) are passed over as if they were
    not there.

    Args:
      values_bt: V of the state in which token t is chosen.
      bootstrap_b: V of the state after the last token; None = 0, right for answers that ended. Answers cut at the
        length limit go on in truth: give the value there.
    """
    rewards_bt, values_bt = rewards_bt.astype(jnp.float32), values_bt.astype(jnp.float32)
    after_b = jnp.zeros(values_bt.shape[0], jnp.float32) if bootstrap_b is None else bootstrap_b.astype(jnp.float32)

    def back(carry: tuple[Array, Array], xs: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        next_value_b, next_advantage_b = carry
        reward_b, value_b, mask_b = xs
        advantage_b = reward_b + gamma * next_value_b - value_b + gamma * gae_lambda * next_advantage_b
        on_b = mask_b > 0
        kept = (jnp.where(on_b, value_b, next_value_b), jnp.where(on_b, advantage_b, next_advantage_b))
        return kept, jnp.where(on_b, advantage_b, 0.0)

    xs = (rewards_bt.T, values_bt.T, mask_bt.T)
    _, advantages_tb = jax.lax.scan(back, (after_b, jnp.zeros_like(after_b)), xs, reverse=True)
    advantages_bt = advantages_tb.T
    return advantages_bt, jnp.where(mask_bt > 0, advantages_bt + values_bt, 0.0)


def whiten(values: Array, mask: Array, *, shift_mean: bool = True, eps: float = 1e-8) -> Array:
    """``(x - mean) / sqrt(var + eps)`` over the counted places of the whole array, 0 at the others.

    A statistic of the whole rollout: whiten before the batch is cut into minibatches, then no cut alters it. On a mesh
    the sums are global. ``shift_mean`` False keeps the mean, so that signs stay (rewards).
    """
    values, mask = values.astype(jnp.float32), mask.astype(jnp.float32)
    mean, var = masked_moments(values, mask)
    out = (values - mean) * jax.lax.rsqrt(var + eps) + (0.0 if shift_mean else mean)
    return jnp.where(mask > 0, out, 0.0)


def masked_moments(values: Array, mask: Array) -> tuple[Array, Array]:
    """Mean and variance (over n, not n - 1) of the counted places; in two passes, so that f32 keeps its digits."""
    values, mask = values.astype(jnp.float32), mask.astype(jnp.float32)
    count = jnp.maximum(jnp.sum(mask), 1.0)
    mean = jnp.sum(jnp.where(mask > 0, values * mask, 0.0)) / count
    return mean, jnp.sum(jnp.where(mask > 0, jnp.square(values - mean) * mask, 0.0)) / count


def explained_variance(values_bt: Array, returns_bt: Array, mask_bt: Array) -> Array:
    """``1 - Var(return - value) / Var(return)``, scalar: 1 = a perfect critic, 0 = no better than a constant."""
    _, left = masked_moments(returns_bt - values_bt, mask_bt)
    _, whole = masked_moments(returns_bt, mask_bt)
    return 1.0 - left / jnp.maximum(whole, 1e-12)


# --- several answers to each prompt: [p, g], p prompts with g answers each


def grpo_advantages(rewards_pg: Array, mask_pg: Array | None = None, *, eps: float = 1e-4) -> Array:
    """``(r - mean) / (std + eps)`` within each prompt's group, std over n - 1, [p, g] (Shao et al. 2024, DeepSeekMath,
    section 4.1.2). ``mask_pg``: 0 = an answer that could not be scored; it gets 0 and is in no mean. A group whose
    rewards are all equal teaches nothing: 0."""
    rewards_pg, mask_pg = _group(rewards_pg, mask_pg)
    centred_pg = dr_grpo_advantages(rewards_pg, mask_pg)
    count_p = jnp.sum(mask_pg, axis=-1, keepdims=True)
    var_p = jnp.sum(jnp.square(centred_pg), axis=-1, keepdims=True) / jnp.maximum(count_p - 1.0, 1.0)
    return centred_pg / (jnp.sqrt(var_p) + eps)


def dr_grpo_advantages(rewards_pg: Array, mask_pg: Array | None = None) -> Array:
    """``r - mean of the group``, [p, g]: without the division by std, which favours prompts that are nearly solved or
    nearly hopeless (Liu et al. 2025, Dr. GRPO, section 3)."""
    rewards_pg, mask_pg = _group(rewards_pg, mask_pg)
    count_p = jnp.maximum(jnp.sum(mask_pg, axis=-1, keepdims=True), 1.0)
    mean_p = jnp.sum(rewards_pg * mask_pg, axis=-1, keepdims=True) / count_p
    return (rewards_pg - mean_p) * mask_pg


def rloo_advantages(rewards_pg: Array, mask_pg: Array | None = None) -> Array:
    """``r_i - mean of the other answers' r``, [p, g] (Kool et al. 2019; Ahmadian et al. 2024, eq. 8). An answer without
    a sibling has no baseline and gets 0."""
    rewards_pg, mask_pg = _group(rewards_pg, mask_pg)
    count_p = jnp.sum(mask_pg, axis=-1, keepdims=True)
    # The mean of the others differs from the mean of all by a factor: r_i - mean_others = n / (n - 1) (r_i - mean).
    factor_p = jnp.where(count_p > 1, count_p / jnp.maximum(count_p - 1.0, 1.0), 0.0)
    return factor_p * dr_grpo_advantages(rewards_pg, mask_pg)


def _group(rewards_pg: Array, mask_pg: Array | None) -> tuple[Array, Array]:
    rewards_pg = rewards_pg.astype(jnp.float32)
    if mask_pg is None:
        return rewards_pg, jnp.ones_like(rewards_pg)
    return jnp.where(mask_pg > 0, rewards_pg, 0.0), mask_pg.astype(jnp.float32)
