"""The steps since the last log step: their metrics, what they were fed, how long they took."""

import time

import jax
import numpy as np

from jaxlm.core.types import Array
from jaxlm.run.incidents import Incidents
from jaxlm.train.spikes import Spike

Figures = dict[str, float | None]


class Interval:
    """Metrics since the last log step. They stay on the device until they are looked at: a fetch waits for the step."""

    def __init__(self, incidents: Incidents) -> None:
        self._incidents = incidents
        self.restart()

    def restart(self) -> None:
        """Forgets the steps so far, fetched or not."""
        self._on_device: list[tuple[int, int, dict[str, Array]]] = []
        self._fetched: list[dict[str, np.ndarray]] = []
        self.rows = 0
        """Rows of the batches, in all."""
        self.waited = 0.0
        """Seconds that the host waited for batches."""
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the start; whoever does something else in between moves the start by as much."""
        return time.perf_counter() - self.start

    def add(self, step: int, batch_id: int, metrics: dict[str, Array], *, rows: int, waited: float) -> None:
        """The metrics of the step that is now number ``step``, still being computed."""
        self._on_device.append((step, batch_id, metrics))
        self.rows += rows
        self.waited += waited

    def look(self) -> Spike | None:
        """Waits for the steps so far, adds what went wrong in them to the incidents, and returns the spike for which
        the run is to go back, if there is one."""
        values = jax.device_get([metrics for _, _, metrics in self._on_device])
        steps = [(step, batch_id, found) for (step, batch_id, _), found in zip(self._on_device, values, strict=True)]
        self._on_device.clear()
        self._fetched += values
        return self._incidents.look(steps)

    def __len__(self) -> int:
        return len(self._fetched) + len(self._on_device)

    def figures(self) -> Figures:
        """The last value of each metric, but the mean of losses and terms, of the steps that were looked at."""
        values = self._fetched
        last: Figures = {name: float(value) for name, value in values[-1].items()} if values else {}
        for name in last:
            if name == "loss" or name.startswith("term/"):
                last[name] = float(np.mean([value[name] for value in values]))
        return last
