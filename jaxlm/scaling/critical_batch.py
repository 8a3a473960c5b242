"""The critical batch size: fitted to runs at several batches, and from gradients alone (McCandlish et al. 2018).

Steps S and tokens T that reach one loss at batch B lie on (S / S_min - 1)(T / T_min - 1) = 1 (their eq. 2.11), so that
S = S_min (1 + B_crit / B) with B_crit = T_min / S_min. Kaplan et al. (2020, eq. 1.4) have B_crit = B_* / L^(1/alpha_B).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.scaling.checks import check_positive, distinct
from jaxlm.scaling.fitting import interval, resample_weights
from jaxlm.scaling.minimise import minimise

_LEAST_BATCHES = 3
_GRID = np.log(np.geomspace(1e-3, 1e3, 13))
"""Starts of log B_crit about the mean log batch."""


@dataclasses.dataclass(frozen=True)
class CriticalBatch:
    """What the trade of steps for tokens is at one loss."""

    min_steps: float
    """At batches far above the critical one."""
    batch_tokens: float
    """B_crit: there twice the least steps and twice the least tokens are used."""
    draws_b2: np.ndarray
    """log of the two in each resample."""

    @property
    def min_tokens(self) -> float:
        """At batches far below the critical one."""
        return self.min_steps * self.batch_tokens

    def steps_at(self, batch_tokens: Any) -> Any:
        """Steps to the same loss at a batch."""
        return self.min_steps * (1 + self.batch_tokens / np.asarray(batch_tokens, np.float64))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % of each, the middle of the resamples."""
        steps_b, batch_b = np.exp(self.draws_b2.T)
        found = {"min_steps": steps_b, "batch_tokens": batch_b, "min_tokens": steps_b * batch_b}
        return {name: interval(values) for name, values in found.items()}


def _apart(theta: jax.Array, weight_n: jax.Array, shared: Any) -> jax.Array:
    log_batch_n, log_steps_n = shared
    predicted_n = theta[0] + jnp.logaddexp(0.0, theta[1] - log_batch_n)
    return (weight_n * (predicted_n - log_steps_n) ** 2).sum() / weight_n.sum()


def fit_critical_batch(batch_tokens: Any, steps_to_loss: Any, *, resamples: int = 1000, seed: int = 0) -> CriticalBatch:
    """Least squares of log steps over runs that reached one loss, each at its best rate.

    Args:
      batch_tokens: tokens a step of each run [n].
      steps_to_loss: steps that each needed [n].
      resamples: of the runs, with replacement.
      seed: of the resamples.

    Raises:
      ValueError: for fewer than 3 batches, what is no number above 0, and runs that all lie on one side: steps that do
        not change with the batch (far above it) or change as 1 / batch (far below).
    """
    batch_n, steps_n = np.asarray(batch_tokens, np.float64), np.asarray(steps_to_loss, np.float64)
    check_positive({"batch": batch_n, "steps": steps_n})
    if distinct(batch_n) < _LEAST_BATCHES:
        raise ValueError(f"needs at least {_LEAST_BATCHES} batch sizes, and there are {distinct(batch_n)}")
    log_batch_n, log_steps_n = np.log(batch_n), np.log(steps_n)
    slope = float(np.polyfit(log_batch_n, log_steps_n, 1)[0])
    if slope > -0.02 or slope < -0.98:
        side, mend = ("above", "smaller") if slope > -0.02 else ("below", "larger")
        raise ValueError(
            f"steps change as batch^{slope:.2f}: all batches are far {side} the critical one, add {mend} ones"
        )
    shared, centre = (log_batch_n, log_steps_n), log_batch_n.mean()
    starts = np.stack([np.full(len(_GRID), log_steps_n.min()), centre + _GRID], axis=1)
    found = minimise(_apart, starts, np.ones((1, len(batch_n))), shared)
    best_p = found.theta_bp[found.value_b.argmin()]
    weights_bn = resample_weights(len(batch_n), resamples, seed) if resamples else np.ones((1, len(batch_n)))
    # A resample of one batch alone has no trade: it says nothing.
    told_b = np.array([distinct(batch_n[row > 0]) > 1 for row in weights_bn])
    weights_bn = weights_bn[told_b]
    draws = minimise(_apart, np.repeat(best_p[None], len(weights_bn), axis=0), weights_bn, shared).theta_bp
    return CriticalBatch(float(np.exp(best_p[0])), float(np.exp(best_p[1])), draws)


