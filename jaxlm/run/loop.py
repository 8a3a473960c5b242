"""The loop that every training run shares: step, log, save, evaluate, sample, go back, stop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import jax

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array, Batch
from jaxlm.data.batches import DataState
from jaxlm.io.agree import AgreedError, first_stderr, num_processes
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.goodput import Goodput
from jaxlm.io.metrics import MetricsWriter
from jaxlm.io.progress import Progress, notice
from jaxlm.run.cadence import Cadence, SaveTimer
from jaxlm.run.collector import Collector
from jaxlm.run.health import Health
from jaxlm.run.in_flight import InFlight
from jaxlm.run.incidents import Incidents
from jaxlm.run.interval import Figures, Interval
from jaxlm.run.position import GoBack, Position
from jaxlm.run.profiler import Profiler
from jaxlm.run.signals import Interrupted, StopRequest
from jaxlm.train.responses import Adjustment, adjustment_at
from jaxlm.train.spikes import Spike
from jaxlm.train.state import TrainState

StepFn = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
STOPPED = "incidents"
"""``stopped_by`` of a run that its own incidents ended."""


@dataclasses.dataclass
class Job:
    """What one run gives the loop."""

    num_steps: int
    compile_step: Callable[[int, Adjustment], StepFn]
    """The step for batches of so many rows, compiled: asked for once for each number and adjustment, when first
    needed."""
    open_batches: Callable[[DataState], AbstractContextManager[Iterator[tuple[int, Batch]]]]
    evaluate: Callable[[TrainState], Figures]
    sample: Callable[[TrainState, int], None]
    """Writes samples of a state at a step."""
    cadence: Cadence
    tokens_per_row: int
    flops_per_row: float
    """Of one row in one step, forward and backward."""
    peak_flops: float | None
    """Dense bf16 peak of all devices together, FLOP/s; None where unknown (CPUs): no MFU is given then."""
    checkpointer: Checkpointer
    writer: MetricsWriter
    progress: Progress
    incidents: Incidents
    go_back: GoBack | None = None
    """Where to go on after a spike; None where the incidents ask for no rollback."""
    goodput: Goodput = dataclasses.field(default_factory=Goodput)
    health: Health | None = None
    """Looks into the model before some steps; None = never."""
    collector: Collector | None = None
    """Has the model write what it learns from; None = all data are there beforehand."""
    figures: Figures = dataclasses.field(default_factory=dict)
    """What was last logged before it: stands until the run logs anew."""
    was_evaluated: bool = True
    """Whether the step that it starts from was; a signal, or worse, may have come between its save and that."""
    profile_dir: Path | None = None
    profile_steps: tuple[int, int] | None = None


@dataclasses.dataclass
class Outcome:
    """How a run ended: the last state, the last figures, and what stopped it, if anything did: a signal, or its own
    incidents, which have a diagnosis."""

    state: TrainState
    step: int
    figures: Figures
    stopped_by: str | None
    diagnosis: str | None = None


def run_loop(job: Job, start: Position, stop: StopRequest) -> Outcome:
    """Train from ``start`` to ``job.num_steps`` or until ``stop`` is asked for; saves at the end either way.

    The host waits for the device at log, evaluation and save steps only, where spikes are seen, and else is two steps
    ahead of it at most (`InFlight`), so that a stop is soon. ``perf/`` figures leave out the time of evaluations,
    samples, saves and compilation. Several processes take the same steps, and evaluate, save, go back and stop at the
    same ones.
    """
    with contextlib.ExitStack() as stack:
        return _Loop(job, start, stop, stack).run()


class _Loop:
    """One run through the loop; its fields are where it stands."""

    def __init__(self, job: Job, start: Position, stop: StopRequest, stack: contextlib.ExitStack) -> None:
        self.job, self.state, self.step, self.stop = job, start.state, start.step, stop
        self.data_state, self.saved_step = start.data_state, start.saved_step
        self.evaluated_step: int | None = None
        self.figures: Figures = {**job.figures, "train/skipped": float(start.state.skipped)}
        self.trained_seconds, self.trained_rows, self.trained_steps = 0.0, 0, 0
        self.timer = SaveTimer(job.cadence.save_minutes)
        self.profiler = stack.enter_context(contextlib.closing(Profiler(job.profile_dir, job.profile_steps, self.step)))
        self.readers = stack.enter_context(contextlib.ExitStack())
        self.batches = self.readers.enter_context(job.open_batches(self.data_state))
        self.programs: dict[tuple[int, Adjustment], StepFn] = {}
        job.goodput.write("start", self.step)
        self.interval = Interval(job.incidents)
        self.in_flight = InFlight()

    def run(self) -> Outcome:
        job, stop, taken, first_step = self.job, self.stop, 0, self.step
        diagnosis: str | None = None
        if not job.was_evaluated and 0 < self.step < job.num_steps and self.due(job.cadence.eval_every):
            self.evaluate()
        # Steps may come again, and several processes agree on a count that never falls.
        while not (stopped := stop.requested(first_step + taken)) and self.step < job.num_steps:
            if (diagnosis := self.collect()) is not None:
                break
            self.take_step()
            taken += 1
            logs = self.due(job.cadence.log_every) or self.step == job.num_steps
            evaluates = self.due(job.cadence.eval_every) and self.step < job.num_steps
            saves = self.due(job.cadence.save_every) or self.timer.is_due(at_log_step=logs)
            if (logs or evaluates or saves) and (spike := self.interval.look()) is not None:
                diagnosis = self.go_back(spike)
                if diagnosis is not None:
                    break
                continue
            if logs:
                self.log()
            # Saved first: an evaluation may take long, and whoever stops the run may not wait.
            if saves:
                self.save()
            if evaluates:
                self.evaluate()
        self.profiler.note_missed(job.progress)
        if diagnosis is None and not self.end(evaluates=not stopped):
            stopped = True
        figures = self.figures | job.goodput.figures()
        figures.setdefault("perf/mfu", None)  # what is unknown is not in the log that figures were taken from
        job.checkpointer.wait()
        stopped_by = STOPPED if diagnosis is not None else stop.agreed_name() if stopped else None
        return Outcome(self.state, self.step, figures, stopped_by, diagnosis)

    def collect(self) -> str | None:
        """New data of the model's own, where the next step needs them; a diagnosis where they say that it should not be
        taken. What was trained since the last save is then dropped: the same command meets it again."""
        job = self.job
        if job.collector is None or not job.collector.due(self.data_state):
            return None
        try:
            with self.aside("rollout"):
                found = job.collector.collect(self.state, self.data_state)
        except UserError as error:
            if (num_processes() == 1 or isinstance(error, AgreedError)) and self.interval.look() is None:
                self.log()
                self.save()
            raise
        self.state = found.state
        self.figures.update(found.figures)
        # Counted to the step that learns from them: a run resumed here collects them again.
        job.writer.write(self.step + 1, known(found.figures))
        job.writer.write_samples(self.step + 1, found.samples)
        if found.diagnosis is not None:
            job.incidents.add([{"step": self.step, "kind": "stopped", "diagnosis": found.diagnosis}])
            self.close_interval()
            self.step = self.saved_step or 0
        return found.diagnosis

    def take_step(self) -> None:
        job = self.job
        self.profiler.before(self.step)
        batch_id, batch, waited = self.next_batch()
        rows, adjustment = num_rows(batch), adjustment_at(self.step + 1, job.incidents.responses)
        step_fn = self.program(rows, adjustment)
        if job.health is not None and job.health.due(self.step + 1):
            with self.aside("evaluation"):
                job.health.look(self.step + 1, self.state, batch, rows, adjustment)
        self.state, metrics = step_fn(self.state, batch)
        self.data_state = self.data_state.after(batch_id)
        self.profiler.after(self.step, self.state, job.progress)
        self.step += 1
        self.interval.add(self.step, batch_id, metrics, rows=rows, waited=waited)
        self.in_flight.add(metrics)
        job.progress.advance(self.step)

    def next_batch(self) -> tuple[int, Batch, float]:
        """(batch id, batch, seconds that the host waited for it)."""
        start = time.perf_counter()
        try:
            batch_id, batch = next(self.batches)
        except StopIteration:
            if self.interval.look() is None:
                self.log()
                self.save()
            raise UserError(
                f"the data ends at step {self.step} of {self.job.num_steps}, since {len(self.data_state.skipped)} "
                "batches were left out after spikes: raise data.num_epochs, or set it to None to repeat, and start the "
                "same command again"
            ) from None
        return batch_id, batch, time.perf_counter() - start

    def program(self, rows: int, adjustment: Adjustment) -> StepFn:
        """The compiled step for this batch."""
        found = self.programs.get((rows, adjustment))
        if found is None:
            with (
                self.aside("compile"),
                notice(f"compiling the train step{_differs(adjustment)}; it follows", first_stderr()),
            ):
                found = self.programs[rows, adjustment] = self.job.compile_step(rows, adjustment)
        return found

    def due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    @contextlib.contextmanager
    def aside(self, cause: str) -> Iterator[None]:
        """What is no step: steps still in flight belong to the interval, what follows does not."""
        jax.block_until_ready(self.state.step)
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.interval.start += seconds
            self.job.goodput.spend(cause, seconds)

    def close_interval(self) -> None:
        """Counts the time of the steps since the last one, and begins another."""
        steps, rows, seconds, waited = (
            len(self.interval),
            self.interval.rows,
            self.interval.seconds,
            self.interval.waited,
        )
        self.interval.restart()
        if steps:
            self.trained_seconds += seconds
            self.trained_steps += steps
            self.trained_rows += rows
            self.job.goodput.spend("step", max(0.0, seconds - waited))
            self.job.goodput.spend("data_wait", min(waited, seconds))
        self.job.goodput.write("spent", self.step)

    def log(self) -> None:
        """The figures of the interval, which has been looked at."""
        job, interval = self.job, self.interval
        if not len(interval):
            return
        self.figures.update({f"train/{name}": value for name, value in interval.figures().items()})
        steps, rows, seconds = len(interval), interval.rows, interval.seconds
        self.figures["train/batch_size"] = rows / steps
        self.figures["perf/data_wait"] = interval.waited / max(seconds, 1e-9)
        self.figures.update(_speed(job, steps, rows, seconds))
        self.close_interval()
        self.figures["perf/goodput"] = job.goodput.account.goodput
        job.writer.write(self.step, known(self.figures_of("train/", "perf/")))
        job.progress.update(self.step, self.figures)

    def figures_of(self, *prefixes: str) -> Figures:
        return {name: value for name, value in self.figures.items() if name.startswith(prefixes)}

    def evaluate(self) -> bool:
        """False where a signal cut it short: it comes again when the run goes on."""
        job = self.job
        with self.aside("evaluation"):
            try:
                with self.stop.interrupting():
                    self.figures.update(job.evaluate(self.state))
            except Interrupted:
                return False
            job.sample(self.state, self.step)
            # Logged last: a step whose line is there was evaluated whole.
            shown = known(self.figures_of("eval/"))
            job.writer.write(self.step, shown)
            if shown:
                job.progress.note(f"step {self.step}: " + "  ".join(f"{name} {shown[name]:.4f}" for name in shown))
        self.evaluated_step = self.step
        return True

    def save(self) -> None:
        """Saves the state, whose steps have been looked at."""
        job = self.job
        with self.aside("checkpoint"):
            if self.saved_step != self.step:
                meta = {"data": self.data_state.to_json(), **job.incidents.to_meta()}
                job.checkpointer.save(self.step, self.state, meta, keep_before=job.incidents.suspected_since)
                self.saved_step = self.step
        self.timer.restart()

    def go_back(self, spike: Spike) -> str | None:
        """Undoes the steps since the last checkpoint before a spike; returns the diagnosis where that is useless."""
        job = self.job
        assert job.go_back is not None
        self.close_interval()
        self.readers.close()
        start = time.perf_counter()
        position, _, diagnosis = job.go_back(spike, self.state)
        self.state, self.data_state, self.saved_step = position.state, position.data_state, position.saved_step
        self.step = position.step
        if self.evaluated_step is not None and self.evaluated_step > self.step:
            self.evaluated_step = None
        job.writer.go_back(self.step)
        if diagnosis is None:
            self.batches = self.readers.enter_context(job.open_batches(self.data_state))
        job.goodput.spend("rollback", time.perf_counter() - start)
        job.goodput.write("rollback", self.step)
        self.timer.restart()
        self.interval.restart()
        return diagnosis

    def end(self, *, evaluates: bool) -> bool:
        """The last log, save and evaluation; False where a signal cut that short. A state inside a spike is not saved:
        the next start meets it again."""
        job = self.job
        if (spike := self.interval.look()) is not None:
            job.progress.note(f"a spike began at step {spike.onset}: not saved, the next start goes back before it")
            self.close_interval()
            self.step = self.saved_step or 0
            return True
        self.log()
        self.save()
        done = not evaluates or self.evaluated_step == self.step or self.evaluate()
        if self.trained_steps:
            self.figures.update(_speed(job, self.trained_steps, self.trained_rows, self.trained_seconds))
        self.close_interval()
        return done


def known(values: Figures) -> dict[str, float]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def num_rows(batch: Batch) -> int:
    """Rows of a global batch."""
    return next(iter(batch.values())).shape[0] if batch else 0


def _differs(adjustment: Adjustment) -> str:
    """What to say of a step that is not that of the config."""
    rate = "" if adjustment.rate_factor == 1 else f" (rate x {adjustment.rate_factor:g})"
    return rate if adjustment.b2 is None else f"{rate} (b2 {adjustment.b2:g})"


def _speed(job: Job, steps: int, rows: int, seconds: float) -> Figures:
    mfu = None if job.peak_flops is None else rows * job.flops_per_row / seconds / job.peak_flops
    return {
        "perf/tokens_per_second": rows * job.tokens_per_row / seconds,
        "perf/step_seconds": seconds / steps,
        "perf/mfu": mfu,
    }
