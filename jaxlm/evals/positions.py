"""Loss by position in the context: who uses how much of what stands before."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class PositionLoss(NamedTuple):
    """Mean loss of the tokens at some positions of their texts."""

    first: int
    """The first position of the bin, from 1: how many tokens (the start symbol among them) stand before it."""
    last: int
    nats: float
    """A token."""
    num_tokens: int


def loss_by_position(logprobs: Sequence[np.ndarray], *, longest: int) -> list[PositionLoss]:
    """Mean loss in bins 1, 2, 3-4, 5-8, ... up to position ``longest``, over texts whose token i has ``logprobs[i]``.

    Bins that no text reaches are left out. Longer texts alone reach later bins, so compare models in a bin, not bins.
    """
    bins, found, first = [(1, 1)], [], 2
    while first <= longest:
        last = min(2 * (first - 1), longest)
        bins.append((first, last))
        first = last + 1
    for first, last in bins:
        values = np.concatenate([np.zeros(0), *(text[first - 1 : last] for text in logprobs)])
        if len(values):
            found.append(PositionLoss(first, last, -float(np.mean(values, dtype=np.float64)), len(values)))
    return found