class CriticalBatchLaw(NamedTuple):
    """B_crit = ``scale`` / L^(1 / ``alpha``): Kaplan found 2.1e8 tokens and 0.21 (eq. 1.4)."""

    scale: float
    alpha: float
    draws_b2: np.ndarray
    """log of scale, and 1 / alpha, in each resample."""

    def at(self, loss: Any) -> Any:
        """Tokens a step."""
        return self.scale / np.asarray(loss, np.float64) ** (1 / self.alpha)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % of both; those of alpha through 1 / alpha, which may hold 0: then alpha has no upper end."""
        scale_b, low_high = np.exp(self.draws_b2[:, 0]), interval(self.draws_b2[:, 1])
        top = 1 / low_high[0] if low_high[0] > 0 else np.inf
        return {"scale": interval(scale_b), "alpha": (float(1 / low_high[1]), float(top))}


def fit_critical_batch_law(
    loss: Any, batch_tokens: Any, *, resamples: int = 1000, seed: int = 0
) -> CriticalBatchLaw:  # fmt: skip
    """Least squares of log B_crit in log loss; ``batch_tokens`` is the critical one at each loss (3 losses at least).

    Raises ValueError for too few, what is no number above 0, and a critical batch that does not grow as the loss falls.
    """
    loss_n, batch_n = np.asarray(loss, np.float64), np.asarray(batch_tokens, np.float64)
    check_positive({"loss": loss_n, "batch": batch_n})
    if distinct(loss_n) < _LEAST_BATCHES:
        raise ValueError(f"needs at least {_LEAST_BATCHES} losses, and there are {distinct(loss_n)}")
    weights_bn = np.concatenate([np.ones((1, len(loss_n))), resample_weights(len(loss_n), resamples, seed)])
    weights_bn = weights_bn[[distinct(loss_n[row > 0]) > 1 for row in weights_bn]]
    design_n2 = np.stack([np.ones(len(loss_n)), -np.log(loss_n)], axis=1)
    root_bn = np.sqrt(weights_bn)
    lines_b2 = np.stack([np.linalg.lstsq(design_n2 * r[:, None], np.log(batch_n) * r, rcond=None)[0] for r in root_bn])
    intercept, inverse_alpha = lines_b2[0]
    if inverse_alpha <= 0:
        raise ValueError("the critical batch does not grow as the loss falls: no law can be read off these")
    return CriticalBatchLaw(float(np.exp(intercept)), float(1 / inverse_alpha), lines_b2[1:])


class NoiseScale(NamedTuple):
    """The simple noise scale: an estimate of the critical batch from gradients of one model."""

    squared_norm: float
    """|G|^2 of the true gradient, unbiased; where it is not above 0, more batches are needed."""
    trace: float
    """Of the covariance of one token's gradient, unbiased."""

    @property
    def batch_tokens(self) -> float:
        """B_simple = trace / |G|^2; infinite where the gradient cannot be told from noise."""
        return self.trace / self.squared_norm if self.squared_norm > 0 else float("inf")


def noise_scale(small_batch: float, small_squared: Any, large_batch: float, large_squared: Any) -> NoiseScale:
    """From mean squared gradient norms at two batch sizes, each over many batches (their appendix A.1).

    Raises ValueError unless the first batch is smaller.
    """
    if not 0 < small_batch < large_batch:
        raise ValueError(f"batches {small_batch:g} and {large_batch:g}: the smaller one first")
    small, large = float(np.mean(small_squared)), float(np.mean(large_squared))
    squared_norm = (large_batch * large - small_batch * small) / (large_batch - small_batch)
    trace = (small - large) / (1 / small_batch - 1 / large_batch)
    return NoiseScale(squared_norm, trace)
