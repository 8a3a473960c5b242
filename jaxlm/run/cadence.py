"""When a run does what is not a step: log, evaluate, save."""

import dataclasses
import time

from jaxlm.io.agree import num_processes, on_first_process


@dataclasses.dataclass
class Cadence:
    """How often, in steps, the loop does what is not a step. None = never before the end."""

    log_every: int
    eval_every: int | None
    save_every: int | None
    save_minutes: float | None = None
    """Minutes since the last save after which there is another one, wherever the run stands. One process looks at the
    clock at every step; of several the first looks at every log step, and tells the others."""


class SaveTimer:
    """When the clock asks for a save: ``save_minutes`` after the last."""

    def __init__(self, minutes: float | None) -> None:
        self._seconds = None if minutes is None else 60 * minutes
        self._alone = num_processes() == 1
        self.restart()

    def restart(self) -> None:
        self._last = time.monotonic()

    def is_due(self, *, at_log_step: bool) -> bool:
        """The same in all processes, whose clocks and delays differ: the first decides."""
        if self._seconds is None or not (self._alone or at_log_step):
            return False
        return on_first_process("save by the clock", self._is_over)

    def _is_over(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds
