"""When an ability came: the date of the change in a score that was low, then high."""

from typing import NamedTuple

import numpy as np

from jaxlm.evals.intervals import Values

LEAST_RISE = 0.5
"""Of a score from 0 to 1, to speak of a change."""
SHARP_WITHIN = 0.5
"""A change is a phase change where the middle half of the rise takes no more than this share of all steps up to its
end. Of a straight line from the first step on it takes two thirds, of an exponential approach four fifths."""


class Change(NamedTuple):
    """Steps, interpolated between those at which the score was taken."""

    step: float
    """The date: half way up."""
    begins: float
    """A quarter of the way up."""
    ends: float
    """Three quarters of it."""
    before: float
    """The score at first."""
    after: float
    """The score at last, mean of the last tenth of all looks."""

    @property
    def sharp(self) -> bool:
        """A phase change: a long wait and a short rise."""
        return self.ends - self.begins <= SHARP_WITHIN * self.ends


def date_change(steps: Values, scores: Values, *, least: float = LEAST_RISE) -> Change | None:
    """When the score changed, each level dated by the first time that the score came up to it; None where the score
    rose by less than ``least``."""
    step_n, score_n = np.asarray(steps, np.float64), np.asarray(scores, np.float64)
    if len(step_n) != len(score_n) or len(step_n) < 2 or (np.diff(step_n) <= 0).any():
        raise ValueError(f"{len(step_n)} steps and {len(score_n)} scores: give two or more of each, in order")
    before, after = float(score_n[0]), float(score_n[-max(1, len(score_n) // 10) :].mean())
    if after - before < least:
        return None

    def reached(share: float) -> float:
        level = before + share * (after - before)
        i = int(np.argmax(score_n >= level))
        part = (level - score_n[i - 1]) / (score_n[i] - score_n[i - 1])
        return float(step_n[i - 1] + part * (step_n[i] - step_n[i - 1]))

    return Change(reached(0.5), reached(0.25), reached(0.75), before, after)
