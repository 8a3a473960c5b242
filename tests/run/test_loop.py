"""The loop alone, on steps that compute nothing: what it saves, what it looks at, and what it costs."""

import contextlib
import dataclasses
import json
import os
import signal
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataState
from jaxlm.io.metrics import SilentWriter
from jaxlm.io.progress import Progress
from jaxlm.io.run_dir import RunDir
from jaxlm.run import cadence as cadences
from jaxlm.run import training
from jaxlm.run.cadence import Cadence
from jaxlm.run.incidents import Incidents, describe
from jaxlm.run.interval import Interval
from jaxlm.run.loop import Job, Outcome, run_loop
from jaxlm.run.position import Position
from jaxlm.run.signals import StopRequest
from jaxlm.train.state import TrainState


class Saves:
    """A checkpointer that keeps what it is given."""

    def __init__(self):
        self.metas = {}

    def save(self, step, state, meta, *, keep_before=None):
        self.metas[step] = meta

    def wait(self):
        pass


def steps_that_fail_at(*bad):
    """A step function whose update is dropped at the steps counted in ``bad``, from 1."""

    def step_fn(state, batch):
        taken, failed = state.step + 1, (state.step + 1) in bad
        skipped = state.skipped + failed
        loss = np.float32(np.nan if failed else 2.0)
        metrics = {"loss": loss, "grad_norm": np.float32(0.5), "skipped": np.int32(skipped)}
        return state_at(taken, skipped), metrics

    return step_fn


def state_at(step, skipped=0):
    """A state of plain numbers."""
    fields: dict[str, Any] = {"step": step, "params": {}, "opt_state": (), "skipped": skipped}
    return TrainState(**fields)


def saves(job) -> dict[int, Any]:
    """Step -> the meta saved with it."""
    return job.checkpointer.metas


def make_job(tmp_path, step_fn, cadence, *, num_steps=12, incidents=None):
    fakes: dict[str, Any] = {"checkpointer": Saves()}
    return Job(
        num_steps=num_steps,
        compile_step=lambda rows, adjustment: step_fn,
        open_batches=lambda data: contextlib.nullcontext(iter((i, {}) for i in range(data.cursor, 100 + num_steps))),
        evaluate=lambda state: {"eval/loss": 2.0},
        sample=lambda state, step: None,
        cadence=cadence,
        tokens_per_row=1,
        flops_per_row=1.0,
        peak_flops=None,
        writer=SilentWriter(),
        progress=Progress(num_steps, stream=open(tmp_path / "progress", "w")),
        incidents=Incidents() if incidents is None else incidents,
        **fakes,
    )


def run(job, state):
    try:
        with StopRequest() as stop:
            return run_loop(job, Position(state, DataState(100 + state.step)), stop)
    finally:
        job.progress._stream.close()


def test_every_save_holds_the_incidents_up_to_its_step(tmp_path):
    told = []
    incidents = Incidents(changed=lambda entries, new: told.append([entry["step"] for entry in new]))
    # Logged at 6 and 12, saved at 4, 8 and 12: steps 3 and 7 have not been fetched when their save comes.
    job = make_job(tmp_path, steps_that_fail_at(3, 7, 8, 11), Cadence(6, None, 4), incidents=incidents)
    outcome = run(job, state_at(0))
    found = {step: [entry["step"] for entry in meta["incidents"]] for step, meta in saves(job).items()}
    assert found == {4: [3], 8: [3, 7, 8], 12: [3, 7, 8, 11]}
    first = saves(job)[4]["incidents"][0]
    assert first == {"step": 3, "batch_id": 102, "kind": "not_finite", "loss": None, "grad_norm": 0.5}
    assert describe(first).startswith("step 3: loss or gradient not finite, update dropped (batch 102")
    assert told == [[3], [7, 8], [11]]
    assert outcome.figures["train/skipped"] == 4


def test_a_resumed_run_goes_on_with_the_list(tmp_path):
    job = make_job(tmp_path, steps_that_fail_at(3, 7, 8, 11), Cadence(6, None, 4))
    run(job, state_at(0))
    again = make_job(
        tmp_path,
        steps_that_fail_at(3, 7, 8, 11),
        Cadence(6, None, 4),
        incidents=Incidents(saves(job)[4]["incidents"], skipped=1),
    )
    run(again, state_at(4, skipped=1))
    assert saves(again)[12] == saves(job)[12]


def test_a_step_is_saved_before_it_is_evaluated(tmp_path):
    job = make_job(tmp_path, steps_that_fail_at(), Cadence(100, 4, 4), num_steps=8)
    seen = []
    job.evaluate = lambda state: seen.append((state.step, sorted(saves(job)))) or {}
    run(job, state_at(0))
    assert seen == [(4, [4]), (8, [4, 8])]


