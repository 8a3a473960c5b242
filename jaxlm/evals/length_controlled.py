"""The win rate that answers of equal length would have: judges prefer longer answers, and models learn to write them.

A logistic regression of the judge's preferences (Dubois et al. 2024, eq. 2), for one model m against a reference b:

    P(m preferred on x) = sigmoid(theta + phi tanh(d_x / sd(d)) + psi gamma_x),    d_x: length of m's answer less b's

and the rate is the mean over x of sigmoid(theta + psi gamma_x): the length term set to 0. gamma_x, how hard the
instruction is, comes from a fit to many models and can be given; without it that term is left out. phi is shrunk by an
L2 penalty that cross-validation chooses, theta is not: how good the model is stays what the judge finds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.evals.intervals import Interval, Values, bootstrap

PENALTIES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Of phi and psi squared, in units of one judgement."""
_FOLDS = 5
_MOST_STEPS = 50
_LEAST_PAIRS = 10
# A rate of exactly 0 or 1 has no finite theta: half a judgement of each kind keeps it so.
_PRIOR = 0.5


class LengthControlled(NamedTuple):
    """The rate with what it was made from."""

    rate: Interval
    raw: float
    """The rate as it is."""
    length_effect: float
    """phi: log-odds that an answer longer by far more than the deviation of the differences gains."""
    penalty: float
    num_unjudged: int


def length_controlled(
    preferences: Sequence[float | None],
    lengths: Values,
    reference_lengths: Values,
    *,
    difficulty: Values | None = None,
    clusters: Sequence[str] | None = None,
    draws: int = 400,
    seed: int = 0,
    confidence: float = 0.95,
) -> LengthControlled:
    """The length-controlled win rate with a bootstrap's interval.

    Args:
      preferences: 1 = the model, 0 = the reference, between = a draw or how sure; None = not judged.
      lengths: of the model's answers, in characters (or any unit).
      reference_lengths: of the reference's.
      difficulty: gamma of each instruction.
      clusters: of items that belong together.
      draws: of the bootstrap, the penalty as chosen on all.
      seed: of folds and draws.
      confidence: of the interval.

    Raises:
      ValueError: for fewer than 10 judged pairs, and values that do not fit each other.
    """
    kept = [i for i, one in enumerate(preferences) if one is not None]
    columns = [np.asarray(lengths, np.float64), np.asarray(reference_lengths, np.float64)]
    if any(len(one) != len(preferences) for one in columns):
        raise ValueError(
            f"{len(preferences)} preferences and {[len(one) for one in columns]} lengths: one of each a pair"
        )
    if len(kept) < _LEAST_PAIRS:
        raise ValueError(f"{len(kept)} judged pairs: lengths need {_LEAST_PAIRS} or more")
    won = np.array([preferences[i] for i in kept], np.float64)
    if not ((won >= 0) & (won <= 1)).all():
        raise ValueError(f"preferences go from {won.min()} to {won.max()}: give 0 .. 1")
    apart = (columns[0] - columns[1])[kept]
    gamma = None if difficulty is None else np.asarray(difficulty, np.float64)[kept]
    penalty = _choose_penalty(won, apart, gamma, seed)
    table = [won, apart] if gamma is None else [won, apart, gamma]

    def rate(won: np.ndarray, apart: np.ndarray, gamma: np.ndarray | None = None) -> float:
        return _rate(won, apart, gamma, penalty)[0]

    names = None if clusters is None else [clusters[i] for i in kept]
    interval = bootstrap(rate, table, names, seed=seed, draws=draws, confidence=confidence)
    effect = _rate(won, apart, gamma, penalty)[1]
    return LengthControlled(interval, float(won.mean()), effect, penalty, len(preferences) - len(kept))


def _design(apart: np.ndarray, gamma: np.ndarray | None, spread: float) -> np.ndarray:
    """Columns 1, tanh of the length difference, difficulty."""
    ones = np.ones(len(apart))
    bent = np.tanh(apart / spread) if spread > 0 else np.zeros(len(apart))
    return np.stack([ones, bent] if gamma is None else [ones, bent, gamma], axis=1)


def _rate(won: np.ndarray, apart: np.ndarray, gamma: np.ndarray | None, penalty: float) -> tuple[float, float]:
    columns = _design(apart, gamma, float(apart.std()))
    constants = _fit(columns, won, penalty)
    columns[:, 1] = 0.0
    return float(_sigmoid(columns @ constants).mean()), float(constants[1])


def _fit(columns_nk: np.ndarray, won_n: np.ndarray, penalty: float) -> np.ndarray:
    """Newton's method on the log-likelihood less the penalty."""
    # Half a judgement for each side at no length difference: symmetric, so that a swap stays a swap.
    prior = np.zeros((2, columns_nk.shape[1]))
    prior[:, 0] = 1.0
    x = np.concatenate([columns_nk, prior])
    y = np.concatenate([won_n, [1.0, 0.0]])
    weight = np.concatenate([np.ones(len(won_n)), [_PRIOR, _PRIOR]])
    shrink = np.full(x.shape[1], penalty + 1e-9)
    shrink[0] = 0.0
    constants = np.zeros(x.shape[1])
    for _ in range(_MOST_STEPS):
        p = _sigmoid(x @ constants)
        gradient = x.T @ (weight * (y - p)) - shrink * constants
        curvature = (x.T * (weight * p * (1 - p))) @ x + np.diag(shrink + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        # Newton's step can overshoot where all is won or lost: no more than 2 at once.
        constants = constants + step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < 1e-10:
            break
    return constants


def _choose_penalty(won: np.ndarray, apart: np.ndarray, gamma: np.ndarray | None, seed: int) -> float:
    """Of the least log-loss on folds that were left out."""
    fold = np.random.default_rng(seed).permutation(len(won)) % _FOLDS
    columns = _design(apart, gamma, float(apart.std()))
    losses = []
    for penalty in PENALTIES:
        loss = 0.0
        for out in range(_FOLDS):
            p = _sigmoid(columns[fold == out] @ _fit(columns[fold != out], won[fold != out], penalty))
            y = won[fold == out]
            p = np.clip(p, 1e-12, 1 - 1e-12)
            loss -= float((y * np.log(p) + (1 - y) * np.log(1 - p)).sum())
        losses.append(loss)
    return PENALTIES[int(np.argmin(losses))]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
