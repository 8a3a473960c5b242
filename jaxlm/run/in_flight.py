"""How far the host may be ahead of the device."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax

T = TypeVar("T")
MOST = 2
"""Steps that may be handed to the device and not be done: one at work, one that waits for it."""


class InFlight:
    """The results of the last steps that the device has been handed.

    Without a bound the host hands over steps until jax makes it wait, some 32 of them. A run that is asked to stop must
    finish them all before it can save, which at ten seconds a step is five minutes where a preempted machine has half
    of one.
    """

    def __init__(self) -> None:
        self._results: deque[Any] = deque()

    def add(self, result: Any) -> None:
        """Counts a step by what it gives back (and the next one does not take), and waits until `MOST` are left."""
        self._results.append(result)
        if len(self._results) > MOST:
            jax.block_until_ready(self._results.popleft())


def in_turn(results: Iterable[T]) -> Iterator[T]:
    """The results, each handed to the device when asked for, with no more than `MOST` of them ahead of it."""
    in_flight = InFlight()
    for result in results:
        in_flight.add(result)
        yield result
