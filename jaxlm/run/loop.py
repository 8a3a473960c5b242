"""The loop that every training run shares: step, log, evaluate, sample, save, stop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from jaxlm.core.types import Array, Batch
from jaxlm.data.batches import DataState
from jaxlm.io.agree import num_processes, on_first_process
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.metrics import MetricsWriter
from jaxlm.io.progress import Progress
from jaxlm.run.incidents import Incidents
from jaxlm.run.signals import StopRequest
from jaxlm.train.state import TrainState

Figures = dict[str, float | None]


@dataclasses.dataclass
class Cadence:
    """How often, in steps, the loop does what is not a step. None = never before the end."""

    log_every: int
    eval_every: int | None
    save_every: int | None
    save_minutes: float | None = None
    """Minutes since the last save after which there is another one, wherever the run stands. One process looks at the
    clock at every step; of several the first looks at every log step, and tells the others."""


@dataclasses.dataclass
class Job:
    """What one run gives the loop. Everything that touches the device is compiled already."""

    num_steps: int
    step_fn: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
    batches: Iterator[tuple[int, Batch]]
    data_state: DataState
    """Where the first of ``batches`` stands in the data."""
    evaluate: Callable[[TrainState], Figures]
    sample: Callable[[TrainState, int], None]
    """Writes samples of a state at a step."""
    cadence: Cadence
    tokens_per_step: int
    flops_per_step: float
    peak_flops: float | None
    """Dense bf16 peak of all devices together, FLOP/s; None where unknown (CPUs): no MFU is given then."""
    checkpointer: Checkpointer
    writer: MetricsWriter
    progress: Progress
    incidents: Incidents
    saved_step: int | None = None
    """The step that the state was restored from."""
    figures: Figures = dataclasses.field(default_factory=dict)
    """What was last logged before it: stands until the run logs anew."""
    profile_dir: Path | None = None
    profile_steps: tuple[int, int] | None = None


@dataclasses.dataclass
class Outcome:
    """How a run ended: the last state, the last figures, and the signal that stopped it, if one did."""

    state: TrainState
    step: int
    figures: Figures
    stopped_by: str | None


class _Interval:
    """Metrics since the last log step. They stay on the device until then: a fetch waits for the step to end."""

    def __init__(self, incidents: Incidents) -> None:
        self._incidents = incidents
        self._on_device: list[tuple[int, int, dict[str, Array]]] = []
        self._fetched: list[dict[str, np.ndarray]] = []
        self.start = time.perf_counter()

    def add(self, step: int, batch_id: int, metrics: dict[str, Array]) -> None:
        """The metrics of the step that is now number ``step``, still being computed."""
        self._on_device.append((step, batch_id, metrics))

    def look(self) -> None:
        """Waits for the steps so far, and adds what went wrong in them to the incidents."""
        values = jax.device_get([metrics for _, _, metrics in self._on_device])
        steps = zip(self._on_device, values, strict=True)
        found = [self._incidents.look(step, batch_id, value) for (step, batch_id, _), value in steps]
        self._on_device.clear()
        self._fetched += values
        self._incidents.add([incident for incident in found if incident is not None])

    def fetch(self) -> tuple[Figures, int, float]:
        """(the last value of each metric, but the mean of losses and terms; steps; seconds) since the last fetch."""
        self.look()
        seconds = time.perf_counter() - self.start
        values, steps = self._fetched, len(self._fetched)
        last: Figures = {name: float(value) for name, value in values[-1].items()} if values else {}
        for name in last:
            if name == "loss" or name.startswith("term/"):
                last[name] = float(np.mean([value[name] for value in values]))
        self._fetched = []
        self.start = time.perf_counter()
        return last, steps, seconds


class _Profiler:
    """A trace of some steps, seen from the first step that this process runs, for TensorBoard and Perfetto."""

    def __init__(self, job: Job, first_step: int) -> None:
        self.directory = job.profile_dir
        self.active = False
        self.start, self.stop = job.profile_steps or (0, 0)
        self.start, self.stop = self.start + first_step, self.stop + first_step

    def before(self, step: int) -> None:
        if self.directory and step == self.start and self.stop > self.start:
            jax.profiler.start_trace(str(self.directory))
            self.active = True

    def after(self, step: int, state: TrainState, progress: Progress) -> None:
        if self.active and step + 1 >= self.stop:
            jax.block_until_ready(state.step)
            self.close()
            progress.note(f"profile of steps {self.start} to {step} written to {self.directory}")

    def close(self) -> None:
        if self.active:
            jax.profiler.stop_trace()
            self.active = False


class _SaveTimer:
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


def run_loop(job: Job, state: TrainState, stop: StopRequest) -> Outcome:
    """Train from ``state`` to ``job.num_steps`` or until ``stop`` is asked for; saves at the end either way.

    The host waits for the device at log, evaluation and save steps only. ``perf/`` figures leave out the time of
    evaluations, samples and saves. Several processes take the same steps, and evaluate, save and stop at the same ones.
    """
    step, data_state = int(state.step), job.data_state
    figures: Figures = {**job.figures, "train/skipped": float(state.skipped)}
    interval = _Interval(job.incidents)
    trained_seconds, trained_steps = 0.0, 0
    saved_step = job.saved_step
    timer = _SaveTimer(job.cadence.save_minutes)
    profiler = _Profiler(job, step)

    def due(every: int | None) -> bool:
        return every is not None and step % every == 0

    def log() -> None:
        nonlocal trained_seconds, trained_steps
        values, steps, seconds = interval.fetch()
        if not steps:
            return
        trained_seconds += seconds
        trained_steps += steps
        figures.update({f"train/{name}": value for name, value in values.items()})
        figures.update(_speed(job, seconds / steps))
        job.writer.write(step, known(figures_of("train/", "perf/")))
        job.progress.update(step, figures)

    def figures_of(*prefixes: str) -> Figures:
        return {name: value for name, value in figures.items() if name.startswith(prefixes)}

    def known(values: Figures) -> dict[str, float]:
        return {name: value for name, value in values.items() if value is not None}

    def evaluate() -> None:
        figures.update(job.evaluate(state))
        job.writer.write(step, known(figures_of("eval/")))
        job.progress.note(
            f"step {step}: " + "  ".join(f"{name} {value:.4f}" for name, value in known(figures_of("eval/")).items())
        )
        job.sample(state, step)

    def save() -> None:
        nonlocal saved_step
        if saved_step != step:
            interval.look()
            meta = {"data": data_state.to_json(), "incidents": list(job.incidents.entries)}
            job.checkpointer.save(step, state, meta)
            saved_step = step
        timer.restart()

    evaluated_step: int | None = None
    with contextlib.closing(profiler):
        while not (stopped := stop.requested(step)) and step < job.num_steps:
            profiler.before(step)
            batch_id, batch = next(job.batches)
            state, metrics = job.step_fn(state, batch)
            data_state = data_state.after(batch_id)
            profiler.after(step, state, job.progress)
            step += 1
            interval.add(step, batch_id, metrics)
            job.progress.advance(step)
            logs = due(job.cadence.log_every) or step == job.num_steps
            if logs:
                log()
            evaluates = due(job.cadence.eval_every) and step < job.num_steps
            saves = due(job.cadence.save_every) or timer.is_due(at_log_step=logs)
            if evaluates or saves:
                jax.block_until_ready(state.step)  # steps still in flight belong to the interval, what follows does not
                aside = time.perf_counter()
                if evaluates:
                    evaluate()
                    evaluated_step = step
                if saves:
                    save()
                interval.start += time.perf_counter() - aside
    log()
    save()
    if not stopped and evaluated_step != step:
        evaluate()
    if trained_steps:
        figures.update(_speed(job, trained_seconds / trained_steps))
    figures.setdefault("perf/mfu", None)  # what is unknown is not in the log that figures were taken from
    job.checkpointer.wait()
    return Outcome(state, step, figures, stop.agreed_name() if stopped else None)


def _speed(job: Job, step_seconds: float) -> Figures:
    mfu = None if job.peak_flops is None else job.flops_per_step / step_seconds / job.peak_flops
    return {
        "perf/tokens_per_second": job.tokens_per_step / step_seconds,
        "perf/step_seconds": step_seconds,
        "perf/mfu": mfu,
    }
