"""Attention of whole rows as custom calls for CPUs, with the gradient around them.

XLA writes the scores of all heads to memory, hidden ones too, and reads them back for every pass of the softmax: at
head widths of 16 to 64 that takes several times as long as the products. The kernel (``jaxlm/run/kernels/attention.h``,
built and registered by ``jaxlm.run.cpu_kernels``) keeps a block of queries in the cache from its scores to its output,
leaves out keys that nobody of the block sees, and makes the weights again for the gradient (Dao et al. 2022).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.types import Array
from jaxlm.nn.split_heads import on_each_device

FORWARD, BACKWARD = "jaxlm_attention_forward", "jaxlm_attention_backward"
"""The names by which XLA knows the calls."""


class Stretch(NamedTuple):
    """The keys that each query sees: those from ``first_bt`` on, up to and without ``end_bt``."""

    first_bt: Array
    end_bt: Array


def stretches(shape: tuple[int, ...], segment_ids_bt: Array | None, *, causal: bool, window: int | None) -> Stretch:
    """For rows of ``shape`` (b, t) that hold packed segments one after another; padding (segment 0) sees nothing."""
    t = shape[1]
    index = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32), shape)
    first, end = jnp.zeros(shape, jnp.int32), jnp.full(shape, t, jnp.int32)
    if segment_ids_bt is not None:
        changes = segment_ids_bt[:, 1:] != segment_ids_bt[:, :-1]
        first = jax.lax.cummax(jnp.where(jnp.pad(changes, ((0, 0), (1, 0))), index, 0), axis=1)
        last = jnp.pad(changes, ((0, 0), (0, 1)), constant_values=True)
        end = jax.lax.cummin(jnp.where(last, index + 1, t), axis=1, reverse=True)
    if window is not None:
        first, end = jnp.maximum(first, index - window + 1), jnp.minimum(end, index + window)
    if causal:
        end = jnp.minimum(end, index + 1)
    if segment_ids_bt is not None:
        end = jnp.where(segment_ids_bt == 0, first, end)
    return Stretch(first, end)


def cpu_attention(
    q_btnh: Array,
    k_btkh: Array,
    v_btkh: Array,
    segment_ids_bt: Array | None,
    *,
    causal: bool,
    window: int | None,
    scale: float,
) -> Array:
    """Attention of whole rows, f32 [b, t, n, h]; what is padding comes out 0. The sums run in another order than XLA's,
    and in the same whatever rows and heads stand beside."""

    def local(q: Array, k: Array, v: Array, segments: Array | None) -> Array:
        seen = stretches(q.shape[:2], segments, causal=causal, window=window)
        return _attention(scale, q, k, v, seen)

    return on_each_device(local, q_btnh, k_btkh, v_btkh, segment_ids_bt)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(scale: float, q_btnh: Array, k_btkh: Array, v_btkh: Array, seen: Stretch) -> Array:
    return _call(scale, q_btnh, k_btkh, v_btkh, seen)[0]


def _call(scale: float, q_btnh: Array, k_btkh: Array, v_btkh: Array, seen: Stretch) -> tuple[Array, Array]:
    """The output, and the logarithm of the sum that each query's weights were divided by, [b, n, t]."""
    b, t, n, _ = q_btnh.shape
    out = jax.ShapeDtypeStruct(q_btnh.shape, jnp.float32), jax.ShapeDtypeStruct((b, n, t), jnp.float32)
    call = jax.ffi.ffi_call(FORWARD, out, vmap_method="sequential")
    out_btnh, log_sum_bnt = call(q_btnh, k_btkh, v_btkh, *seen, scale=np.float32(scale))
    return out_btnh, log_sum_bnt


def _forward(scale: float, q_btnh: Array, k_btkh: Array, v_btkh: Array, seen: Stretch) -> tuple[Array, tuple]:
    out_btnh, log_sum_bnt = _call(scale, q_btnh, k_btkh, v_btkh, seen)
    return out_btnh, (q_btnh, k_btkh, v_btkh, out_btnh, log_sum_bnt, seen)


def _backward(scale: float, residuals: tuple, grad_btnh: Array) -> tuple[Array, Array, Array, None]:
    *arrays, seen = residuals
    q_btnh, k_btkh, v_btkh = arrays[:3]
    out = tuple(jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (q_btnh, k_btkh, v_btkh))
    call = jax.ffi.ffi_call(BACKWARD, out, vmap_method="sequential")
    dq_btnh, dk_btkh, dv_btkh = call(grad_btnh, *arrays, *seen, scale=np.float32(scale))
    return dq_btnh, dk_btkh, dv_btkh, None


_attention.defvjp(_forward, _backward)
