"""Batches from tokens in memory: what one core can feed, and the whole pipeline of a run."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxlm.data.batches import DataConfig, DataState, make_batch, train_plan
from jaxlm.data.rows import ArraySource
from tools.bench.measuring import Row, measure, random_tokens, timed


def bench_data(repeats: int) -> Iterator[Row]:
    """Rows and batches from tokens in memory, in this thread: what one core can feed."""
    for packing in ("concat", "best_fit"):
        source = ArraySource(random_tokens(4096, 1_000_000), np.arange(0, 1_000_001, 250))
        plan = train_plan(source, DataConfig(seq_len=64, packing=packing), global_batch_size=12, seed=0)
        ids = iter(range(10**9))
        seconds = measure(
            lambda s=source, p=plan, i=ids: make_batch(s, p, p.row_ids(next(i)), pad_id=0), repeats=20 * repeats
        )
        yield timed(f"data {packing} 12x64", seconds, tokens_per_second=12 * 64 / seconds[0])


def bench_loader(repeats: int) -> Iterator[Row]:
    """The whole pipeline of a run, read ahead by its threads, its arrays on the device: as many tokens as it can give.

    ``taskset -c 0`` around the command says what one core can.
    """
    from jaxlm.io.loader import train_batches
    from jaxlm.run.setup import batch_sharding
    from jaxlm.sharding.mesh import MeshConfig, make_mesh

    for packing in ("concat", "best_fit"):
        source = ArraySource(random_tokens(4096, 1_000_000), np.arange(0, 1_000_001, 250))
        plan = train_plan(source, DataConfig(seq_len=64, packing=packing), global_batch_size=12, seed=0)
        sharding = batch_sharding(make_mesh(MeshConfig(), jax.devices()[:1]))
        with train_batches(source, plan, DataState(), sharding, pad_id=0) as batches:

            def read(batches: Any = batches) -> None:
                for _ in range(100):
                    jax.block_until_ready(next(batches)[1]["tokens"])

            seconds = measure(read, repeats=repeats)
        yield timed(f"loader {packing} 12x64, 100 batches", seconds, tokens_per_second=76800 / seconds[0])
