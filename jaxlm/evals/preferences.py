"""How well rewards order answers that people ranked: accuracy with its interval, calibration, what length explains."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.evals.calibration import calibration_error
from jaxlm.evals.classification import pearson
from jaxlm.evals.intervals import wilson

NUM_BINS = 5


class Pairs(NamedTuple):
    """Pairs of answers to one prompt, the first ranked before the second; [p] each."""

    row: np.ndarray
    """Which prompt."""
    difference: np.ndarray
    """Reward of the better answer less that of the worse one, float64."""
    longer: np.ndarray
    """Tokens of the better answer less those of the worse one."""


def ranked_pairs(rewards_nk: np.ndarray, ranks_nk: np.ndarray, mask_nk: np.ndarray, lengths_nk: np.ndarray) -> Pairs:
    """All pairs of different rank. ``mask_nk``: 1 = an answer."""
    both = (mask_nk[:, :, None] > 0) & (mask_nk[:, None, :] > 0)
    row, i, j = np.nonzero(both & (ranks_nk[:, :, None] < ranks_nk[:, None, :]))
    rewards, lengths = rewards_nk.astype(np.float64), lengths_nk.astype(np.float64)
    return Pairs(row, rewards[row, i] - rewards[row, j], lengths[row, i] - lengths[row, j])


def share_with_interval(right: np.ndarray, *, confidence: float = 0.95) -> dict[str, float]:
    """``accuracy`` (the mean of values in 0 .. 1), and ``lower`` and ``upper`` of Wilson's interval (1927); NaN for no
    values. Pairs of one ranking are taken as independent, which they are not: of longer rankings it is too narrow."""
    n = len(right)
    if n == 0:
        return {"accuracy": math.nan, "lower": math.nan, "upper": math.nan, "num_pairs": 0}
    mean = float(np.mean(right))
    lower, upper = wilson(mean, n, confidence=confidence)
    return {"accuracy": mean, "lower": lower, "upper": upper, "num_pairs": n}


def in_order(differences: np.ndarray) -> np.ndarray:
    """1 for a pair in the right order, 0 for a wrong one, 1/2 for equal values."""
    return (np.sign(differences) + 1) / 2


def by_source(pairs: Pairs, sources: Sequence[str]) -> dict[str, dict[str, float]]:
    """Accuracy of each source and of all pairs together, with the rule "the longer answer wins" beside it."""
    names = np.array(sources, object)[pairs.row] if len(pairs.row) else np.zeros(0, object)
    groups = {"all": np.ones(len(names), bool)}
    if len(set(sources)) > 1:
        groups |= {_source_name(name): names == name for name in sorted(set(sources))}
    return {
        name: share_with_interval(in_order(pairs.difference[here]))
        | {"longer_wins": float(np.mean(in_order(pairs.longer[here]))) if here.any() else math.nan}
        for name, here in groups.items()
    }


def _source_name(name: str) -> str:
    return {"": "(no source)", "all": "(source) all"}.get(name, str(name))


def calibration(differences: np.ndarray, *, num_bins: int = NUM_BINS) -> dict[str, Any]:
    """Is the model right as often as it says? Bradley-Terry gives the order it prefers the probability
    ``sigmoid(|difference|)``, 1/2 to 1. ``bins``: of equal width, those with pairs, each with ``stated`` (its mean),
    ``right`` (the share of pairs in that order) and ``count``; ``error``: the mean gap, weighted by count (expected
    calibration error; Guo et al. 2017, eq. 5).
    """
    stated = 1 / (1 + np.exp(-np.abs(differences)))
    return calibration_error(stated, in_order(differences), num_bins=num_bins, lowest=0.5)


def length_bias(pairs: Pairs, rewards_nk: np.ndarray, mask_nk: np.ndarray, lengths_nk: np.ndarray) -> dict[str, float]:
    """What length explains: of pairs of unequal length the share whose better answer is the longer one
    (``longer_is_better``) and whose longer answer has the higher reward (``longer_is_preferred``); accuracy on pairs
    whose better answer is the longer and the shorter one; and the correlation of reward and length, each less its mean
    over the prompt's answers (``correlation``)."""
    unequal = pairs.longer != 0
    prefers = in_order(pairs.difference * np.sign(pairs.longer))[unequal]
    right = in_order(pairs.difference)
    counted = mask_nk > 0
    number = np.maximum(counted.sum(1, keepdims=True), 1)

    def centred(values: np.ndarray) -> np.ndarray:
        values = np.where(counted, values.astype(np.float64), 0.0)
        return (values - values.sum(1, keepdims=True) / number)[counted]

    def mean(values: np.ndarray) -> float:
        return float(np.mean(values)) if len(values) else math.nan

    return {
        "longer_is_better": mean((pairs.longer > 0)[unequal].astype(np.float64)),
        "longer_is_preferred": mean(prefers),
        "accuracy_where_longer_is_better": mean(right[pairs.longer > 0]),
        "accuracy_where_shorter_is_better": mean(right[pairs.longer < 0]),
        "correlation": pearson(centred(rewards_nk), centred(lengths_nk)),
    }
