"""Norms on NVIDIA GPUs: one kernel forward and one backward, where XLA makes five passes over the stream.

The backward kernel also adds the gradient that comes back along the residual stream, so that a block's stream is read
and written once.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array

_TILE = 4096
"""Elements that a program works on at once."""
_PROGRAMS = 528
"""Of the backward pass, each with sums of its own for the gain: four for each multiprocessor of an H100."""


class NormKernel(NamedTuple):
    """What a norm computes. Hashable: it is no part of what is traced."""

    centred: bool
    """LayerNorm; else RMSNorm."""
    eps: float
    offset: bool
    """Gains are 1 + scale."""
    dtype: Any
    """Of the result."""
    interpret: bool = False
    """Pallas's interpreter in place of a GPU: slow, to check the kernels anywhere."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def norm_beside(kernel: NormKernel, x: Array, scale_d: Array | None, bias_d: Array | None) -> tuple[Array, Array]:
    """(``norm(x) * gain + bias`` in ``kernel.dtype``, x), both [..., d]. x comes back so that what else is done with it
    sends its gradient through the norm's own backward pass."""
    x_nd = x.reshape(-1, x.shape[-1])
    return _forward(kernel, x_nd, scale_d, bias_d).reshape(x.shape), x


def _norm_fwd(kernel: NormKernel, x: Array, scale_d: Array | None, bias_d: Array | None) -> tuple[Any, Any]:
    return norm_beside(kernel, x, scale_d, bias_d), (x, scale_d, bias_d)


def _norm_bwd(kernel: NormKernel, kept: Any, grads: tuple[Array, Array]) -> tuple[Array, Array | None, Array | None]:
    x, scale_d, bias_d = kept
    dy, dx_passed = grads
    d = x.shape[-1]
    dx_nd, dscale_pd, dbias_pd = _backward(
        kernel, x.reshape(-1, d), scale_d, bias_d is not None, dy.reshape(-1, d), dx_passed.reshape(-1, d)
    )
    dscale_d = None if scale_d is None else jnp.sum(dscale_pd, axis=0).astype(scale_d.dtype)
    dbias_d = None if bias_d is None else jnp.sum(dbias_pd, axis=0).astype(bias_d.dtype)
    return dx_nd.reshape(x.shape), dscale_d, dbias_d


norm_beside.defvjp(_norm_fwd, _norm_bwd)


