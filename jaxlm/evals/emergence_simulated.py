"""Ladders whose verdict is known: to see how often `emergence` errs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxlm.evals.emergence import LATE_RISE, Scores, Verdict, share_errors

_NOISE = 0.03
"""Relative scatter of a model's nats, and their error."""
_DECADES = 4.0
_LATE = 0.4
"""Of the ladder: exact match of the true curve begins later, so that it looks sudden beyond dispute."""


class Simulated(NamedTuple):
    """One ladder: exact match of answers of some tokens, and nats a token of the right answer."""

    sizes: np.ndarray
    exact_match: Scores
    nats: Scores
    """Less the nats: higher is better."""


def late_power(rng: np.random.Generator, num_items: int = 1000) -> Simulated:
    """Nats a token fall by a power law of size; exact match of k tokens is p^k, and at its floor for long."""
    while True:
        sizes, length, last = _sizes(rng), int(rng.integers(5, 31)), rng.uniform(0.3, 0.9)
        nats = -np.log(last) / length * (sizes / sizes[-1]) ** -rng.uniform(0.3, 0.8)
        if _is_late(sizes, np.exp(-length * nats)):
            return _measured(rng, sizes, nats, length, num_items)


def late_logistic(rng: np.random.Generator, num_items: int = 1000) -> Simulated:
    """The same of a token's probability that is logistic in log size."""
    while True:
        sizes, length, last = _sizes(rng), int(rng.integers(5, 31)), rng.uniform(0.3, 0.9)
        p = last ** (1 / length)
        log_odds = np.log(p / (1 - p)) + rng.uniform(0.8, 2.5) * np.log10(sizes / sizes[-1])
        nats = np.log1p(np.exp(-log_odds))
        if _is_late(sizes, np.exp(-length * nats)):
            return _measured(rng, sizes, nats, length, num_items)


def step(rng: np.random.Generator, num_items: int = 1000) -> Simulated:
    """Nats a token drop between two rungs; all else of their fall, a fifth at most, is even."""
    sizes, length, last = _sizes(rng), int(rng.integers(5, 31)), rng.uniform(0.3, 0.9)
    x = np.log10(sizes / sizes[0]) / _DECADES
    even = rng.uniform(0.0, 0.2)
    low = -np.log(last) / length
    high = low + rng.uniform(3.0, 8.0) / length
    fallen = even * x + (1 - even) * (x > rng.uniform(0.2, 0.8))
    return _measured(rng, sizes, high + (low - high) * fallen, length, num_items)


def gradual(rng: np.random.Generator, num_items: int = 1000) -> Simulated:
    """Answers of one token: exact match is the probability itself, and grows from the smallest model on."""
    sizes = _sizes(rng)
    nats = -np.log(rng.uniform(0.6, 0.9)) * (sizes / sizes[-1]) ** -rng.uniform(0.1, 0.2)
    return _measured(rng, sizes, nats, 1, num_items)


def chance(rng: np.random.Generator, num_items: int = 1000) -> Simulated:
    """Nothing depends on size."""
    sizes = _sizes(rng)
    return _measured(rng, sizes, np.full(len(sizes), rng.uniform(0.5, 2.0)), 1, num_items)


def falling(rng: np.random.Generator, num_items: int = 1000) -> Simulated:
    """Larger models are worse."""
    sizes = _sizes(rng)
    nats = -np.log(rng.uniform(0.6, 0.9)) * (sizes / sizes[0]) ** rng.uniform(0.1, 0.2)
    return _measured(rng, sizes, nats, 1, num_items)


KINDS: dict[str, tuple[Callable[..., Simulated], Verdict]] = {
    "exact match of a power law": (late_power, "smooth once measured continuously"),
    "exact match of a logistic curve": (late_logistic, "smooth once measured continuously"),
    "step": (step, "sharp"),
    "one token": (gradual, "smooth"),
    "chance": (chance, "flat"),
    "falling": (falling, "inverse"),
}
"""Name -> (generator, the right verdict)."""


def _sizes(rng: np.random.Generator) -> np.ndarray:
    return np.geomspace(1e7, 1e7 * 10**_DECADES, int(rng.integers(8, 13)))


def _is_late(sizes: np.ndarray, exact: np.ndarray) -> bool:
    at = np.log10(sizes / sizes[0]) <= _LATE * _DECADES
    return bool((exact[at] < exact[0] + LATE_RISE * (exact[-1] - exact[0])).all())


def _measured(rng: np.random.Generator, sizes: np.ndarray, nats: np.ndarray, length: int, num_items: int) -> Simulated:
    said = rng.binomial(num_items, np.exp(-length * nats)) / num_items
    seen = nats * (1 + _NOISE * rng.standard_normal(len(sizes)))
    return Simulated(sizes, Scores(said, share_errors(said, num_items)), Scores(-seen, _NOISE * nats))
