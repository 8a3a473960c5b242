"""Scores of trials over sizes: seeds pooled, with intervals, and what trend they show."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxlm.scaling.size_trend import Shape, pool_seeds, size_trend

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


def over_sizes(sizes: Sequence[float], scores: Sequence[Scored]) -> Curve:
    """Seeds of one size as their mean: what they differ by is in the errors, and in the interval."""
    errors = [max(_LEAST_ERROR, (one["upper"] - one["lower"]) / (2 * _Z95)) for one in scores]
    pooled = pool_seeds(sizes, [one["value"] for one in scores], errors)
    if pooled.scatter is None:  # as they were found: an interval of a share is not even
        order = np.argsort(sizes)
        ends = {end: [scores[i][end] for i in order] for end in ("lower", "upper")}
    else:
        ends = {
            end: (pooled.scores + sign * _Z95 * pooled.errors).tolist() for end, sign in (("lower", -1), ("upper", 1))
        }
    return {"size": pooled.sizes.tolist(), "value": pooled.scores.tolist(), "error": pooled.errors.tolist(), **ends}


def trend_of(curve: Curve, *, seed: int) -> Shape | None:
    """Whether the value rises with size, falls, turns or does neither (`scaling.size_trend`); None for fewer than 3
    sizes."""
    if len(curve["size"]) < _LEAST_SIZES:
        return None
    return size_trend(curve["size"], curve["value"], curve["error"], seed=seed).shape
