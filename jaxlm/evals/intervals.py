"""How far a score can be trusted: intervals of means, shares and ratios over items, some of which belong together.

Items about one passage are right or wrong together. Where items name their cluster, the spread is taken between
clusters (the sandwich estimator of Liang and Zeger 1986, with its factor for few clusters); items without one stand
alone, and the interval is then the common one.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Values = np.ndarray | Sequence[float]


class Interval(NamedTuple):
    """A figure and its two-sided interval; NaN bounds where there are too few items for one."""

    value: float
    lower: float
    upper: float
    num_items: int
    num_clusters: int
    """Independent groups of items; ``num_items`` where each stands alone."""

    def record(self) -> dict[str, float]:
        """``value``, ``lower`` and ``upper``, for JSON; bounds that are NaN are left out."""
        bounds = {} if math.isnan(self.lower) else {"lower": self.lower, "upper": self.upper}
        return {"value": self.value, **bounds}

    def map(self, fn: Any) -> "Interval":
        """Value and bounds under an increasing function."""
        return self._replace(value=fn(self.value), lower=fn(self.lower), upper=fn(self.upper))


def wilson(share: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of a share of ``n`` independent items (Wilson 1927); ``n`` may be an effective number, not whole.

    >>> [round(bound, 4) for bound in wilson(81 / 263, 263)]
    [0.2553, 0.3662]
    """
    from scipy import special  # here, since every command imports this module: SciPy would be a fifth of its start

    z = float(special.ndtri(0.5 + confidence / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding must not leave a share of 0 or 1 outside of its interval.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _students(share: float, degrees: float) -> float:
    """Below which a ``share`` of Student's t lies."""
    from scipy import special

    return float(special.stdtrit(degrees, share))


def cluster_numbers(names: Sequence[str]) -> np.ndarray:
    """The number of each item's cluster, int64 [n]; an item with no name ("") is a cluster of its own.

    >>> cluster_numbers(["a", "", "a", ""]).tolist()
    [0, 1, 0, 2]
    """
    known: dict[Any, int] = {}
    return np.array([known.setdefault(name or (i,), len(known)) for i, name in enumerate(names)], np.int64)


def ratio(
    totals: Values, weights: Values, clusters: Sequence[str] | None = None, *, confidence: float = 0.95
) -> Interval:
    """``sum(totals) / sum(weights)`` over items: a mean where all weights are 1. Student's t between clusters; an
    infinite total makes the figure infinite (of both signs, NaN) and leaves it without an interval.

    Raises ValueError for no items, or weights that add up to nothing.
    """
    a, w = np.asarray(totals, np.float64), np.asarray(weights, np.float64)
    if not len(a) or len(a) != len(w) or w.sum() <= 0:
        raise ValueError(f"{len(a)} values and {len(w)} weights with the sum {w.sum() if len(w) else 0} have no ratio")
    with np.errstate(over="ignore", invalid="ignore"):  # infinities, of one sign or both
        value = float(a.sum() / w.sum())
    if not math.isfinite(value):
        number = len(a) if clusters is None else len(set(cluster_numbers(clusters).tolist()))
        return Interval(value, math.nan, math.nan, len(a), number)
    error, number = _standard_error(a - value * w, clusters)
    half = _students(0.5 + confidence / 2, number - 1) * error / float(w.sum()) if number > 1 else math.nan
    return Interval(value, value - half, value + half, len(a), number)


def mean(values: Values, clusters: Sequence[str] | None = None, *, confidence: float = 0.95) -> Interval:
    """The mean of any numbers. Of items alone the interval is Student's."""
    return ratio(values, np.ones(len(values)), clusters, confidence=confidence)


def share(values: Values, clusters: Sequence[str] | None = None, *, confidence: float = 0.95) -> Interval:
    """The mean of values in 0 .. 1 (1 = right): Wilson's interval, which keeps inside and has a width at 0 and 1 too.

    Clusters lower the number of items to the effective one, n over the design effect (Korn and Graubard 1998); where
    all items agree, which says nothing of that effect, to the number of clusters.
    """
    x = np.asarray(values, np.float64)
    if not len(x) or x.min() < 0 or x.max() > 1:
        raise ValueError(f"{len(x)} values are no share: give at least one, each in 0 .. 1")
    value = float(x.mean())
    error, number = _standard_error(x - value, clusters)
    effective = float(len(x))
    if number < len(x):
        alone = float(np.sum((x - value) ** 2)) * len(x) / (len(x) - 1)
        effective = min(effective, len(x) * alone / error**2) if error > 0 and alone > 0 else float(number)
    return Interval(value, *wilson(value, effective, confidence=confidence), len(x), number)


def mean_of_groups(parts: Sequence[Interval]) -> Interval:
    """The plain mean of independent groups' figures, each group counted once whatever its size (macro average).

    Each bound is as far off as the parts' bounds on that side, added in quadrature: at their level of confidence, and
    inside 0 .. 1 where they are (Zou and Donner 2008).
    """
    if not parts:
        raise ValueError("no groups have no mean")
    value = sum(part.value for part in parts) / len(parts)
    below = math.sqrt(sum((part.value - part.lower) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(sum((part.upper - part.value) ** 2 for part in parts)) / len(parts)
    return Interval(
        value, value - below, value + above, sum(p.num_items for p in parts), sum(p.num_clusters for p in parts)
    )


def bootstrap(
    statistic: Any,
    columns: Sequence[np.ndarray],
    clusters: Sequence[str] | None = None,
    *,
    seed: int,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of any figure of items: ``statistic(*columns)``, whole clusters drawn anew with replacement
    (Efron 1979). For figures whose spread has no formula; the same seed gives the same bounds."""
    size = len(columns[0])
    numbers = np.arange(size) if clusters is None else cluster_numbers(clusters)
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(int(numbers.max()) + 2)) if size else np.zeros(1, int)
    members = [order[i:j] for i, j in itertools.pairwise(bounds)]
    if len(members) < 2:
        raise ValueError(f"{len(members)} clusters have no spread: give at least two")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        places = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        found.append(float(statistic(*(column[places] for column in columns))))
    lower, upper = np.quantile(found, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(statistic(*columns)), float(lower), float(upper), size, len(members))


def _standard_error(residuals: np.ndarray, clusters: Sequence[str] | None) -> tuple[float, int]:
    """Standard error of a sum of residuals, and the number of clusters: sqrt(g / (g - 1) sum_c (sum_i r_i)^2)."""
    if clusters is not None:
        residuals = np.bincount(cluster_numbers(clusters), weights=residuals)
    number = len(residuals)
    if number < 2:
        return math.nan, number
    return math.sqrt(number / (number - 1) * float(residuals @ residuals)), number
