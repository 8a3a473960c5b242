"""The best learning rate and batch size as powers of N and D (Step Law: Li et al. 2025), fitted to sweeps."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxlm.scaling.checks import check_positive, distinct
from jaxlm.scaling.fitting import interval

NEAR_BEST = 0.0025
"""Runs within this of their (N, D)'s lowest loss count as best: one run alone is a point of the sweep's grid."""

_COLLINEAR = 1e10
"""Condition of the normal equations from which on N and D are taken to lie on one line."""


class LogLinear(NamedTuple):
    """``exp(intercept) N^slope_n D^slope_d``; a law of D alone has slope_n = 0."""

    intercept: float
    slope_n: float
    slope_d: float
    draws_bk: np.ndarray

    def at(self, num_params: Any, num_tokens: Any) -> Any:
        return np.exp(self.intercept) * np.power(num_params, self.slope_n) * np.power(num_tokens, self.slope_d)

    def interval_at(self, num_params: float, num_tokens: float) -> tuple[float, float]:
        low, high = interval(self.draws_bk @ np.array([1.0, np.log(num_params), np.log(num_tokens)]))
        return float(np.exp(low)), float(np.exp(high))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        low_k, high_k = interval(self.draws_bk)
        names = ("intercept", "slope_n", "slope_d")
        return {name: (float(low), float(high)) for name, low, high in zip(names, low_k, high_k, strict=True)}


PUBLISHED_LR = LogLinear(float(np.log(1.79)), -0.713, 0.307, np.zeros((0, 3)))
"""Peak learning rate (Li et al. 2025, eq. 1; N without embeddings)."""
PUBLISHED_BATCH = LogLinear(float(np.log(0.58)), 0.0, 0.571, np.zeros((0, 3)))
"""Tokens in a batch."""


@dataclasses.dataclass(frozen=True)
class StepLawFit:
    """Rate of N and D, batch of D. N without embeddings, as in the sweeps of the paper, unless ``embeddings``."""

    lr: LogLinear
    batch_tokens: LogLinear
    num_near_best: int
    embeddings: bool
    share_kept: float = 1.0
    """Share of the resamples in which N and D vary apart: the others have no law."""


def fit_step_law(
    num_params: Any, num_tokens: Any, lr: Any, batch_tokens: Any, loss: Any, *, resamples: int = 1000, seed: int = 0,
    embeddings: bool = False,
) -> StepLawFit:  # fmt: skip
    """Least squares in logarithms over the runs within `NEAR_BEST` of the lowest loss of their (N, D).

    Resamples draw (N, D) pairs with replacement, all near-best runs of one together: those are no independent
    observations. Raises ValueError for what is no number above 0, and for fewer than 3 values of N or D, or where
    they do not vary apart.
    """
    n, d, rate, batch, loss_n = (np.asarray(x, np.float64) for x in (num_params, num_tokens, lr, batch_tokens, loss))
    check_positive({"loss": loss_n, "N": n, "D": d, "rate": rate, "batch": batch})
    for name, values in (("N", n), ("D", d)):
        if distinct(values) < 3:
            raise ValueError(f"needs at least 3 values of {name}, and there are {distinct(values)}")
    pairs, place = np.unique(np.stack([n, d]), axis=1, return_inverse=True)
    num_pairs = pairs.shape[1]
    lowest = np.full(num_pairs, np.inf)
    np.minimum.at(lowest, place, loss_n)
    near = loss_n <= lowest[place] * (1 + NEAR_BEST)
    design = np.stack([np.ones(near.sum()), np.log(n[near]), np.log(d[near])], axis=1)
    times_bp = np.random.default_rng(seed).multinomial(num_pairs, np.full(num_pairs, 1 / num_pairs), size=resamples)
    apart_b = _vary_apart(np.log(pairs), np.concatenate([np.ones((1, num_pairs), int), times_bp]))
    if not apart_b[0]:
        raise ValueError("N and D do not vary apart: needs pairs of N and D that lie on no one power law")
    apart_b = apart_b[1:]
    weights_bn = times_bp[apart_b][:, place[near]].astype(np.float64)
    return StepLawFit(
        _log_linear(design, np.log(rate[near]), weights_bn, (0, 1, 2)),
        _log_linear(design, np.log(batch[near]), weights_bn, (0, 2)),
        int(near.sum()),
        embeddings,
        float(apart_b.mean()) if resamples else 1.0,
    )


def excess_loss(fit: StepLawFit, num_params: Any, num_tokens: Any, lr: Any, batch_tokens: Any, loss: Any) -> float:
    """Mean share by which the loss lies above the lowest of a sweep, over its (N, D), at the swept rate and batch
    nearest (in logarithms) to what the law says."""
    n, d, rate, batch, loss_n = (np.asarray(x, np.float64) for x in (num_params, num_tokens, lr, batch_tokens, loss))
    found = []
    for one_n, one_d in {(x, y) for x, y in zip(n, d, strict=True)}:
        here = (n == one_n) & (d == one_d)
        apart = np.log(rate[here] / fit.lr.at(one_n, one_d)) ** 2
        apart += np.log(batch[here] / fit.batch_tokens.at(one_n, one_d)) ** 2
        found.append(loss_n[here][apart.argmin()] / loss_n[here].min() - 1)
    return float(np.mean(found))


def _vary_apart(log_kp: np.ndarray, times_bp: np.ndarray) -> np.ndarray:
    """Whether the pairs of each draw are no points of one line [b]."""
    # Of what is drawn, not of how often: a plane through three points off a line is a plane.
    drawn_bp = np.where(times_bp > 0, 1.0, 0.0)
    design_kp = np.concatenate([np.ones((1, log_kp.shape[1])), log_kp - log_kp.mean(axis=1, keepdims=True)])
    return np.linalg.cond(np.einsum("bp,kp,jp->bkj", drawn_bp, design_kp, design_kp)) < _COLLINEAR


def _log_linear(design: np.ndarray, target: np.ndarray, weights_bn: np.ndarray, used: tuple[int, ...]) -> LogLinear:
    x_nk = design[:, used]
    centre = x_nk.mean(axis=0)
    centre[0] = 0.0
    x_nk = x_nk - centre
    rows = np.concatenate([np.ones((1, len(target))), weights_bn])
    gram = np.einsum("bn,nk,nj->bkj", rows, x_nk, x_nk, optimize=True)
    right = np.einsum("bn,nk->bk", rows * target, x_nk)
    solved = np.linalg.solve(gram, right[..., None])[..., 0]
    solved[:, 0] -= solved[:, 1:] @ centre[1:]
    full = np.zeros((len(rows), 3))
    full[:, used] = solved
    intercept, slope_n, slope_d = (float(x) for x in full[0])
    return LogLinear(intercept, slope_n, slope_d, full[1:])
