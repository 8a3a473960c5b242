"""``python -m tools.bench [train|loop|decode|data|loader|checkpoint ...]``: one JSON table for the device JAX finds.

Times are medians over repeats; the spread is given beside them, since machines are shared. Data are random tokens
held in memory: nothing is read from disk but what a section measures.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.core.keys import Purpose, fold_key, purpose_key
from jaxlm.core.tree import count_bytes, count_params
from jaxlm.data.batches import DataConfig, DataState, make_batch, train_plan
from jaxlm.data.rows import ArraySource
from jaxlm.generate.decode import generate_tokens, left_pad
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.decoder import DecoderConfig, make_decoder, resolve_attention
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.plan.flops import peak_flops, train_flops_per_token
from jaxlm.run.devices import keep_freed_memory
from jaxlm.run.setup import batch_sharding
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from jaxlm.train.objectives import causal_objective
from jaxlm.train.state import TrainState, create_state
from jaxlm.train.step import make_train_step

Row = dict[str, Any]

SMALL = DecoderConfig(
    vocab_size=65,
    max_seq_len=64,
    num_layers=4,
    model_dim=128,
    num_heads=4,
    mlp_dim=344,
    norm_scale=False,
    tie_embeddings=False,
    scan_layers=False,
)
"""The model of configs/shakespeare_char.py."""
GPT2 = DecoderConfig(
    vocab_size=50257,
    num_layers=12,
    model_dim=768,
    num_heads=12,
    mlp="gelu",
    norm="layernorm",
    qk_norm=False,
    position="learned",
    compute_dtype="bfloat16",
)
"""GPT-2 124M without biases, for accelerators."""


def cases() -> list[tuple[str, DecoderConfig, int, int]]:
    """(name, model, rows, sequence length) that suit the device."""
    small = [("0.8M", SMALL, 12, 64)]
    return small if jax.default_backend() == "cpu" else [*small, ("gpt2-124M", GPT2, 16, 1024)]


def measure(
    fn: Callable[[], Any], *, repeats: int, before: Callable[[], Any] = lambda: None
) -> tuple[float, float, float]:
    """(median, minimum, maximum) seconds of ``fn``, which waits for its own result; ``before`` each is not timed."""
    fn()
    times = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times), max(times)


def timed(name: str, seconds: tuple[float, float, float], **figures: Any) -> Row:
    """One row of the table."""
    median, least, most = seconds
    return {"name": name, "ms": 1e3 * median, "ms_min": 1e3 * least, "ms_max": 1e3 * most, **figures}


def random_tokens(vocab_size: int, count: int) -> np.ndarray:
    """Token ids, int32."""
    return np.random.default_rng(0).integers(0, vocab_size, count).astype(np.int32)


def fresh_state(config: DecoderConfig, optimizer: OptimizerConfig) -> tuple[Any, Any, TrainState]:
    """(model, tx, state) on the first device."""
    model, tx = make_decoder(resolve_attention(config, jax.default_backend())), make_optimizer(optimizer, 1000)
    return model, tx, jax.jit(lambda key: create_state(model.init(key), tx))(fold_key(0, Purpose.INIT))


def bench_train(repeats: int) -> list[Row]:
    """The train step under AdamW and Muon, tokens already on the device."""
    rows = []
    for name, config, batch_size, seq_len in cases():
        tokens = random_tokens(config.padded_vocab_size, batch_size * seq_len).reshape(batch_size, seq_len)
        batch = {"tokens": tokens, "targets": tokens, "loss_mask": np.ones(tokens.shape, np.float32)}
        batch = jax.device_put(batch)
        for optimizer in ("adamw", "muon"):
            opt = OptimizerConfig(name=optimizer)
            model, tx, state = fresh_state(config, opt)
            step = make_train_step(causal_objective(model), tx, schedule=opt.schedule_fn(1000))
            key = purpose_key(0, Purpose.DROPOUT)
            start = time.perf_counter()
            compiled = jax.jit(step, donate_argnums=0).lower(state, None, batch, key).compile()
            compile_seconds = time.perf_counter() - start
            held = [state]

            def run(
                compiled: Any = compiled, held: list[TrainState] = held, batch: Any = batch, key: Any = key
            ) -> None:
                held[0], _ = compiled(held[0], None, batch, key)
                jax.block_until_ready(held[0].step)

            seconds = measure(run, repeats=repeats)
            flops = batch_size * seq_len * train_flops_per_token(config, seq_len) / seconds[0]
            peak = peak_flops(jax.devices()[0].device_kind)
            rows.append(
                timed(
                    f"train {name} {optimizer} {batch_size}x{seq_len}",
                    seconds,
                    tokens_per_second=batch_size * seq_len / seconds[0],
                    flops_per_second=flops,
                    mfu=None if peak is None else flops / peak,
                    compile_seconds=compile_seconds,
                    num_params=count_params(held[0].params),
                )
            )
    return rows


def bench_decode(repeats: int) -> list[Row]:
    """Greedy completion of batches of prompts, prefill included."""
    rows = []
    for name, config, _, seq_len in cases():
        model = make_decoder(config)
        params = jax.jit(model.init)(fold_key(0, Purpose.INIT))
        new = seq_len // 2
        for batch_size in (1, 64):
            prompts = random_tokens(config.padded_vocab_size, batch_size * (seq_len - new)).reshape(batch_size, -1)
            inputs = left_pad(prompts.tolist(), 0)
            sampling = SamplingConfig(temperature=0.0)
            generate = jax.jit(
                lambda params, *inputs, model=model, new=new, sampling=sampling: generate_tokens(
                    model, params, *inputs, max_new_tokens=new, sampling=sampling, key=fold_key(0, Purpose.SAMPLE)
                )
            )
            seconds = measure(lambda g=generate, p=params, i=inputs: jax.block_until_ready(g(p, *i)), repeats=repeats)
            rows.append(
                timed(
                    f"decode {name} batch {batch_size}, {new} new tokens",
                    seconds,
                    tokens_per_second=batch_size * new / seconds[0],
                )
            )
    return rows


def bench_data(repeats: int) -> list[Row]:
    """Rows and batches from tokens in memory, in this thread: what one core can feed."""
    rows = []
    for packing in ("concat", "best_fit"):
        source = ArraySource(random_tokens(4096, 1_000_000), np.arange(0, 1_000_001, 250))
        plan = train_plan(source, DataConfig(seq_len=64, packing=packing), global_batch_size=12, seed=0)
        ids = iter(range(10**9))
        seconds = measure(
            lambda s=source, p=plan, i=ids: make_batch(s, p, p.row_ids(next(i)), pad_id=0), repeats=20 * repeats
        )
        rows.append(timed(f"data {packing} 12x64", seconds, tokens_per_second=12 * 64 / seconds[0]))
    return rows


def bench_loader(repeats: int) -> list[Row]:
    """The whole pipeline of a run, read ahead by its threads, its arrays on the device: as many tokens as it can give.

    ``taskset -c 0`` around the command says what one core can.
    """
    from jaxlm.io.loader import train_batches

    rows = []
    for packing in ("concat", "best_fit"):
        source = ArraySource(random_tokens(4096, 1_000_000), np.arange(0, 1_000_001, 250))
        plan = train_plan(source, DataConfig(seq_len=64, packing=packing), global_batch_size=12, seed=0)
        sharding = batch_sharding(make_mesh(MeshConfig(), jax.devices()[:1]))
        with train_batches(source, plan, DataState(), sharding, pad_id=0) as batches:

            def read(batches: Any = batches) -> None:
                for _ in range(100):
                    jax.block_until_ready(next(batches)[1]["tokens"])

            seconds = measure(read, repeats=repeats)
        rows.append(timed(f"loader {packing} 12x64, 100 batches", seconds, tokens_per_second=76800 / seconds[0]))
    return rows


def bench_loop(repeats: int) -> list[Row]:
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
    from jaxlm.run.signals import StopRequest
    from jaxlm.train.spikes import SpikeConfig, SpikeMonitor

    rows, turn = [], 500
    turns = max(3, repeats // 4)
    for name, config, batch_size, seq_len in cases():
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
        rows.append(timed(f"loop {name}", (statistics.median(looped), min(looped), max(looped)), **figures))
    return rows


def bench_checkpoint(repeats: int) -> list[Row]:
    """An asynchronous save as the loop sees it, until it is committed, and a restore."""
    from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer

    rows = []
    for name, config, _, _ in cases():
        _, _, state = fresh_state(config, OptimizerConfig())
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        size = count_bytes(abstract)
        with tempfile.TemporaryDirectory() as directory:
            checkpointer = Checkpointer(directory, CheckpointConfig(keep_last=1))
            steps = iter(range(10**9))

            def save(c: Checkpointer = checkpointer, s: TrainState = state, steps: Any = steps) -> None:
                c.save(next(steps), s, {})

            called = measure(save, repeats=repeats, before=checkpointer.wait)
            rows.append(timed(f"checkpoint {name} save call", called, bytes=size))
            committed = measure(lambda c=checkpointer, f=save: (f(), c.wait()), repeats=repeats)
            rows.append(timed(f"checkpoint {name} save committed", committed, bytes=size))
            restored = measure(lambda c=checkpointer, a=abstract: c.restore(a), repeats=repeats)
            rows.append(timed(f"checkpoint {name} restore", restored, bytes=size))
            checkpointer.close()
    return rows


SECTIONS = {
    "train": bench_train,
    "loop": bench_loop,
    "decode": bench_decode,
    "data": bench_data,
    "loader": bench_loader,
    "checkpoint": bench_checkpoint,
}


def main(argv: list[str]) -> int:
    """Prints rows to stderr as they come, and the whole table as one JSON line on stdout."""
    parser = argparse.ArgumentParser(prog="tools.bench", description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], help="all unless named")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args(argv)
    keep_freed_memory()
    table = []
    for name in args.sections or SECTIONS:
        for row in SECTIONS[name](args.repeats):
            print(
                "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()), file=sys.stderr
            )
            table.append(row)
    device = jax.devices()[0]
    print(
        json.dumps({"device": device.device_kind, "platform": device.platform, "jax": jax.__version__, "rows": table})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
