"""Loss at equal compute of ladders that differ in one thing, their text: by how much, and what that is in compute.

No law is assumed. A ladder's frontier is the run of lowest loss at each budget, the mean of its seeds; between budgets
it is straight in logarithms. What seeds differ by, over all runs of all ladders, is the noise that intervals come of.
The compute-equivalent (as in Davidson et al. 2023): how many times the compute of the reference another ladder needs
for the same loss.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxlm.scaling.checks import check_positive

Trend = Literal["widens", "closes", "cannot tell"]
_LEAST_BUDGETS = 2
_DRAWS = 2000


class Frontier(NamedTuple):
    """The best run of each budget, the smallest first."""

    flops_k: np.ndarray
    log_loss_k: np.ndarray
    """Mean over seeds."""
    place_k: np.ndarray
    """Which size it is."""
    count_k: np.ndarray
    """Its seeds."""


class Noise(NamedTuple):
    """What seeds of one run differ by."""

    deviation: float
    """Standard deviation of log loss."""
    spare: int
    """Degrees of freedom."""


class AtBudget(NamedTuple):
    """One ladder against the reference at one budget."""

    flops: float
    gap: float
    """Loss over the reference's, less 1."""
    gap_interval: tuple[float, float]
    times: float
    """Compute that it needs over what the reference needs, for the higher loss of the two. Infinite (0) where the
    better one has lower losses at all budgets: then more (less) than ``bound``."""
    times_interval: tuple[float, float]
    bound: float
    """Compute of this budget over that of the smallest; its reciprocal where the reference is the worse one."""


class Comparison(NamedTuple):
    """One ladder against the reference."""

    budgets: tuple[AtBudget, ...]
    slope: float
    """Gap in log loss gained by a tenfold compute."""
    slope_interval: tuple[float, float]
    trend: Trend
    """Whether the gap, whichever sign it has, grows with compute."""


def find_frontier(budgets: Any, places: Any, flops: Any, losses: Any) -> Frontier:
    """The best run of each budget.

    Args:
      budgets: compute that each run was made for [n].
      places: its size, or whatever tells the runs of one budget apart but for their seed [n].
      flops: its compute [n].
      losses: nats a token [n].

    Raises:
      ValueError: for compute or losses that are not above 0.
    """
    budget_n, place_n, flops_n, loss_n = (np.asarray(x, np.float64) for x in (budgets, places, flops, losses))
    check_positive({"loss": loss_n, "C": flops_n})
    found = []
    for budget in np.unique(budget_n):
        means = []
        for place in np.unique(place_n[budget_n == budget]):
            here = (budget_n == budget) & (place_n == place)
            means.append((float(np.log(loss_n[here]).mean()), float(flops_n[here].mean()), place, here.sum()))
        found.append(min(means))
    log_loss_k, flops_k, place_k, count_k = (np.array(column) for column in zip(*found, strict=True))
    return Frontier(flops_k, log_loss_k, place_k, count_k)


def find_noise(groups: Any, losses: Any) -> Noise:
    """What runs of one group (all is the same but the seed) differ by. Raises ValueError where no group has two."""
    log_n = np.log(np.asarray(losses, np.float64))
    _, back_n, count_g = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    mean_g = np.bincount(back_n, weights=log_n) / count_g
    spare = int((count_g - 1).sum())
    if not spare:
        raise ValueError(
            "every run stands once: at least one needs a second seed, or there is no noise to compare with"
        )
    return Noise(float(np.sqrt(((log_n - mean_g[back_n]) ** 2).sum() / spare)), spare)


def compare(
    frontiers: Mapping[str, Frontier], reference: str, noise: Noise, *, level: float = 0.95, draws: int = _DRAWS,
    seed: int = 0,
) -> dict[str, Comparison]:  # fmt: skip
    """Every frontier but the reference's against that.

    Intervals are of the noise of seeds alone, Student's by draws: not of the choice of the best run, nor of the
    held-out text, which all share. Raises ValueError for frontiers of other budgets than the reference's, or of fewer
    than 2.
    """
    first = frontiers[reference]
    if len(first.flops_k) < _LEAST_BUDGETS:
        raise ValueError(f"needs at least {_LEAST_BUDGETS} budgets, and there are {len(first.flops_k)}")
    for name, one in frontiers.items():
        if one.flops_k.shape != first.flops_k.shape or np.abs(np.log(one.flops_k / first.flops_k)).max() > 0.5:
            raise ValueError(f"the budgets of {name!r} are not those of {reference!r}")
    rng = np.random.default_rng(seed)
    # One deviation a draw for all: what is known of it comes of the same few seeds.
    deviation_b = noise.deviation * np.sqrt(noise.spare / rng.chisquare(noise.spare, draws))
    drawn = {
        name: one.log_loss_k
        + deviation_b[:, None] * rng.standard_normal((draws, len(one.log_loss_k))) / np.sqrt(one.count_k)
        for name, one in frontiers.items()
    }
    return {
        name: _compare(one, first, drawn[name], drawn[reference], level)
        for name, one in frontiers.items()
        if name != reference
    }


