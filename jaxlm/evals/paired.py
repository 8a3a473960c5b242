"""Two arms measured in pairs (the same seed, the same item): is one better, and by how much at least?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.evals import intervals
from jaxlm.evals.intervals import Values


class PairedDifference(NamedTuple):
    """Mean of a - b over pairs, and its two-sided interval by Student's t."""

    difference: float
    lower: float
    upper: float
    num_pairs: int


def paired_difference(
    a: Values, b: Values, clusters: Sequence[str] | None = None, *, confidence: float = 0.95
) -> PairedDifference:
    """The spread is taken between pairs, or between clusters of them (see `evals.intervals`).

    Raises ValueError for fewer than two of these: they have no spread.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"{len(a)} and {len(b)} values are not two pairs or more")
    if clusters is not None and len(clusters) != len(a):
        raise ValueError(f"{len(a)} pairs and {len(clusters)} clusters: name the cluster of each")
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    # Two that are impossible differ by nothing.
    differences = np.subtract(first, second, out=np.zeros_like(first), where=first != second)
    found = intervals.mean(differences, clusters, confidence=confidence)
    if found.num_clusters < 2:
        raise ValueError("pairs of one cluster have no spread: give two clusters or more")
    return PairedDifference(found.value, found.lower, found.upper, found.num_items)


def mcnemar(a: Values, b: Values) -> float:
    """p of McNemar's test in its exact form (1947): were two arms right on as many items, how likely is a split of
    the items on which one alone is right at least as uneven as this? Two-sided; 1 where they never differ.

    Values: 1 = right, 0 = wrong; raises ValueError for others.
    """
    right_a, right_b = np.asarray(a), np.asarray(b)
    if right_a.shape != right_b.shape or not np.isin(np.concatenate([right_a, right_b]), (0, 1)).all():
        raise ValueError("McNemar's test is of two arms on the same items, each value 0 or 1")
    only_a, only_b = int(np.sum(right_a > right_b)), int(np.sum(right_a < right_b))
    from scipy import stats

    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
