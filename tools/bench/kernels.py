"""Our kernels for GPUs beside XLA's code for the same mathematics: how far apart their gradients are."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlm.losses.tokens import token_nll
from jaxlm.losses.triton_tokens import HeadKernel, head_nll
from jaxlm.nn.mlp import gelu_exact
from jaxlm.nn.norms import layer_normalize
from jaxlm.nn.triton_gates import elementwise, gelu_by_erf, gelu_on_gpu
from jaxlm.nn.triton_norms import NormKernel, norm_beside
from tools.bench.measuring import Row
from tools.bench.models import on_cpu

UNTUNED = {"xla_gpu_autotune_level": "0"}
"""No product is tried in many forms: its time is not asked for, and six programs are compiled in seconds."""


def bench_kernels(repeats: int) -> Iterator[Row]:
    """Gradients of a norm, activations and the loss: at the widths of GPT-2 on a GPU, or tiny and interpreted.

    ``difference``: norm of the difference over the norm, all gradients together, of f32 against XLA's f32. How long the
    kernels take is `tools.bench trace`'s to say; ``repeats`` is not used.
    """
    del repeats
    interpret = on_cpu()
    rows, width, inner, symbols = (64, 96, 160, 300) if interpret else (1024, 768, 3072, 50304)
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

    yield _compared("layer norm", ours_norm, xla_norm, (x, gain, bias))

    gate, up, d_inner = (jax.random.normal(key, (rows, inner)) for key in keys[:3])
    ours_gelu = gelu_by_erf if interpret else gelu_on_gpu
    for name, ours, xla, inputs in (
        ("swiglu", _swiglu, _swiglu, (gate, up)),
        ("exact gelu", ours_gelu, gelu_exact, (4 * gate,)),
    ):
        ours_gate: Callable[..., Any] = functools.partial(elementwise, ours, interpret)
        of_ours, of_xla = (lambda *x, fn=fn: jnp.sum(fn(*x) * d_inner) for fn in (ours_gate, xla))
        yield _compared(name, of_ours, of_xla, inputs)

    table = jax.random.normal(keys[5], (symbols, width)) * 0.1
    targets = jax.random.randint(keys[4], (rows,), 0, symbols)
    head = HeadKernel(None, jnp.dtype("float32"), interpret)

    def ours_loss(x: Any, table: Any) -> Any:
        out: Any = head_nll(x, table, targets, head)
        return jnp.mean(out[0])

    def xla_loss(x: Any, table: Any) -> Any:
        return jnp.mean(token_nll(x @ table.T, targets)[0])

    yield _compared("head and cross-entropy", ours_loss, xla_loss, (x, table))


def _swiglu(gate: Any, up: Any) -> Any:
    return jax.nn.silu(gate) * up


def _compared(name: str, ours: Callable[..., Any], xla: Callable[..., Any], inputs: tuple) -> Row:
    options: Any = None if on_cpu() else UNTUNED

    def gradients(fn: Callable[..., Any]) -> Any:
        return jax.jit(jax.grad(fn, tuple(range(len(inputs)))), compiler_options=options)(*inputs)

    with jax.default_matmul_precision("highest"):
        a, b = gradients(ours), gradients(xla)
    return {"name": f"kernel {name}", "difference": float(optax.tree.norm(optax.tree.sub(a, b)) / optax.tree.norm(b))}
