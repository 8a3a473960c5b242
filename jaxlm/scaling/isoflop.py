"""Approaches 1 and 2 of Hoffmann et al. (2022): the best runs at each budget, and the power law through them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN
from jaxlm.scaling.fitting import interval

_SAME_BUDGET = 0.12
"""Runs whose log compute is nearer than this to the last belong to one budget."""
_WIDEST = 0.25
"""Of log compute within a budget: runs at all computes form a chain, and no budgets."""
_LEAST_RUNS = 4


class Budget(NamedTuple):
    """One budget: its parabola ``loss = c0 + c1 u + c2 u^2`` in u = log N, and where that is lowest."""

    flops: float
    num_params_r: np.ndarray
    num_tokens_r: np.ndarray
    loss_r: np.ndarray
    best_params: float
    best_tokens: float
    best_loss: float
    inside: bool
    """Whether the lowest point lies among the runs, and the parabola opens upwards."""


class PowerLaw(NamedTuple):
    """``coefficient * C^exponent``."""

    coefficient: float
    exponent: float
    coefficients_b: np.ndarray
    exponents_b: np.ndarray
    """Of each resample."""

    def at(self, flops: Any) -> Any:
        return self.coefficient * np.power(flops, self.exponent)

    def interval_at(self, flops: float) -> tuple[float, float]:
        return interval(self.coefficients_b * np.power(flops, self.exponents_b))

    @property
    def exponent_interval(self) -> tuple[float, float]:
        return interval(self.exponents_b)


@dataclasses.dataclass(frozen=True)
class IsoFlopFit:
    """N_opt and D_opt as powers of compute."""

    budgets: tuple[Budget, ...]
    params: PowerLaw
    tokens: PowerLaw
    embeddings: bool
    """Whether N counts embeddings."""


def group_budgets(flops: Any) -> list[np.ndarray]:
    """Places of the runs of each budget, smallest budget first."""
    logs = np.log(np.asarray(flops, np.float64))
    order = np.argsort(logs, kind="stable")
    cuts = np.flatnonzero(np.diff(logs[order]) > _SAME_BUDGET) + 1
    return np.split(order, cuts)


def fit_isoflop(
    num_params: Any, num_tokens: Any, loss: Any, *, flops: Any = None, resamples: int = 1000, seed: int = 0,
    embeddings: bool = True,
) -> IsoFlopFit:  # fmt: skip
    """Approach 2: a parabola of loss in log N at each budget, its lowest point, and a power law through those.

    Args:
      num_params: N of each run, with embeddings unless ``embeddings=False``.
      num_tokens: D.
      loss: nats a token.
      flops: compute of each run; 6ND unless given. Runs within a tenth are one budget.
      resamples: of the runs of every budget, with replacement, for intervals.
      seed: of the resamples.
      embeddings: whether N counts embeddings; kept and stated.

    Raises:
      ValueError: where fewer than 3 budgets have at least 4 sizes and a lowest loss between them.
    """
    n, d, loss_n = (np.asarray(x, np.float64) for x in (num_params, num_tokens, loss))
    flops_n = FLOPS_PER_PARAM_TOKEN * n * d if flops is None else np.asarray(flops, np.float64)
    for name, values in (("N", n), ("D", d), ("loss", loss_n), ("C", flops_n)):
        if values.shape != loss_n.shape or not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"{name} must be one number above 0 of each run, and not NaN")
    groups = [
        group
        for group in group_budgets(flops_n)
        if len(np.unique(n[group])) >= _LEAST_RUNS and np.ptp(np.log(flops_n[group])) <= _WIDEST
    ]
    budgets = [_budget(flops_n[g], n[g], d[g], loss_n[g]) for g in groups]
    good = [i for i, one in enumerate(budgets) if one.inside]
    if len(good) < 3:
        raise ValueError(
            f"needs at least 3 budgets with {_LEAST_RUNS} values of N and the lowest loss between them, and there are "
            f"{len(good)} of {len(budgets)}"
        )
    rng = np.random.default_rng(seed)
    best_bg = np.full((resamples, len(good)), np.nan)
    for column, i in enumerate(good):
        group = groups[i]
        pick_br = rng.integers(len(group), size=(resamples, len(group)))
        best_bg[:, column] = _vertices(np.log(n[group])[pick_br], loss_n[group][pick_br])
    kept = [budgets[i] for i in good]
    log_c = np.log([one.flops for one in kept])
    # D at the best N follows from the budget, by the tokens that its runs took times their size.
    product = np.array([np.median(one.num_params_r * one.num_tokens_r) for one in kept])
    best_n = np.log([one.best_params for one in kept])
    return IsoFlopFit(
        tuple(budgets),
        _power_law(log_c, best_n, best_bg),
        _power_law(log_c, np.log(product) - best_n, np.log(product) - best_bg),
        embeddings,
    )


def fit_envelope(
    flops: Any, num_params: Any, num_tokens: Any, loss: Any, *, bins: int = 100, resamples: int = 1000, seed: int = 0,
    embeddings: bool = True,
) -> IsoFlopFit:  # fmt: skip
    """Approach 1: of all points of all training curves, the lowest loss in each of ``bins`` logarithmic bins of
    compute, and a power law through the N and D that reached it.

    A point is kept where it is lower than all with less compute. Raises ValueError for fewer than 3 such points of
    different N.
    """
    c, n, d, loss_n = (np.asarray(x, np.float64) for x in (flops, num_params, num_tokens, loss))
    edges = np.linspace(np.log(c.min()), np.log(c.max()) + 1e-9, bins + 1)
    place = np.digitize(np.log(c), edges)
    lowest = [g[loss_n[g].argmin()] for g in (np.flatnonzero(place == b) for b in np.unique(place))]
    best = np.minimum.accumulate(loss_n[lowest])
    front = np.array([i for i, low in zip(lowest, best, strict=True) if loss_n[i] <= low])
    if len(np.unique(n[front])) < 3:
        raise ValueError(
            f"needs at least 3 values of N that are best somewhere, and there are {len(np.unique(n[front]))}"
        )
    points = []
    for i in front:
        best_n, best_d, lowest_loss = float(n[i]), float(d[i]), float(loss_n[i])
        points.append(Budget(float(c[i]), n[[i]], d[[i]], loss_n[[i]], best_n, best_d, lowest_loss, True))
    pick_bg = np.random.default_rng(seed).integers(len(front), size=(resamples, len(front)))
    log_c = np.log(c[front])
    params, tokens = (_power_law(log_c, np.log(x[front]), pick_bg=pick_bg) for x in (n, d))
    return IsoFlopFit(tuple(points), params, tokens, embeddings)


def leave_largest_budget_out(budgets: Sequence[Budget]) -> tuple[float, float]:
    """(predicted N_opt / that of the parabola, excess of the largest budget's loss at the predicted N, by its own
    parabola, as a share of it) where the power law is that of the smaller budgets."""
    kept = [one for one in budgets if one.inside]
    last = kept[-1]
    slope, offset = np.polyfit(np.log([b.flops for b in kept[:-1]]), np.log([b.best_params for b in kept[:-1]]), 1)
    predicted = offset + slope * np.log(last.flops)
    parabola = np.polyfit(np.log(last.num_params_r), last.loss_r, 2)
    return float(np.exp(predicted) / last.best_params), float(np.polyval(parabola, predicted) / last.best_loss - 1)


def _budget(flops: np.ndarray, n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> Budget:
    u = np.log(n)
    bend, slope, offset = np.polyfit(u - u.mean(), loss, 2)
    lowest = -slope / (2 * bend) + u.mean() if bend > 0 else u[loss.argmin()]
    inside = bool(bend > 0 and u.min() < lowest < u.max())
    best = offset - slope**2 / (4 * bend) if bend > 0 else float(loss.min())
    tokens = float(np.median(n * d) / np.exp(lowest))
    order = np.argsort(n)
    return Budget(
        float(np.exp(np.log(flops).mean())), n[order], d[order], loss[order], float(np.exp(lowest)), tokens,
        float(best), inside,
    )  # fmt: skip


def _vertices(u_br: np.ndarray, loss_br: np.ndarray) -> np.ndarray:
    """log N of the lowest point of each parabola [b]; NaN where a resample has none inside its runs."""
    centre_b = u_br.mean(axis=1, keepdims=True)
    design_brk = np.stack([np.ones_like(u_br), u_br - centre_b, (u_br - centre_b) ** 2], axis=-1)
    gram_bkk = np.einsum("brk,brj->bkj", design_brk, design_brk)
    # Resamples with fewer than three different sizes have no parabola.
    flat_b = np.linalg.cond(gram_bkk) > 1e10
    gram_bkk[flat_b] = np.eye(3)
    right_bk = np.einsum("brk,br->bk", design_brk, loss_br)
    found_bk = np.linalg.solve(gram_bkk, right_bk[..., None])[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest_b = centre_b[:, 0] - found_bk[:, 1] / (2 * found_bk[:, 2])
    outside_b = (found_bk[:, 2] <= 0) | (lowest_b < u_br.min(axis=1)) | (lowest_b > u_br.max(axis=1)) | flat_b
    return np.where(outside_b, np.nan, lowest_b)


def _power_law(
    log_c: np.ndarray, log_y: np.ndarray, log_y_bg: np.ndarray | None = None, *, pick_bg: np.ndarray | None = None
) -> PowerLaw:
    """Least squares of log y on log C; resamples give y anew, or points of the line."""
    exponent, offset = np.polyfit(log_c, log_y, 1)
    if pick_bg is not None:
        x_bg, y_bg = log_c[pick_bg], log_y[pick_bg]
    else:
        assert log_y_bg is not None
        y_bg = log_y_bg[np.isfinite(log_y_bg).all(axis=1)]
        x_bg = np.broadcast_to(log_c, y_bg.shape)
    x_mean, y_mean = x_bg.mean(axis=1, keepdims=True), y_bg.mean(axis=1, keepdims=True)
    spread_b = ((x_bg - x_mean) ** 2).sum(axis=1)
    ok_b = spread_b > 0
    exponents = ((x_bg - x_mean) * (y_bg - y_mean)).sum(axis=1)[ok_b] / spread_b[ok_b]
    offsets = y_mean[ok_b, 0] - exponents * x_mean[ok_b, 0]
    return PowerLaw(float(np.exp(offset)), float(exponent), np.exp(offsets), exponents)