def _compare(
    other: Frontier, reference: Frontier, other_bk: np.ndarray, reference_bk: np.ndarray, level: float
) -> Comparison:
    other_x_k, x_k = np.log(other.flops_k), np.log(reference.flops_k)
    gap_k, times_k, slope = _figures(other_x_k, other.log_loss_k, x_k, reference.log_loss_k)
    drawn = [_figures(other_x_k, *pair[:1], x_k, *pair[1:]) for pair in zip(other_bk, reference_bk, strict=True)]
    gap_bk, times_bk, slope_b = (np.array(column) for column in zip(*drawn, strict=True))
    low, high = _middle(slope_b, level)
    leaning = np.sign(gap_k.mean())
    trend: Trend = "widens" if min(leaning * low, leaning * high) > 0 else "cannot tell"
    if max(leaning * low, leaning * high) < 0:
        trend = "closes"
    budgets = []
    for k, flops in enumerate(reference.flops_k.tolist()):
        bound = float(np.exp(np.sign(gap_k[k]) * (x_k[k] - x_k[0])))
        gaps, times = (_middle(drawn_bk[:, k], level) for drawn_bk in (gap_bk, times_bk))
        budgets.append(
            AtBudget(
                flops,
                float(np.expm1(gap_k[k])),
                _both(np.expm1, gaps),
                float(np.exp(times_k[k])),
                _both(np.exp, times),
                bound,
            )
        )
    return Comparison(tuple(budgets), slope, (low, high), trend)


def _figures(
    other_x_k: np.ndarray, other_k: np.ndarray, x_k: np.ndarray, reference_k: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """(gap in log loss, log of the compute-equivalent) at each budget, and the slope of the gap a tenfold; ``x`` is log
    compute."""
    # The runs of a budget spend it in whole steps: those of other sizes a little more or less.
    gap_k = _line(x_k, other_x_k, other_k) - reference_k
    times_k = np.array([
        other_x_k[k] - _reached(other_k[k], x_k, reference_k) if gap > 0
        else _reached(reference_k[k], other_x_k, other_k) - x_k[k]
        for k, gap in enumerate(gap_k)
    ])  # fmt: skip
    return gap_k, times_k, float(np.polyfit(x_k / np.log(10), gap_k, 1)[0])


def _line(at_m: np.ndarray, x_k: np.ndarray, y_k: np.ndarray) -> np.ndarray:
    """Straight between the points, and on from the outer ones."""
    found_m = np.interp(at_m, x_k, y_k)
    for outside_m, one, two in ((at_m < x_k[0], 0, 1), (at_m > x_k[-1], -1, -2)):
        slope = (y_k[two] - y_k[one]) / (x_k[two] - x_k[one])
        found_m = np.where(outside_m, y_k[one] + slope * (at_m - x_k[one]), found_m)
    return found_m


def _reached(log_loss: float, x_k: np.ndarray, log_loss_k: np.ndarray) -> float:
    """log compute at which a frontier first comes down to a loss; minus infinity where it is below it at once. The
    better frontier reaches it by its last budget, but for the steps that budgets are rounded to."""
    lowest_k = np.minimum.accumulate(log_loss_k)
    if log_loss > lowest_k[0]:
        return -np.inf
    if log_loss <= lowest_k[-1]:
        return float(x_k[int(np.argmin(lowest_k))])
    at = int(np.argmax(lowest_k <= log_loss))
    if at == 0:
        return float(x_k[0])
    share = (lowest_k[at - 1] - log_loss) / (lowest_k[at - 1] - lowest_k[at])
    return float(x_k[at - 1] + share * (x_k[at] - x_k[at - 1]))


def _middle(draws_b: np.ndarray, level: float) -> tuple[float, float]:
    """Draws themselves, as some are infinite."""
    order = np.sort(draws_b)
    cut = round(len(order) * (1 - level) / 2)
    return float(order[cut]), float(order[-1 - cut])


def _both(change: Any, ends: tuple[float, float]) -> tuple[float, float]:
    return float(change(ends[0])), float(change(ends[1]))
