"""Two arms measured in pairs (the same seed, the same item): is one better, and by how much at least?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class PairedDifference(NamedTuple):
    """Mean of a - b over pairs, and its two-sided interval by Student's t."""

    difference: float
    lower: float
    upper: float
    num_pairs: int


def paired_difference(a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95) -> PairedDifference:
    """Raises ValueError for fewer than two pairs: they have no spread."""
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"{len(a)} and {len(b)} values are not two pairs or more")
    d = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))
    mean = float(d.mean())
    return PairedDifference(mean, mean - half, mean + half, len(d))
