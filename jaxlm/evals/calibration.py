"""Is a model right as often as it says? Expected calibration error, and Brier's score."""

import math
from typing import Any

import numpy as np

from jaxlm.evals.intervals import Values


def calibration_error(
    stated: np.ndarray, right: np.ndarray, *, num_bins: int = 10, lowest: float = 0.0
) -> dict[str, Any]:
    """``bins``: of equal width from ``lowest`` to 1, those that hold anything, each with ``stated`` (the mean
    probability said), ``right`` (the share that was right) and ``count``; ``error``: the mean gap, weighted by count
    (expected calibration error; Guo et al. 2017, eq. 5), NaN for nothing.

    ``stated``: probability of being right, [n]; ``right``: 1, 0 or between, [n].
    """
    number = np.minimum(((stated - lowest) / (1 - lowest) * num_bins).astype(int), num_bins - 1)
    bins = [
        {"stated": float(stated[here].mean()), "right": float(right[here].mean()), "count": int(here.sum())}
        for here in (number == i for i in range(num_bins))
        if here.any()
    ]
    total = sum(one["count"] for one in bins)
    error = sum(one["count"] * abs(one["stated"] - one["right"]) for one in bins) / total if total else math.nan
    return {"error": error, "bins": bins}


def choice_probabilities(logprobs: Values) -> np.ndarray:
    """Probabilities of choices given that one of them is said: the softmax of their log-probabilities, float64. Where
    all are impossible (log-probability minus infinity) none is likelier than another."""
    values = np.asarray(logprobs, np.float64)
    if np.isneginf(values).all():
        return np.full(len(values), 1 / len(values))
    odds = np.exp(values - values.max())
    return odds / odds.sum()


def brier(probabilities: np.ndarray, gold: int) -> float:
    """Squared distance of the probabilities from the truth, 0 (sure and right) to 2 (sure and wrong; Brier 1950)."""
    truth = np.zeros(len(probabilities))
    truth[gold] = 1.0
    return float(np.sum((probabilities - truth) ** 2))
