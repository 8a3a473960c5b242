"""Looks at a run's health at some of its steps: figures under ``health/``, and notes where one is bad."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxlm.core.types import Array, Batch
from jaxlm.train.health import warn
from jaxlm.train.responses import Adjustment
from jaxlm.train.state import TrainState

Look = Callable[[TrainState, Batch], dict[str, Array]]


class Health:
    """Looks at a run before some of its steps.

    Args:
      every: steps between looks.
      compile_look: makes what gives the figures of a state and the batch of so many rows that it takes next.
      write: ``write(step, figures)``, to the log.
      note: says a line to whoever watches.
    """

    def __init__(
        self,
        every: int,
        compile_look: Callable[[int, Adjustment], Look],
        write: Callable[[int, dict[str, float]], None],
        note: Callable[[str], None],
    ):
        self._every, self._compile_look, self._write, self._note = every, compile_look, write, note
        self._looks: dict[tuple[int, Adjustment], Look] = {}
        self._before: dict[str, Any] | None = None

    def due(self, step: int) -> bool:
        """Whether the step of this number is looked at."""
        return step % self._every == 0

    def look(self, step: int, state: TrainState, batch: Batch, rows: int, adjustment: Adjustment) -> None:
        """``state`` and ``batch`` are those that step ``step`` is about to take; they are only read."""
        if (rows, adjustment) not in self._looks:
            self._looks[rows, adjustment] = self._compile_look(rows, adjustment)
        figures = jax.device_get(self._looks[rows, adjustment](state, batch))
        self._write(step, by_name(figures))
        for line in warn(figures, self._before):
            self._note(f"step {step}: {line}")
        self._before = figures


def by_name(figures: dict[str, Any]) -> dict[str, float]:
    """``{"stream_rms": [1.0, 2.0]}`` -> ``{"health/stream_rms/layer_0": 1.0, "health/stream_rms/layer_1": 2.0}``."""
    named: dict[str, float] = {}
    for name, value in figures.items():
        if np.ndim(value) == 0:
            named[f"health/{name}"] = float(value)
        else:
            width = len(str(len(value) - 1))
            named |= {f"health/{name}/layer_{i:0{width}d}": float(x) for i, x in enumerate(value)}
    return named
