"""Our kernels for GPUs beside XLA's code for the same mathematics: how far apart gradients are, and their time."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlm.losses.tokens import token_nll
from jaxlm.losses.triton_tokens import HeadKernel, head_nll
from jaxlm.nn.norms import layer_normalize
from jaxlm.nn.triton_gates import elementwise
from jaxlm.nn.triton_norms import NormKernel, norm_beside
from tools.bench.measuring import Row, measure, timed
from tools.bench.models import on_cpu


def bench_kernels(repeats: int) -> Iterator[Row]:
    """Gradients of a norm, an activation and the loss, at the sizes of GPT-2 on a GPU, or tiny and interpreted.

    ``difference``: norm of the difference over the norm, all gradients together, of f32 against XLA's f32.
    """
    interpret = on_cpu()
    rows, width, inner, symbols = (64, 96, 160, 300) if interpret else (16384, 768, 3072, 50304)
    keys = jax.random.split(jax.random.key(0), 6)
    x, along, dy = (jax.random.normal(key, (rows, width)) for key in keys[:3])
    gain, bias = (jax.random.normal(key, (width,)) for key in keys[3:5])
    norm = NormKernel(True, 1e-5, False, jnp.dtype("float32"), interpret)

    def ours_norm(x: Any, gain: Any, bias: Any) -> Any:
        out: Any = norm_beside(norm, x, gain, bias)
        y, passed = out
        return jnp.sum(y * dy) + jnp.sum(passed * along)

    def xla_norm(x: Any, gain: Any, bias: Any) -> Any:
        return jnp.sum((layer_normalize(x, 1e-5) * gain + bias) * dy) + jnp.sum(x * along)

    yield _compared("layer norm", ours_norm, xla_norm, (x, gain, bias), repeats)

    gate, up, d_inner = (jax.random.normal(key, (rows, inner)) for key in keys[:3])
    ours_gate: Callable[..., Any] = functools.partial(elementwise, _swiglu, interpret)
    yield _compared(
        "swiglu",
        lambda gate, up: jnp.sum(ours_gate(gate, up) * d_inner),
        lambda gate, up: jnp.sum(_swiglu(gate, up) * d_inner),
        (gate, up),
        repeats,
    )

    table = jax.random.normal(keys[5], (symbols, width)) * 0.1
    targets = jax.random.randint(keys[4], (rows,), 0, symbols)
    head = HeadKernel(None, jnp.dtype("float32"), interpret)

    def ours_loss(x: Any, table: Any) -> Any:
        out: Any = head_nll(x, table, targets, head)
        return jnp.mean(out[0])

    def xla_loss(x: Any, table: Any) -> Any:
        return jnp.mean(token_nll(x @ table.T, targets)[0])

    yield _compared("head and cross-entropy", ours_loss, xla_loss, (x, table), repeats)


def _swiglu(gate: Any, up: Any) -> Any:
    return jax.nn.silu(gate) * up


def _compared(name: str, ours: Callable[..., Any], xla: Callable[..., Any], inputs: tuple, repeats: int) -> Row:
    with jax.default_matmul_precision("highest"):
        ours_fn, xla_fn = (jax.jit(jax.grad(fn, tuple(range(len(inputs))))) for fn in (ours, xla))
        a, b = ours_fn(*inputs), xla_fn(*inputs)
        difference = float(optax.tree.norm(optax.tree.sub(a, b)) / optax.tree.norm(b))
        ours_times, xla_times = (
            measure(lambda fn=fn: jax.block_until_ready(fn(*inputs)), repeats=repeats) for fn in (ours_fn, xla_fn)
        )
    return timed(f"kernel {name}", ours_times, xla_ms=1e3 * xla_times[0], difference=difference)
