"""Scores of trials over sizes: seeds pooled, with intervals, and what trend they show."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxlm.scaling.size_trend import Ladder, Shape, pool_seeds, size_trend

Scored = Mapping[str, float]
"""``value``, ``lower`` and ``upper``: a figure and its interval of 95 %."""
Curve = dict[str, list[float]]
"""``size``, ``value``, ``error``, ``lower``, ``upper``: one of each a size."""

_Z95 = 1.959964
_LEAST_ERROR = 1e-6
"""Where all items agree the interval has no width, and a test needs one."""
_LEAST_SIZES = 3


def scored(figures: Mapping[str, float], name: str, prefix: str = "") -> dict[str, float]:
    """The figure of an examination with the ends of its interval."""
    return {"value": figures[name], "lower": figures[f"{prefix}lower"], "upper": figures[f"{prefix}upper"]}


def pool_scores(sizes: Sequence[float], scores: Sequence[Scored]) -> Ladder:
    """Seeds of one size as their mean: what they differ by is in the errors."""
    errors = [max(_LEAST_ERROR, (one["upper"] - one["lower"]) / (2 * _Z95)) for one in scores]
    return pool_seeds(sizes, [one["value"] for one in scores], errors)


def over_sizes(sizes: Sequence[float], scores: Sequence[Scored]) -> Curve:
    """The same as a curve with intervals."""
    pooled = pool_scores(sizes, scores)
    if pooled.scatter is None:  # as they were found: an interval of a share is not even
        order = np.argsort(sizes)
        ends = {end: [scores[i][end] for i in order] for end in ("lower", "upper")}
    else:
        half_s = pooled.half_widths()
        ends = {end: (pooled.scores + sign * half_s).tolist() for end, sign in (("lower", -1), ("upper", 1))}
    return {"size": pooled.sizes.tolist(), "value": pooled.scores.tolist(), "error": pooled.errors.tolist(), **ends}


def trend_of(pooled: Ladder, *, seed: int) -> Shape | None:
    """Whether the value rises with size, falls, turns or does neither (`scaling.size_trend`); None for fewer than 3
    sizes."""
    if len(pooled.sizes) < _LEAST_SIZES:
        return None
    return size_trend(*pooled[:3], seed_errors=pooled.seed_errors, seed=seed).shape
