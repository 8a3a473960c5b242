"""Answers judged in pairs: how often a model's is preferred to that of a reference."""

from collections.abc import Sequence

import numpy as np

from jaxlm.evals.intervals import Interval, mean


def win_rate(preferences: Sequence[float | None], *, confidence: float = 0.95) -> Interval:
    """Share of pairs won, a draw counted as a half, pairs that the judge left out not counted; Student's interval.

    A preference is that of AlpacaEval's annotations: 1 = the reference, 2 = the model, between them how much either is
    preferred, 0 = a draw, None = not judged. Raises ValueError for other numbers, or if nothing was judged.
    """
    won = []
    for number, preference in enumerate(preferences):
        if preference is None:
            continue
        if preference != 0 and not 1 <= preference <= 2:
            raise ValueError(f"preference {preference} of pair {number} is neither 0 (a draw) nor in 1 .. 2")
        won.append(0.5 if preference == 0 else preference - 1)
    if not won:
        raise ValueError("no pair was judged")
    return mean(np.array(won), confidence=confidence)
