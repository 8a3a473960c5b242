"""How far the host may be ahead of the device."""

import time
from collections import deque
from typing import Any

import jax

FEWEST, MOST = 2, 32
"""Steps that may be handed to the device and not be done; jax's own bound on a CPU is the larger."""
SECONDS = 1.0
"""What steps in flight may take, where that is more than ``FEWEST`` of them."""


class InFlight:
    """The results of steps that the device has been handed and may not have done.

    Without a bound the host hands over steps until jax makes it wait, some 32 of them. A run that is asked to stop must
    finish them all before it can save, which at ten seconds a step is five minutes where a preempted machine has half
    of one.
    """

    def __init__(self) -> None:
        self._results: deque[Any] = deque()
        self._allowed = FEWEST
        self._last_done: float | None = None
        """When the last step was done, where it was waited for."""

    def add(self, result: Any) -> None:
        """Counts a step by what it gives back (and the next one does not take), and waits until few enough are in
        flight: as many as take `SECONDS`, by the time between two that were waited for one after the other."""
        self._results.append(result)
        while len(self._results) > self._allowed:
            oldest = self._results.popleft()
            if _is_done(oldest):  # after a log step, or where the host is the slower: it says nothing of the device
                self._last_done = None
                continue
            jax.block_until_ready(oldest)
            now = time.perf_counter()
            if self._last_done is not None:
                self._allowed = min(max(int(SECONDS / max(now - self._last_done, 1e-9)), FEWEST), MOST)
            self._last_done = now


def _is_done(result: Any) -> bool:
    arrays = (leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array))
    return all(array.is_ready() for array in arrays)  # pyright: ignore[reportAttributeAccessIssue]
