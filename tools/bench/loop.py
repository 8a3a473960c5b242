"""What the training loop adds to its steps."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.data.batches import DataConfig, DataState, train_plan
from jaxlm.data.rows import ArraySource
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.train.objectives import causal_objective
from jaxlm.train.step import make_train_step
from tools.bench.measuring import Row, fresh_state, random_tokens, timed
from tools.bench.models import on_cpu
from tools.bench.train import GPT2_CASE, SMALL_CASE


def bench_loop(repeats: int) -> Iterator[Row]:
    """What the training loop adds to its steps: the same step bare, and under the loop with its data, logs, progress
    and a checkpoint every 500 steps, in turns of 500. ``repeats`` / 4 turns, at least 3."""
    from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer
    from jaxlm.io.goodput import Goodput
    from jaxlm.io.loader import train_batches
    from jaxlm.io.metrics import MetricsWriter
    from jaxlm.io.progress import Progress
    from jaxlm.run.cadence import Cadence
    from jaxlm.run.incidents import Incidents
    from jaxlm.run.loop import Job, run_loop
    from jaxlm.run.position import Position
    from jaxlm.run.setup import batch_sharding
    from jaxlm.run.signals import StopRequest
    from jaxlm.sharding.mesh import MeshConfig, make_mesh
    from jaxlm.train.spikes import SpikeConfig, SpikeMonitor

    turn = 500
    turns = max(3, repeats // 4)
    for case in [SMALL_CASE] if on_cpu() else [SMALL_CASE, GPT2_CASE]:
        name, config, batch_size, seq_len = case[:4]
        opt = OptimizerConfig()
        model, tx, state = fresh_state(config, opt)
        source = ArraySource(random_tokens(config.padded_vocab_size, 1_000_000))
        plan = train_plan(source, DataConfig(seq_len=seq_len, packing="concat"), global_batch_size=batch_size, seed=0)
        sharding = batch_sharding(make_mesh(MeshConfig(), jax.devices()[:1]))
        key = purpose_key(0, Purpose.DROPOUT)
        jitted = jax.jit(make_train_step(causal_objective(model), tx, schedule=opt.schedule_fn(1000)), donate_argnums=0)
        bare, looped = [], []
        with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
            batches = stack.enter_context(train_batches(source, plan, DataState(), sharding, pad_id=0))
            checkpointer = stack.enter_context(Checkpointer(f"{directory}/checkpoints", CheckpointConfig()))
            writer = stack.enter_context(MetricsWriter(directory))
            goodput = stack.enter_context(Goodput(Path(directory) / "goodput.jsonl"))
            progress = stack.enter_context(Progress(turns * 3 * turn, 0))
            stop = stack.enter_context(StopRequest())
            _, batch = next(batches)
            compiled = jitted.lower(state, None, batch, key).compile()
            for _ in range(turns):
                start = time.perf_counter()
                for _ in range(turn):
                    state, _ = compiled(state, None, batch, key)
                jax.block_until_ready(state.step)
                bare.append((time.perf_counter() - start) / turn)
                first = int(state.step)
                job = Job(
                    num_steps=first + turn,
                    compile_step=lambda *_, step=compiled, key=key: lambda s, b: step(s, None, b, key),
                    open_batches=lambda _, batches=batches: contextlib.nullcontext(batches),
                    evaluate=lambda _: {},
                    sample=lambda *_: None,
                    cadence=Cadence(50, None, turn),
                    tokens_per_row=seq_len,
                    flops_per_row=1.0,
                    peak_flops=None,
                    checkpointer=checkpointer,
                    writer=writer,
                    progress=progress,
                    incidents=Incidents(monitor=SpikeMonitor(SpikeConfig(response="note"))),
                    goodput=goodput,
                )
                start = time.perf_counter()
                state = run_loop(job, Position(state, batches.state), stop).state
                looped.append((time.perf_counter() - start) / turn)
        overhead = statistics.median(with_loop / alone for with_loop, alone in zip(looped, bare, strict=True)) - 1
        figures = {"step_ms": 1e3 * statistics.median(bare), "overhead": overhead}
        yield timed(f"loop {name}", (statistics.median(looped), min(looped), max(looped)), **figures)
