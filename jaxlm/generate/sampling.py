"""Logits -> token. Penalty, temperature, top-k, top-p, min-p, in this order; then one draw.

Every filter sees what the earlier ones left, renormalised, so ``top_p=0.9`` after ``top_k=50`` means nine tenths of the
mass of those fifty. The log-probability that comes back is always the model's own (no penalty, temperature or filter):
it is what a full forward pass gives the chosen token, and what policy gradients need.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array


@dataclass(frozen=True)
class SamplingConfig:
    """How to draw a token. The defaults draw from the model's own distribution."""

    temperature: float = 1.0
    """Divides the logits; 0 is greedy (argmax, the lowest id on a tie)."""
    top_k: int | None = None
    """Keep the k most likely tokens (the lower ids on a tie)."""
    top_p: float | None = None
    """Keep the smallest set of most likely tokens whose mass is at least p (Holtzman et al. 2020)."""
    min_p: float | None = None
    """Keep tokens at least this fraction as likely as the most likely one (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Of tokens in prompt or completion, positive logits are divided by this, others multiplied (Keskar 2019, CTRL)."""

    def __post_init__(self):
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature={self.temperature} must be a number >= 0 (0 is greedy)")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1: leave it out to keep every token")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1]: leave it out to keep every token")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p} must lie in [0, 1]: leave it out to keep every token")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise ValueError(f"repetition_penalty={self.repetition_penalty} must be a number > 0 (1 does nothing)")


def penalise(logits_bv: Array, seen_bv: Array, penalty: float) -> Array:
    """CTRL's repetition penalty on the tokens where ``seen_bv`` is True (a penalty over 1 makes them less likely)."""
    return jnp.where(seen_bv, jnp.where(logits_bv > 0, logits_bv / penalty, logits_bv * penalty), logits_bv)


def top_p_mask(probs_bv: Array, top_p: float) -> Array:
    """True on the smallest set of most likely tokens whose mass is at least ``top_p`` (on a tie, the lower ids).

    The threshold is found bit by bit: floats that are not negative order as their bit patterns do, so 30 sums
    settle all bits of it. A sort of the vocabulary costs ten times as much on a CPU (the way of t5x's
    ``binary_search``).
    """
    bits_bv = jax.lax.bitcast_convert_type(probs_bv, jnp.int32)

    def mass_b1(member_bv: Array) -> Array:
        return jnp.sum(jnp.where(member_bv, probs_bv, 0.0), axis=-1, keepdims=True)

    def settle(i: Array, threshold_b1: Array) -> Array:
        higher_b1 = threshold_b1 | (jnp.int32(1 << 29) >> i)
        return jnp.where(mass_b1(bits_bv >= higher_b1) >= top_p, higher_b1, threshold_b1)

    threshold_b1 = jax.lax.fori_loop(0, 30, settle, jnp.zeros_like(bits_bv[:, :1]))
    above_bv, tied_bv = bits_bv > threshold_b1, bits_bv == threshold_b1
    # Of tokens that tie at the threshold, those stay that the mass before them is short of p.
    tied_f32_bv = tied_bv.astype(jnp.float32)
    tied_before_bv = jnp.cumsum(tied_f32_bv, axis=-1) - tied_f32_bv
    short_bv = mass_b1(above_bv) + tied_before_bv * probs_bv < top_p
    return above_bv | (tied_bv & short_bv)


def filter_logits(logits_bv: Array, config: SamplingConfig) -> Array:
    """Top-k, then top-p, then min-p: logits with -inf on every token that is out. Temperature is not applied here."""
    if config.top_k is not None and config.top_k < logits_bv.shape[-1]:
        # Ranks, not a threshold, decide: with ties a threshold would keep more than k tokens.
        best_bk, ids_bk = jax.lax.top_k(logits_bv, config.top_k)
        rows_b1 = jnp.arange(logits_bv.shape[0])[:, None]
        logits_bv = jnp.full_like(logits_bv, -jnp.inf).at[rows_b1, ids_bk].set(best_bk, unique_indices=True)
    if config.top_p is not None and config.top_p < 1:  # at 1, rounding must not cut the tail
        logits_bv = jnp.where(top_p_mask(jax.nn.softmax(logits_bv, axis=-1), config.top_p), logits_bv, -jnp.inf)
    if config.min_p:
        floor_b1 = jnp.max(logits_bv, axis=-1, keepdims=True) + math.log(config.min_p)
        logits_bv = jnp.where(logits_bv >= floor_b1, logits_bv, -jnp.inf)
    return logits_bv


def row_keys(key: Array, batch_size: int) -> Array:
    """One key a row, shape [b]: a scalar key is folded with the row's number, keys of shape [b] are kept."""
    if key.ndim:
        return key
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch_size))


def sample_token(
    key: Array, logits_bv: Array, config: SamplingConfig, seen_bv: Array | None = None
) -> tuple[Array, Array]:
    """One token a row: ``(token_b int32, logprob_b f32)``.

    ``key``: typed keys, one a row (shape [b]) or one for all (each row folds its number into it); a row's draw then
    depends on its own key and logits only. ``seen_bv``: True on the tokens that the repetition penalty applies to.
    ``logprob_b``: natural log-probability of the token under softmax(logits), before any penalty or filter.
    """
    logits_bv = logits_bv.astype(jnp.float32)
    scores_bv = logits_bv
    if seen_bv is not None and config.repetition_penalty != 1:
        scores_bv = penalise(scores_bv, seen_bv, config.repetition_penalty)
    if config.temperature == 0:
        token_b = jnp.argmax(scores_bv, axis=-1)
    else:
        # Taking off the maximum first keeps tiny temperatures finite.
        scores_bv = (scores_bv - jnp.max(scores_bv, axis=-1, keepdims=True)) / config.temperature
        scores_bv = filter_logits(scores_bv, config)
        # Gumbel noise belongs to token ids, so rounding that reorders near-equal logits does not change the draw.
        draw = jax.vmap(lambda row_key: jax.random.gumbel(row_key, scores_bv.shape[-1:], jnp.float32))
        token_b = jnp.argmax(scores_bv + draw(row_keys(key, logits_bv.shape[0])), axis=-1)
    return token_b.astype(jnp.int32), token_logprobs(logits_bv, token_b)


def token_logprobs(logits_bv: Array, token_b: Array, *, temperature: float = 1.0) -> Array:
    """Log-probability of each row's token under ``softmax(logits / temperature)``, no filter applied, f32 [b]."""
    logits_bv = logits_bv.astype(jnp.float32)
    if temperature != 1:
        logits_bv = logits_bv / temperature
    chosen_b = jnp.take_along_axis(logits_bv, token_b[:, None], axis=-1)[:, 0]
    return chosen_b - jax.nn.logsumexp(logits_bv, axis=-1)
