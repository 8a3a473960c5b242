"""Checkpoints: an asynchronous save as the loop sees it, until it is committed, and a restore."""

import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from jaxlm.core.tree import count_bytes
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.train.state import TrainState
from tools.bench.measuring import Row, fresh_state, measure, timed
from tools.bench.models import on_cpu
from tools.bench.train import GPT2_CASE, SMALL_CASE


def bench_checkpoint(repeats: int) -> Iterator[Row]:
    """An asynchronous save as the loop sees it, until it is committed, and a restore."""
    from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer

    for case in [SMALL_CASE] if on_cpu() else [SMALL_CASE, GPT2_CASE]:
        name, config = case[:2]
        _, _, state = fresh_state(config, OptimizerConfig())
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        size = count_bytes(abstract)
        with tempfile.TemporaryDirectory() as directory:
            checkpointer = Checkpointer(directory, CheckpointConfig(keep_last=1))
            steps = iter(range(10**9))

            def save(c: Checkpointer = checkpointer, s: TrainState = state, steps: Any = steps) -> None:
                c.save(next(steps), s, {})

            called = measure(save, repeats=repeats, before=checkpointer.wait)
            yield timed(f"checkpoint {name} save call", called, bytes=size)
            committed = measure(lambda c=checkpointer, f=save: (f(), c.wait()), repeats=repeats)
            yield timed(f"checkpoint {name} save committed", committed, bytes=size)
            restored = measure(lambda c=checkpointer, a=abstract: c.restore(a), repeats=repeats)
            yield timed(f"checkpoint {name} restore", restored, bytes=size)
            checkpointer.close()
