"""A trace of some steps of a run, for TensorBoard and Perfetto."""

from pathlib import Path

import jax

from jaxlm.io.progress import Progress
from jaxlm.train.state import TrainState


class Profiler:
    """Traces steps [start, stop), counted from the first step that this process takes; once, though steps may come
    again."""

    def __init__(self, directory: Path | None, steps: tuple[int, int] | None, first_step: int) -> None:
        self.directory = directory
        self.active = False
        self.start, self.stop = steps or (0, 0)
        self.start, self.stop = self.start + first_step, self.stop + first_step

    def before(self, step: int) -> None:
        if self.directory and step == self.start and self.stop > self.start:
            jax.profiler.start_trace(str(self.directory))
            self.active = True

    def after(self, step: int, state: TrainState, progress: Progress) -> None:
        if self.active and step + 1 >= self.stop:
            jax.block_until_ready(state.step)
            directory = self.directory
            self.close()
            progress.note(f"profile of steps {self.start} to {step} written to {directory}")

    def note_missed(self, progress: Progress) -> None:
        """Says so where the run has ended before the steps that were asked for."""
        if self.directory is not None and not self.active and self.stop > self.start:
            progress.note(f"no profile was taken: the run ended before step {self.start}")

    def close(self) -> None:
        """Ends the trace; there is no other."""
        if self.active:
            jax.profiler.stop_trace()
            self.active, self.directory = False, None
