"""Approaches 1 and 2 of Hoffmann et al. (2022): the best runs at each budget, and the power law through them."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.scaling.checks import check_positive, check_unlike
from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN
from jaxlm.scaling.fitting import interval

_SAME_BUDGET = 0.12
"""Runs whose log compute is nearer than this to the last belong to one budget."""
_WIDEST = 0.25
"""Of log compute within a budget: runs at all computes form a chain, and no budgets."""
_LEAST_RUNS = 4
_LEAST_RESAMPLES = 100
_LEAST_KEPT = 50
"""Of those asked for, with a lowest loss: fewer give no interval."""


class NoBudgetsError(ValueError):
    """Runs that were not made at budgets, or at too few sizes of each: these approaches say nothing of them."""


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
    share_kept: float
    """Share of the resamples that have a law: a lowest loss at the budget where fewest have one, or more than one N on
    the envelope."""


def group_budgets(flops: Any) -> list[np.ndarray]:
    """Places of the runs of each budget, smallest budget first."""
    logs = np.log(np.asarray(flops, np.float64))
    order = np.argsort(logs, kind="stable")
    cuts = np.flatnonzero(np.diff(logs[order]) > _SAME_BUDGET) + 1
    return np.split(order, cuts)


def between_budgets(flops: Any) -> list[float]:
    """FLOPs half way, by their logarithm, from the runs of each budget to those of the next; none where runs at all
    computes form a chain."""
    flops_n = np.asarray(flops, np.float64)
    groups = [flops_n[group] for group in group_budgets(flops_n)]
    if any(np.ptp(np.log(one)) > _WIDEST for one in groups):
        return []
    return [float(np.sqrt(one.max() * after.min())) for one, after in itertools.pairwise(groups)]


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
      resamples: of the runs of every budget, with replacement, for intervals. Where the parabola of one is lowest
        outside of its budget's runs, the end that it points at counts; one of fewer than 3 sizes has none, and
        another takes its place.
      seed: of the resamples.
      embeddings: whether N counts embeddings; kept and stated.

    Raises:
      NoBudgetsError: where fewer than 3 budgets have at least 4 sizes and a lowest loss between them, and where fewer
        than 50 resamples of one have a lowest loss.
      ValueError: for what is no number above 0, and for fewer than 100 resamples.
    """
    _check_resamples(resamples)
    n, d, loss_n = (np.asarray(x, np.float64) for x in (num_params, num_tokens, loss))
    flops_n = FLOPS_PER_PARAM_TOKEN * n * d if flops is None else np.asarray(flops, np.float64)
    check_positive({"loss": loss_n, "N": n, "D": d, "C": flops_n})
    check_unlike(n, d, loss_n)
    groups = [
        group
        for group in group_budgets(flops_n)
        if len(np.unique(n[group])) >= _LEAST_RUNS and np.ptp(np.log(flops_n[group])) <= _WIDEST
    ]
    budgets = [_budget(flops_n[g], n[g], d[g], loss_n[g]) for g in groups]
    good = [i for i, one in enumerate(budgets) if one.inside]
    if len(good) < 3:
        raise NoBudgetsError(
            f"needs at least 3 budgets with {_LEAST_RUNS} values of N and the lowest loss between them, and there are "
            f"{len(good)} of {len(budgets)}"
        )
    rng = np.random.default_rng(seed)
    lowest = []
    for i in good:
        group = groups[i]
        pick_br = rng.integers(len(group), size=(resamples, len(group)))
        u = np.log(n[group])
        best_b = _lowest(u[pick_br], loss_n[group][pick_br], (u.min(), u.max()))
        lowest.append(best_b[np.isfinite(best_b)])
    # Budgets are drawn apart from each other, so that one's draws go with any of another's: a resample without a
    # parabola at one budget is no reason to lose what it has at the others.
    fewest = min(map(len, lowest))
    if fewest < _LEAST_KEPT:
        raise NoBudgetsError(
            f"only {fewest} of {resamples} resamples have a lowest loss at every budget: more sizes at each budget, or "
            "more resamples"
        )
    best_bg = np.stack([best_b[:fewest] for best_b in lowest], axis=1)
    kept = [budgets[i] for i in good]
    log_c = np.log([one.flops for one in kept])
    # D at the best N follows from the budget, by the tokens that its runs took times their size.
    product = np.array([np.median(one.num_params_r * one.num_tokens_r) for one in kept])
    best_n = np.log([one.best_params for one in kept])
    ones_bg = np.ones_like(best_bg)
    return IsoFlopFit(
        tuple(budgets),
        _power_law(log_c, best_n, best_bg, ones_bg),
        _power_law(log_c, np.log(product) - best_n, np.log(product) - best_bg, ones_bg),
        embeddings,
        fewest / resamples,
    )