@pytest.mark.parametrize("cut_at", [4, 8])
def test_a_signal_ends_an_evaluation_which_comes_again(tmp_path, cut_at):
    job = make_job(tmp_path, steps_that_fail_at(), Cadence(100, 4, 4), num_steps=8)
    seen = []

    def evaluate(state):
        if state.step == cut_at and cut_at not in seen:
            seen.append(cut_at)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return {"eval/loss": float(state.step)}

    job = dataclasses.replace(job, evaluate=evaluate)
    start = time.monotonic()
    outcome = run(job, state_at(0))
    assert time.monotonic() - start < 50
    assert (outcome.stopped_by, outcome.step, max(saves(job))) == ("SIGTERM", cut_at, cut_at)
    assert outcome.figures.get("eval/loss") == (None if cut_at == 4 else 4.0)
    again = make_job(tmp_path, steps_that_fail_at(), Cadence(100, 4, 4), num_steps=8)
    steps = []
    again.evaluate = lambda state: steps.append(state.step) or {"eval/loss": float(state.step)}
    again.was_evaluated = False
    run(again, state_at(cut_at))
    assert steps == ([4, 8] if cut_at == 4 else [8])


def test_the_mean_loss_of_an_interval_survives_a_save_inside_it(tmp_path):
    def step_fn(state, batch):
        return state.replace(step=state.step + 1), {"loss": np.float32(state.step)}

    job = make_job(tmp_path, step_fn, Cadence(12, None, 5))
    outcome = run(job, state_at(0))
    assert outcome.figures["train/loss"] == pytest.approx(np.mean(np.arange(12)))


def test_what_was_trained_is_saved_where_the_data_end_early(tmp_path):
    job = make_job(tmp_path, steps_that_fail_at(), Cadence(100, None, 5))
    job = dataclasses.replace(
        job, open_batches=lambda data: contextlib.nullcontext(iter((100 + i, {}) for i in range(8)))
    )
    with pytest.raises(UserError, match=r"the data ends at step 8 of 12.*raise data.num_epochs"):
        run(job, state_at(0))
    assert list(saves(job)) == [5, 8]


def test_the_clock_asks_for_saves(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(cadences.time, "monotonic", lambda: now[0])

    def step_fn(state, batch):
        now[0] += 25.0
        return state.replace(step=state.step + 1), {"loss": np.float32(1.0)}

    job = make_job(tmp_path, step_fn, Cadence(100, None, 6, save_minutes=1.0))
    run(job, state_at(0))
    assert list(saves(job)) == [3, 6, 9, 12]  # each save, whatever asked for it, sets the clock back


def test_the_loop_itself_costs_next_to_nothing(tmp_path, monkeypatch):
    state = state_at(0)
    metrics = {name: jnp.float32(1.0) for name in ("loss", "grad_norm", "learning_rate", "term/nll")}
    metrics["skipped"] = jnp.int32(0)
    num_steps = 2000
    job = make_job(tmp_path, lambda state, batch: (state, metrics), Cadence(10**6, None, None), num_steps=num_steps)
    look, fetching = Interval.look, [0.0]

    def timed(interval):
        start = time.perf_counter()
        found = look(interval)
        fetching[0] += time.perf_counter() - start
        return found

    monkeypatch.setattr(Interval, "look", timed)
    start = time.perf_counter()
    run(job, state)
    each = (time.perf_counter() - start - fetching[0]) / num_steps
    print(f"{each * 1e6:.1f} us a step; fetch {fetching[0] / num_steps * 1e6:.1f} us a step")
    assert each < 100e-6


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ((4.0, 3.176, 4.756), "eval/loss 4.756 at the end, 3.176 at step 2: lower num_steps"),
        ((4.0, 3.17, 3.176), None),  # noise
        ((4.0, 3.0, None), None),
        ((), None),
    ],
)
def test_a_run_that_ends_worse_than_it_was_says_so(tmp_path, capsys, monkeypatch, losses, told):
    monkeypatch.setattr(training, "write_report", lambda *args, **kwargs: None)
    lines = [{"step": step, "eval/loss": loss} for step, loss in enumerate(losses, start=1)]
    directory = RunDir(tmp_path)
    directory.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    training.conclude(directory, Outcome(state_at(3), 3, {}, None), {}, {})
    err = capsys.readouterr().err
    assert (told or "report:") in err
    assert ("at the end" in err) == (told is not None)
