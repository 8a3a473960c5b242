"""What a rate raised from step to step says: the range test of Smith (2017), as figures of a curve."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RISE = 0.2
"""Training has diverged where the smoothed loss has climbed back by this share of its fall."""
MARGIN = 4.0
"""How far below divergence a rate is safe."""


class RateRange(NamedTuple):
    """Rates read off the curve."""

    steepest_lr: float
    """Where the smoothed loss falls fastest against the logarithm of the rate."""
    lowest_loss_lr: float
    """Where it is lowest."""
    diverged_lr: float | None
    """The first past that where training has diverged; None where the highest rate did not do it."""
    suggested_lr: float
    """The steepest rate, or `MARGIN` below divergence if that is lower: a peak rate to start a search from."""


def smooth(losses: Sequence[float], beta: float = 0.9) -> np.ndarray:
    """Running mean with weights ``beta^i``, unbiased at its start."""
    mean, smoothed = 0.0, []
    for i, loss in enumerate(losses, 1):
        mean = beta * mean + (1 - beta) * loss
        smoothed.append(mean / (1 - beta**i))
    return np.asarray(smoothed)


def rate_range(rates: Sequence[float], smoothed: np.ndarray) -> RateRange:
    """Reads the rates off a curve of smoothed losses, each that after a step at its rate; the last may be NaN or
    infinite. Raises ValueError where the loss never falls."""
    if not len(smoothed):
        raise ValueError("the loss was not finite within the first rates: begin lower")
    values = np.where(np.isfinite(smoothed), smoothed, np.inf)
    lowest = int(np.argmin(values))
    if lowest == 0:
        raise ValueError(f"the loss rises from the first rate, {rates[0]:.3g}, on: begin lower")
    slopes = np.diff(values[: lowest + 1]) / np.diff(np.log(np.asarray(rates[: lowest + 1])))
    steepest = rates[int(np.argmin(slopes)) + 1]
    ceiling = values[lowest] + RISE * (values[0] - values[lowest])
    past = np.flatnonzero(values[lowest:] > ceiling)
    diverged = None if not len(past) else float(rates[lowest + int(past[0])])
    suggested = steepest if diverged is None else min(steepest, diverged / MARGIN)
    return RateRange(float(steepest), float(rates[lowest]), diverged, float(suggested))
