"""What pretraining and fine-tuning do alike with an assembled run: start or resume, train, write down, conclude."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from jax.sharding import Mesh

from jaxlm.core.errors import STOPPED_CODE, UserError, full_disk_error, is_full_disk
from jaxlm.core.types import Batch, Params
from jaxlm.data.batches import DataState
from jaxlm.io.agree import check_same, first_stderr, is_first, on_every_process, on_first_process, one_fate, say
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.goodput import Goodput
from jaxlm.io.metrics import MetricsWriter, SilentWriter, read_lines
from jaxlm.io.progress import Progress
from jaxlm.io.report import write_report
from jaxlm.io.run_dir import RunDir, environment, write_json
from jaxlm.run.cadence import Cadence
from jaxlm.run.collector import Collector
from jaxlm.run.health import Health
from jaxlm.run.incidents import Incidents, describe
from jaxlm.run.interval import Figures
from jaxlm.run.loop import STOPPED, Job, Outcome, StepFn, run_loop
from jaxlm.run.position import Position, Return, go_back, start_position
from jaxlm.run.processes import start_processes
from jaxlm.run.setup import StateLayout, mesh_of
from jaxlm.run.signals import StopRequest
from jaxlm.train.responses import Adjustment, Incident
from jaxlm.train.spikes import Spike, SpikeMonitor
from jaxlm.train.state import TrainState

Sample = dict[str, Any]

_INFINITE = (float("inf"), float("-inf"))  # like NaN no JSON: null


class AssembledRun(Protocol):
    """A config and its data made into parts. Making it has compiled nothing."""

    @property
    def config(self) -> Any:
        """With ``num_steps``, ``log_every``, ``eval_every``, ``checkpoint`` and ``spikes``."""
        ...

    layout: StateLayout
    flops_per_row: float
    """Of one row in one step, forward and backward."""

    @property
    def peak_flops(self) -> float | None:
        """Dense bf16 peak of all devices together, FLOP/s; None where unknown."""
        ...

    @property
    def tokens_per_row(self) -> int:
        """Token slots in one row of a batch, padding included."""
        ...

    def compile_step(self, rows: int, adjustment: Adjustment) -> StepFn:
        """The step for batches of so many rows, with the optimiser so adjusted."""
        ...

    def fresh_state(self) -> TrainState:
        """The state at step 0."""
        ...

    def health(self, write: Callable[[int, dict[str, float]], None], note: Callable[[str], None]) -> Health | None:
        """Looks into the model before some steps; None = never."""
        ...

    def batches(self, state: DataState) -> AbstractContextManager[Iterator[tuple[int, Batch]]]: ...
    def evaluator(self) -> Callable[[Params], Figures]: ...
    def sampler(self) -> Callable[[Params], list[Sample]]: ...


@runtime_checkable
class ActingRun(Protocol):
    """An assembled run whose data the model writes itself."""

    def collector(self) -> Collector: ...


@contextlib.contextmanager
def one_run(config: Any, directory: RunDir) -> Iterator[Mesh]:
    """What one command is from its first line to its last: a run of all its processes, which agree on config, versions
    and mesh, and share one fate. The directory, if it was locked, is given back."""
    start_processes()
    with one_fate():
        check_same("start", lambda: _identity(config, directory))
        try:
            yield on_every_process("mesh", lambda: mesh_of(config))
        finally:
            directory.unlock()


def _identity(config: Any, directory: RunDir) -> dict[str, Any]:
    """What must be the same in all processes of a run."""
    here = environment()
    return config_to_dict(config) | {
        "run_dir": str(directory.path.absolute()),
        "versions": here["versions"],
        "git_commit": here["git_commit"],
    }


def train(run: AssembledRun, directory: RunDir, profile_steps: tuple[int, int] | None) -> tuple[Outcome, list[Sample]]:
    """Trains to the end or to a signal, from the last checkpoint if there is one; also returns the last samples.

    Raises UserError where the disk is full.
    """
    with _space_for(directory):
        return _train(run, directory, profile_steps)


@contextlib.contextmanager
def _space_for(directory: RunDir) -> Iterator[None]:
    """A full disk under the log is the user's to mend, as one under a save is."""
    try:
        yield
    except OSError as error:
        if (found := full_disk_error(error)) is None:
            raise
        above: BaseException | None = error
        while (above := above.__context__) is not None:
            if isinstance(above, UserError):  # of the save that filled it; closing the log failed after it
                raise above from None
        name = getattr(found, "filename", None)
        place = os.fsdecode(name) if name is not None else directory.path
        raise UserError(
            f"no space left in {place}: free space; the same command goes on from its last checkpoint"
        ) from error


