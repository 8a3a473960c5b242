"""The memory model's constants from what the compiler said of a grid of runs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxlm.plan.activations import CALIBRATED, Constants


class Case(NamedTuple):
    """One run that was compiled."""

    peak_bytes: int
    """The compiler's."""
    total: Callable[[Constants], int]
    """The model's."""

    def error(self, constants: Constants) -> float:
        """(model - compiler) / compiler."""
        return self.total(constants) / self.peak_bytes - 1


STEPS = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Sizes of the moves that are tried, coarse first."""


def fit_constants(cases: list[Case], start: Constants = CALIBRATED) -> Constants:
    """Constants, none below 0, that make the sum of squared relative errors least, from ``start``.

    Moves along one constant at a time: the model takes the greater of two phases, so it has kinks, and a slope says
    little. Constants that no case depends on stay as they are.
    """

    def loss(values: np.ndarray) -> float:
        return sum(case.error(Constants(*map(float, values))) ** 2 for case in cases)

    values, best = np.asarray(start, float), loss(np.asarray(start, float))
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            for i in range(len(values)):
                for sign in (step, -step):
                    tried = values.copy()
                    tried[i] = round(max(tried[i] + sign, 0.0), 4)
                    if (found := loss(tried)) < best - 1e-12:
                        values, best, moved = tried, found, True
    return Constants(*map(float, values))