def fit_envelope(
    flops: Any, num_params: Any, num_tokens: Any, loss: Any, *, bins: int | Sequence[float] = 100,
    resamples: int = 1000, seed: int = 0, embeddings: bool = True,
) -> IsoFlopFit:  # fmt: skip
    """Approach 1: of all points of all training curves, the lowest loss in each bin of compute, and a power law through
    the N and D that reached it. ``bins``: how many, of one logarithmic width; or the FLOPs between them.

    A point is kept where it is lower than all with less compute. Resamples draw the values of N, all points of one
    together: neighbours of one curve are no independent observations. Raises NoBudgetsError for fewer than 3 such
    points of different N, ValueError for what is no number above 0.
    """
    _check_resamples(resamples)
    c, n, d, loss_n = (np.asarray(x, np.float64) for x in (flops, num_params, num_tokens, loss))
    check_positive({"loss": loss_n, "N": n, "D": d, "C": c})
    if isinstance(bins, int):
        edges = np.linspace(np.log(c.min()), np.log(c.max()) + 1e-9, bins + 1)
    else:
        edges = np.log(np.asarray(bins, np.float64))
    place = np.digitize(np.log(c), edges)
    lowest = [g[loss_n[g].argmin()] for g in (np.flatnonzero(place == b) for b in np.unique(place))]
    best = np.minimum.accumulate(loss_n[lowest])
    front = np.array([i for i, low in zip(lowest, best, strict=True) if loss_n[i] <= low])
    sizes, place = np.unique(n[front], return_inverse=True)
    if len(sizes) < 3:
        raise NoBudgetsError(f"needs at least 3 values of N that are best somewhere, and there are {len(sizes)}")
    points = []
    for i in front:
        best_n, best_d, lowest_loss = float(n[i]), float(d[i]), float(loss_n[i])
        points.append(Budget(float(c[i]), n[[i]], d[[i]], loss_n[[i]], best_n, best_d, lowest_loss, True))
    times_bs = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    several_b = (times_bs > 0).sum(axis=1) > 1
    weights_bg = times_bs[several_b][:, place].astype(np.float64)
    log_c = np.log(c[front])
    params, tokens = (
        _power_law(log_c, np.log(x[front]), np.broadcast_to(np.log(x[front]), weights_bg.shape), weights_bg)
        for x in (n, d)
    )
    return IsoFlopFit(tuple(points), params, tokens, embeddings, float(several_b.mean()))


def leave_largest_budget_out(budgets: Sequence[Budget]) -> tuple[float, float]:
    """(predicted N_opt / that of the parabola, excess of the largest budget's loss at the predicted N, by its own
    parabola, as a share of it) where the power law is that of the smaller budgets."""
    kept = [one for one in budgets if one.inside]
    last = kept[-1]
    slope, offset = np.polyfit(np.log([b.flops for b in kept[:-1]]), np.log([b.best_params for b in kept[:-1]]), 1)
    predicted = offset + slope * np.log(last.flops)
    parabola = np.polyfit(np.log(last.num_params_r), last.loss_r, 2)
    return float(np.exp(predicted) / last.best_params), float(np.polyval(parabola, predicted) / last.best_loss - 1)


def lowest_of_parabola(u: np.ndarray, y: np.ndarray) -> tuple[float, float, bool]:
    """Where the parabola through points is lowest, its value there, and whether that lies among them; of one that opens
    downwards the lowest point."""
    bend, slope, offset = np.polyfit(u - u.mean(), y, 2)
    if not bend > 0:
        return float(u[y.argmin()]), float(y.min()), False
    place = -slope / (2 * bend) + u.mean()
    return float(place), float(offset - slope**2 / (4 * bend)), bool(u.min() < place < u.max())


def _budget(flops: np.ndarray, n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> Budget:
    lowest, best, inside = lowest_of_parabola(np.log(n), loss)
    tokens = float(np.median(n * d) / np.exp(lowest))
    order = np.argsort(n)
    return Budget(
        float(np.exp(np.log(flops).mean())), n[order], d[order], loss[order], float(np.exp(lowest)), tokens, best,
        inside,
    )  # fmt: skip


def _check_resamples(resamples: int) -> None:
    if resamples < _LEAST_RESAMPLES:
        raise ValueError(f"resamples={resamples} is too few for intervals: use at least {_LEAST_RESAMPLES}")


def _lowest(u_br: np.ndarray, loss_br: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """log N between the ends at which each parabola is lowest [b]; NaN for one of fewer than three sizes."""
    centre_b = u_br.mean(axis=1, keepdims=True)
    design_brk = np.stack([np.ones_like(u_br), u_br - centre_b, (u_br - centre_b) ** 2], axis=-1)
    gram_bkk = np.einsum("brk,brj->bkj", design_brk, design_brk)
    flat_b = np.linalg.cond(gram_bkk) > 1e10
    gram_bkk[flat_b] = np.eye(3)
    right_bk = np.einsum("brk,br->bk", design_brk, loss_br)
    found_bk = np.linalg.solve(gram_bkk, right_bk[..., None])[..., 0]
    slope_b, bend_b = found_bk[:, 1], found_bk[:, 2]
    low_b, high_b = (end - centre_b[:, 0] for end in ends)
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex_b = np.clip(-slope_b / (2 * bend_b), low_b, high_b)
    # One that opens downwards has its lowest loss at an end: a parabola's mean slope between two points tells which.
    end_b = np.where(slope_b + bend_b * (low_b + high_b) > 0, low_b, high_b)
    return np.where(flat_b, np.nan, np.where(bend_b > 0, vertex_b, end_b) + centre_b[:, 0])


def _power_law(log_c: np.ndarray, log_y: np.ndarray, log_y_bg: np.ndarray, weights_bg: np.ndarray) -> PowerLaw:
    """Least squares of log y on log C; each resample has its own y, and its own weights of the points."""
    exponent, offset = np.polyfit(log_c, log_y, 1)
    total_b = weights_bg.sum(axis=1, keepdims=True)
    x_mean, y_mean = ((weights_bg * z).sum(axis=1, keepdims=True) / total_b for z in (log_c, log_y_bg))
    x_bg = weights_bg * (log_c - x_mean)
    exponents = (x_bg * (log_y_bg - y_mean)).sum(axis=1) / (x_bg * (log_c - x_mean)).sum(axis=1)
    offsets = y_mean[:, 0] - exponents * x_mean[:, 0]
    return PowerLaw(float(np.exp(offset)), float(exponent), np.exp(offsets), exponents)