def _train(run: AssembledRun, directory: RunDir, profile_steps: tuple[int, int] | None) -> tuple[Outcome, list[Sample]]:
    config = run.config
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        checkpointer = stack.enter_context(Checkpointer(directory.checkpoints_path, config.checkpoint))
        start = start_position(run, checkpointer, directory.incidents_path)
        ended = start.step == config.num_steps  # and saved; its last evaluation may have been cut short
        writer = stack.enter_context(
            MetricsWriter(directory.path, resume_step=start.step, evaluates_again=ended)
            if is_first()
            else SilentWriter()
        )
        progress = stack.enter_context(Progress(config.num_steps, start.step, stream=first_stderr()))
        evaluate, sample = run.evaluator(), run.sampler()
        samples: list[Sample] = []

        def judged(state: TrainState) -> Params:
            return state.params if state.ema_params is None else state.ema_params

        def write_samples(state: TrainState, step: int) -> None:
            samples[:] = sample(judged(state))
            writer.write_samples(step, samples)
            for one in samples:
                progress.note(f"  | {one['prompt']}{one['completion']}".replace("\n", "\n  | "))

        def write_incidents(entries: list[Incident], new: list[Incident]) -> None:
            if is_first() and (entries or directory.incidents_path.exists()):
                write_json(directory.incidents_path, entries)
            for incident in new:
                progress.note(describe(incident))

        def restart(position: Position, new: list[Incident]) -> None:
            """Incidents as of a position, of which the last are ``new``."""
            known = position.incidents[: len(position.incidents) - len(new)]
            skipped = int(position.state.skipped)
            incidents.go_to(known, skipped=skipped, monitor=SpikeMonitor(config.spikes, position.memory))
            incidents.add(new)

        def after_spike(spike: Spike, state: TrainState) -> Return:
            found = go_back(run, checkpointer, spike, state, incidents, config.spikes)
            restart(found.position, [found.incident])
            if found.diagnosis is not None:
                incidents.add([{"step": spike.bad[-1].step, "kind": "stopped", "diagnosis": found.diagnosis}])
            return found

        incidents = Incidents(changed=write_incidents)
        restart(start, [])
        write_incidents(incidents.entries, [])  # a killed run may have noted some past its last save
        goodput = stack.enter_context(Goodput(directory.goodput_path if is_first() else None))
        goodput.spend("start_up", directory.seconds_open)
        job = Job(
            num_steps=config.num_steps,
            compile_step=run.compile_step,
            open_batches=run.batches,
            evaluate=lambda state: evaluate(judged(state)),
            sample=write_samples,
            cadence=Cadence(
                config.log_every,
                config.eval_every,
                config.checkpoint.save_every,
                config.checkpoint.save_minutes,
            ),
            tokens_per_row=run.tokens_per_row,
            flops_per_row=run.flops_per_row,
            peak_flops=run.peak_flops,
            checkpointer=checkpointer,
            writer=writer,
            progress=progress,
            incidents=incidents,
            go_back=after_spike,
            goodput=goodput,
            health=run.health(writer.write, progress.note),
            collector=run.collector() if isinstance(run, ActingRun) else None,
            was_evaluated=on_first_process("evaluated", lambda: writer.was_evaluated),
            figures={name: value for name, value in writer.last.items() if not name.startswith("health/")},
            profile_dir=directory.profile_path,
            profile_steps=profile_steps if is_first() else None,
        )
        stack.enter_context(one_fate())  # so far in: the checkpointer would wait for processes that are gone
        stack.enter_context(_space_for(directory))
        return run_loop(job, start, stop), samples


def conclude(directory: RunDir, outcome: Outcome, facts: dict[str, Any], judged: Figures) -> dict[str, Any]:
    """The final figures, and what the run directory holds of a finished run: its mark and its report."""
    figures: dict[str, Any] = {"step": outcome.step, **facts, "run_dir": str(directory.path)}
    figures |= outcome.figures | judged
    if outcome.diagnosis is not None:
        say(f"stopped at step {outcome.step}, to which the run went back: {outcome.diagnosis}")
        figures |= {"stopped_by": outcome.stopped_by, "diagnosis": outcome.diagnosis}
    elif outcome.stopped_by is not None:
        say(f"stopped by {outcome.stopped_by} at step {outcome.step}, saved: the same command goes on from here")
        figures["stopped_by"] = outcome.stopped_by
    figures = {name: None if value != value or value in _INFINITE else value for name, value in figures.items()}
    finished = outcome.stopped_by is None
    try:
        write_report(directory.path, final=figures if finished else None)
    except Exception as error:
        if finished and not is_full_disk(error):  # nothing in a page may keep a trained run from ending
            directory.mark_done(figures)
        raise
    if finished:  # last: a run that is marked has all that belongs to it
        directory.mark_done(figures)
        _tell_worse(directory, outcome.step)
    say(f"report: {directory.report_path}")
    return figures


def _tell_worse(directory: RunDir, end: int) -> None:
    """Says where the evaluation at the end is worse than an earlier one by more than noise, a hundredth."""
    lines = read_lines(directory.metrics_path)
    evaluated = [(line["eval/loss"], line["step"]) for line in lines if isinstance(line.get("eval/loss"), float)]
    if not evaluated or evaluated[-1][1] != end:  # a loss that is no number has none
        return
    last, (best, step) = evaluated[-1][0], min(evaluated)
    if last - best > abs(best) / 100:
        say(f"eval/loss {last:.3f} at the end, {best:.3f} at step {step}: lower num_steps, or train on more text")


def print_figures(figures: dict[str, Any]) -> None:
    """The last line of stdout."""
    if is_first():
        print(json.dumps(figures), flush=True)


def exit_code(figures: dict[str, Any]) -> int:
    """0, STOPPED_CODE, or 128 and the number of the signal that stopped the run."""
    stopped_by = figures.get("stopped_by")
    if stopped_by == STOPPED:
        return STOPPED_CODE
    return 0 if stopped_by is None else 128 + signal.Signals[stopped_by]
