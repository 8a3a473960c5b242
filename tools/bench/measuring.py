"""How a section of the bench measures: medians over repeats, and what this machine's memory gives."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.keys import Purpose, fold_key
from jaxlm.models.decoder import DecoderConfig, make_decoder, resolve_kernels
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.train.state import TrainState, create_state

Row = dict[str, Any]
Seconds = tuple[float, float, float]
"""Median, minimum, maximum."""


def spread(times: list[float]) -> Seconds:
    """(median, minimum, maximum)."""
    return statistics.median(times), min(times), max(times)


def measure(fn: Callable[[], Any], *, repeats: int, before: Callable[[], Any] = lambda: None) -> Seconds:
    """Seconds of ``fn``, which waits for its own result; ``before`` each is not timed."""
    fn()
    times = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return spread(times)


def timed(name: str, seconds: Seconds, **figures: Any) -> Row:
    """One row of the table."""
    median, least, most = seconds
    return {"name": name, "ms": 1e3 * median, "ms_min": 1e3 * least, "ms_max": 1e3 * most, **figures}


def random_tokens(vocab_size: int, count: int) -> np.ndarray:
    """Token ids, int32."""
    return np.random.default_rng(0).integers(0, vocab_size, count).astype(np.int32)


def fresh_state(config: DecoderConfig, optimizer: OptimizerConfig) -> tuple[Any, Any, TrainState]:
    """(model, tx, state) on the first device."""
    model, tx = (
        make_decoder(resolve_kernels(config, jax.default_backend(), kernel_missing)),
        make_optimizer(optimizer, 1000),
    )
    return model, tx, jax.jit(lambda key: create_state(model.init(key), tx))(fold_key(0, Purpose.INIT))


def measured_bandwidth(num_bytes: int, repeats: int = 10) -> float:
    """Bytes a second of this device's memory, by the fastest of reading an array and of copying it (read and written
    bytes both counted)."""
    array = jnp.ones(num_bytes // 4, jnp.float32)
    read, copy = jax.jit(jnp.sum), jax.jit(lambda x: -x)
    least = [
        count * num_bytes / measure(lambda fn=fn: jax.block_until_ready(fn(array)), repeats=repeats)[1]
        for fn, count in ((read, 1), (copy, 2))
    ]
    return max(least)
