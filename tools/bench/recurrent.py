"""Recurrent layers, forward and backward: XLA's scan beside what is fastest here."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlm.models.families import make_model
from jaxlm.models.recurrent import RecurrentConfig, resolve_unroll
from jaxlm.nn.recurrent import CELLS
from jaxlm.run.cpu_kernels import kernel_missing
from tools.bench.measuring import Row, measure, random_tokens, timed
from tools.bench.models import on_cpu

LARGE = RecurrentConfig(vocab_size=33_278, num_layers=3, model_dim=400, hidden_dim=1152)
"""The layers of ``configs/wikitext_lstm_large``."""
SMALL = RecurrentConfig(vocab_size=256, num_layers=1, model_dim=256)


def bench_recurrent(repeats: int) -> Iterator[Row]:
    """A row for each cell and implementation: tokens a second of the layers' outputs and gradients, products in f32 on
    a CPU and bfloat16 elsewhere. ``difference``: norm of that of the gradients from the scan's over the norm, both with
    products in full f32."""
    config, rows, steps = (SMALL, 16, 64) if on_cpu() else (LARGE, 64, 64)
    assert config.vocab_size is not None
    tokens = jnp.asarray(random_tokens(config.vocab_size, rows * steps).reshape(rows, steps))
    positions = jnp.broadcast_to(jnp.arange(steps, dtype=jnp.int32), (rows, steps))
    for cell in CELLS:
        asked = dataclasses.replace(config, cell=cell, compute_dtype="float32" if on_cpu() else "bfloat16")
        fastest = resolve_unroll(asked, jax.default_backend(), kernel_missing)
        params = jax.jit(make_model(asked).init)(jax.random.key(0))
        scan: Any = None
        for name in dict.fromkeys(("scan", fastest.implementation)):
            exact = dataclasses.replace(asked, implementation=name, compute_dtype="float32")
            with jax.default_matmul_precision("highest"):
                found = _gradients(exact)(params, tokens, positions)
            scan = found if scan is None else scan
            run = _gradients(dataclasses.replace(asked, implementation=name))
            seconds = measure(functools.partial(_waited_for, run, params, tokens, positions), repeats=repeats)
            shape = f"{config.num_layers} x {config.layer_widths[0]}, {rows}x{steps}"
            yield timed(
                f"recurrent {cell} {shape}, {name}",
                seconds,
                tokens_per_second=rows * steps / seconds[0],
                difference=float(optax.tree.norm(optax.tree.sub(found, scan)) / optax.tree.norm(scan)),
            )


def _waited_for(run: Any, *given: Any) -> None:
    jax.block_until_ready(run(*given))


def _gradients(config: RecurrentConfig) -> Any:
    model = make_model(config)

    def loss(params: Any, tokens: Any, positions: Any) -> Any:
        hidden_btd = model.hidden(params, tokens, positions=positions).hidden_btd
        return jnp.sum(jnp.sin(hidden_btd.astype(jnp.float32)))

    return jax.jit(jax.grad(loss))