def _tile(width: int) -> tuple[int, int, int]:
    """(rows, columns, warps) of a tile; columns are the next power of two."""
    columns = pl.next_power_of_2(width)
    rows = max(1, _TILE // columns)
    return rows, columns, min(max(rows * columns // 512, 1), 16)


def _place(start: Array, rows: int, columns: int, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """(row numbers [r, 1], column numbers [1, c], which of them exist [r, c])."""
    row_r1 = start + jnp.arange(rows)[:, None]
    col_1c = jnp.arange(columns)[None, :]
    return row_r1, col_1c, (row_r1 < shape[0]) & (col_1c < shape[1])


def _read(ref: Any, row_r1: Array, col_1c: Array, mask_rc: Array) -> Array:
    """A tile in f32, zeros where there is none."""
    return plgpu.load(ref.at[row_r1, col_1c], mask=mask_rc, other=0.0).astype(jnp.float32)


def _read_vector(ref: Any, columns: int, width: int) -> Array:
    """[1, c] in f32."""
    col_c = jnp.arange(columns)
    return plgpu.load(ref.at[col_c], mask=col_c < width, other=0.0).astype(jnp.float32)[None, :]


def _normalise(x_rc: Array, mask_rc: Array, width: int, kernel: NormKernel) -> tuple[Array, Array]:
    """(normalised, 1 / deviation [r, 1])."""
    if kernel.centred:
        mean_r1 = jnp.sum(x_rc, axis=1, keepdims=True) / width
        x_rc = jnp.where(mask_rc, x_rc - mean_r1, 0.0)
    scale_r1 = jax.lax.rsqrt(jnp.sum(x_rc * x_rc, axis=1, keepdims=True) / width + kernel.eps)
    return x_rc * scale_r1, scale_r1


def _forward(kernel: NormKernel, x_nd: Array, scale_d: Array | None, bias_d: Array | None) -> Array:
    n, d = x_nd.shape
    rows, columns, warps = _tile(d)
    vectors = [vector for vector in (scale_d, bias_d) if vector is not None]

    def program(x_ref: Any, *refs: Any) -> None:
        *vector_refs, y_ref = refs
        row_r1, col_1c, mask_rc = _place(pl.program_id(0) * rows, rows, columns, (n, d))
        y_rc, _ = _normalise(_read(x_ref, row_r1, col_1c, mask_rc), mask_rc, d, kernel)
        values = [_read_vector(ref, columns, d) for ref in vector_refs]
        if scale_d is not None:
            y_rc = y_rc * (values[0] + 1.0 if kernel.offset else values[0])
        if bias_d is not None:
            y_rc = y_rc + values[-1]
        plgpu.store(y_ref.at[row_r1, col_1c], y_rc.astype(y_ref.dtype), mask=mask_rc)

    return pl.pallas_call(
        program,
        grid=(pl.cdiv(n, rows),),
        out_shape=jax.ShapeDtypeStruct((n, d), kernel.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=warps),
        interpret=kernel.interpret,
        name="norm_forward",
    )(x_nd, *vectors)


def _backward(
    kernel: NormKernel, x_nd: Array, scale_d: Array | None, has_bias: bool, dy_nd: Array, passed_nd: Array
) -> tuple[Array, Array, Array]:
    """(gradient of x, those of gain and bias in parts [p, d] to be summed)."""
    n, d = x_nd.shape
    rows, columns, warps = _tile(d)
    tiles = pl.cdiv(n, rows)
    programs = min(_PROGRAMS, tiles)
    turns = pl.cdiv(tiles, programs)
    vectors = [] if scale_d is None else [scale_d]

    def program(x_ref: Any, dy_ref: Any, passed_ref: Any, *refs: Any) -> None:
        dx_ref, dscale_ref, dbias_ref = refs[len(vectors) :]
        p = pl.program_id(0)
        gain_1c = None
        if scale_d is not None:
            gain_1c = _read_vector(refs[0], columns, d)
            gain_1c = gain_1c + 1.0 if kernel.offset else gain_1c

        def turn(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            row_r1, col_1c, mask_rc = _place((i * programs + p) * rows, rows, columns, (n, d))
            dy_rc = _read(dy_ref, row_r1, col_1c, mask_rc)
            x_rc, scale_r1 = _normalise(_read(x_ref, row_r1, col_1c, mask_rc), mask_rc, d, kernel)
            dx_rc = dy_rc if gain_1c is None else dy_rc * gain_1c
            inner_r1 = jnp.sum(dx_rc * x_rc, axis=1, keepdims=True) / d
            change_rc = dx_rc - x_rc * inner_r1
            if kernel.centred:
                change_rc = change_rc - jnp.sum(dx_rc, axis=1, keepdims=True) / d
            out_rc = change_rc * scale_r1 + _read(passed_ref, row_r1, col_1c, mask_rc)
            plgpu.store(dx_ref.at[row_r1, col_1c], out_rc.astype(dx_ref.dtype), mask=mask_rc)
            return sums[0] + jnp.sum(dy_rc * x_rc, axis=0), sums[1] + jnp.sum(dy_rc, axis=0) if has_bias else sums[1]

        zeros_c = jnp.zeros((columns,), jnp.float32)
        dscale_c, dbias_c = jax.lax.fori_loop(0, turns, turn, (zeros_c, zeros_c))
        col_c = jnp.arange(columns)
        plgpu.store(dscale_ref.at[p, col_c], dscale_c, mask=col_c < d)
        plgpu.store(dbias_ref.at[p, col_c], dbias_c, mask=col_c < d)

    parts = jax.ShapeDtypeStruct((programs, d), jnp.float32)
    return pl.pallas_call(
        program,
        grid=(programs,),
        out_shape=(jax.ShapeDtypeStruct((n, d), x_nd.dtype), parts, parts),
        compiler_params=plgpu.CompilerParams(num_warps=warps),
        interpret=kernel.interpret,
        name="norm_backward",
    )(x_nd, dy_nd, passed_nd, *vectors)
