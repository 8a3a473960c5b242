"""The memory model's constants from what the compiler said of a grid of runs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxlm.plan.activations import Constants


class Case(NamedTuple):
    """One run that was compiled."""

    peak_bytes: int
    """The compiler's."""
    total: Callable[[Constants], int]
    """The model's."""

    def error(self, constants: Constants) -> float:
        """(model - compiler) / compiler."""
        return self.total(constants) / self.peak_bytes - 1


COUNTED = Constants(
    inner=2.0, experts=3.0, routed=3.0, stream=5.0, weights=1.0, logits=1.0, chunk=1.5, table=0.5, beside=1.0
)
"""Arrays at once, counted by hand in the backward pass of a layer and of the loss: what a constant stays near where no
case says otherwise."""
PULL = 5e-4
"""A constant at twice its counted value costs as much as an error of 2.2 % in one case."""
STEPS = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Sizes of the moves that are tried, coarse first."""


def fit_constants(cases: list[Case], counted: Constants = COUNTED) -> Constants:
    """Constants, none below 0, that make the sum of squared relative errors least, with a weak pull to ``counted``.

    Moves along one constant at a time: the model takes the greater of two phases, so it has kinks, and a slope says
    little. Constants that no case depends on stay as they were counted.
    """
    prior = np.asarray(counted, float)

    def loss(values: np.ndarray) -> float:
        pull = PULL * float(np.sum((values / prior - 1) ** 2))
        return sum(case.error(Constants(*map(float, values))) ** 2 for case in cases) + pull

    values, best = prior, loss(prior)
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
