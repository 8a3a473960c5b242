"""Norms on NVIDIA GPUs: one kernel forward and one backward, where XLA makes five passes over the stream.

The backward kernel also adds the gradient that comes back along the residual stream, so that a block's stream is read
and written once; forward it can add what a layer gives to the stream.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array

_PIECE = 256
"""Columns of a piece of a row: what the 32 threads of a warp read at once in 16 bytes each. A row is a list of pieces,
each row of a tile has a warp of its own, and no warp waits for another."""
_MOST_PIECES = 4
"""Of a row, whose values stay in registers: wider rows are cut into wider pieces."""
_ROWS = 4
"""Of a tile."""
_PROGRAMS = 528
"""Of the backward pass, each with sums of its own for the gain: some for each of an H100's 132 multiprocessors."""


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
def norm_beside(
    kernel: NormKernel, x: Array, scale_d: Array | None, bias_d: Array | None, delta: Array | None = None
) -> tuple[Array, Array]:
    """(``norm(x + delta) * gain + bias`` in ``kernel.dtype``, x + delta), both [..., d]; delta None = 0. The sum comes
    back so that what else is done with it sends its gradient through the norm's own backward pass."""
    delta_nd = None if delta is None else delta.reshape(-1, x.shape[-1])
    y_nd, sum_nd = _forward(kernel, x.reshape(-1, x.shape[-1]), scale_d, bias_d, delta_nd)
    return y_nd.reshape(x.shape), sum_nd.reshape(x.shape)


def _norm_fwd(
    kernel: NormKernel, x: Array, scale_d: Array | None, bias_d: Array | None, delta: Array | None
) -> tuple[Any, Any]:
    out: Any = norm_beside(kernel, x, scale_d, bias_d, delta)
    y, total = out
    return (y, total), (total, scale_d, bias_d, delta is not None)


def _norm_bwd(
    kernel: NormKernel, kept: Any, grads: tuple[Array, Array]
) -> tuple[Array, Array | None, Array | None, Array | None]:
    x, scale_d, bias_d, has_delta = kept
    dy, dx_passed = grads
    d = x.shape[-1]
    dx_nd, dscale_pd, dbias_pd = _backward(
        kernel, x.reshape(-1, d), scale_d, bias_d is not None, dy.reshape(-1, d), dx_passed.reshape(-1, d)
    )
    dscale_d, dbias_d = (
        None if vector is None or parts is None else jnp.sum(parts, axis=0).astype(vector.dtype)
        for vector, parts in ((scale_d, dscale_pd), (bias_d, dbias_pd))
    )
    dx = dx_nd.reshape(x.shape)
    return dx, dscale_d, dbias_d, dx if has_delta else None


norm_beside.defvjp(_norm_fwd, _norm_bwd)


class _Tiles(NamedTuple):
    """How rows [n, d] are cut: tiles of some rows, a row in pieces of a power of two of columns."""

    shape: tuple[int, int]
    piece: int

    @classmethod
    def of(cls, shape: tuple[int, int]) -> "_Tiles":
        narrow = pl.next_power_of_2(shape[1])
        return cls(shape, min(narrow, max(_PIECE, narrow // _MOST_PIECES)))

    @property
    def number(self) -> int:
        return pl.cdiv(self.shape[0], _ROWS)

    @property
    def warps(self) -> int:
        return min(_ROWS * max(self.piece // _PIECE, 1), 16)

    def columns(self) -> list[Array]:
        """Of each piece [c]."""
        return [start + jnp.arange(self.piece) for start in range(0, self.shape[1], self.piece)]

    def places(self, tile: Array) -> list[tuple[Array, Array, Array]]:
        """Of each piece of a tile: (row numbers [r, 1], column numbers [1, c], which of them exist [r, c])."""
        row_r1 = tile * _ROWS + jnp.arange(_ROWS)[:, None]
        columns = [col_c[None, :] for col_c in self.columns()]
        return [(row_r1, col_1c, (row_r1 < self.shape[0]) & (col_1c < self.shape[1])) for col_1c in columns]

    def vector(self, ref: Any) -> list[Array]:
        """The pieces of a vector [d], f32 [r, c]: read by every row's own threads, which then need not wait for each
        other."""
        columns = [jnp.broadcast_to(col_c[None, :], (_ROWS, self.piece)) for col_c in self.columns()]
        return [
            plgpu.load(ref.at[col_rc], mask=col_rc < self.shape[1], other=0.0).astype(jnp.float32) for col_rc in columns
        ]

    def store_sums(self, ref: Any, program: Array, pieces: list[Array]) -> None:
        """The pieces' sums over rows, to one row of [p, d]."""
        for col_c, sum_rc in zip(self.columns(), pieces, strict=True):
            plgpu.store(ref.at[program, col_c], jnp.sum(sum_rc, axis=0), mask=col_c < self.shape[1])


_Place = tuple[Array, Array, Array]


def _read(ref: Any, place: _Place) -> Array:
    """A piece in f32, zeros where there is none."""
    row_r1, col_1c, mask_rc = place
    return plgpu.load(ref.at[row_r1, col_1c], mask=mask_rc, other=0.0).astype(jnp.float32)


def _write(ref: Any, place: _Place, value_rc: Array) -> None:
    row_r1, col_1c, mask_rc = place
    plgpu.store(ref.at[row_r1, col_1c], value_rc.astype(ref.dtype), mask=mask_rc)


def _mean(pieces: list[Array], width: int) -> Array:
    """Of each row [r, 1]."""
    return jnp.sum(functools.reduce(jnp.add, pieces), axis=1, keepdims=True) / width


def _normalise(x: list[Array], places: list[_Place], width: int, kernel: NormKernel) -> tuple[list[Array], Array]:
    """(normalised pieces, 1 / deviation [r, 1])."""
    if kernel.centred:
        mean_r1 = _mean(x, width)
        x = [jnp.where(mask_rc, x_rc - mean_r1, 0.0) for x_rc, (_, _, mask_rc) in zip(x, places, strict=True)]
    scale_r1 = jax.lax.rsqrt(_mean([x_rc * x_rc for x_rc in x], width) + kernel.eps)
    return [x_rc * scale_r1 for x_rc in x], scale_r1


def _gains(tiles: _Tiles, ref: Any, kernel: NormKernel) -> list[Array]:
    return [gain_rc + 1.0 if kernel.offset else gain_rc for gain_rc in tiles.vector(ref)]


def _forward(
    kernel: NormKernel, x_nd: Array, scale_d: Array | None, bias_d: Array | None, delta_nd: Array | None = None
) -> tuple[Array, Array]:
    """(the norm of x + delta, x + delta)."""
    n, d = x_nd.shape
    tiles = _Tiles.of((n, d))
    vectors = [vector for vector in (scale_d, bias_d) if vector is not None]
    rows = [x_nd] if delta_nd is None else [x_nd, delta_nd]

    def program(*refs: Any) -> None:
        row_refs, vector_refs = refs[: len(rows)], refs[len(rows) : len(rows) + len(vectors)]
        y_ref, *sum_ref = refs[len(rows) + len(vectors) :]
        places = tiles.places(pl.program_id(0))
        x = [_read(row_refs[0], place) for place in places]
        if delta_nd is not None:
            delta = [_read(row_refs[1], place) for place in places]
            totals = [(x_rc + delta_rc).astype(x_nd.dtype) for x_rc, delta_rc in zip(x, delta, strict=True)]
            for place, total_rc in zip(places, totals, strict=True):
                _write(sum_ref[0], place, total_rc)
            x = [total_rc.astype(jnp.float32) for total_rc in totals]  # rounded, as the backward pass will read it
        y, _ = _normalise(x, places, d, kernel)
        if scale_d is not None:
            y = [y_rc * gain_rc for y_rc, gain_rc in zip(y, _gains(tiles, vector_refs[0], kernel), strict=True)]
        if bias_d is not None:
            y = [y_rc + bias_rc for y_rc, bias_rc in zip(y, tiles.vector(vector_refs[-1]), strict=True)]
        for place, y_rc in zip(places, y, strict=True):
            _write(y_ref, place, y_rc)

    sums = [] if delta_nd is None else [jax.ShapeDtypeStruct((n, d), x_nd.dtype)]
    y_nd, *total = pl.pallas_call(
        program,
        grid=(tiles.number,),
        out_shape=(jax.ShapeDtypeStruct((n, d), kernel.dtype), *sums),
        compiler_params=plgpu.CompilerParams(num_warps=tiles.warps),
        interpret=kernel.interpret,
        name="norm_forward",
    )(*rows, *vectors)
    return y_nd, total[0] if total else x_nd


def _backward(
    kernel: NormKernel, x_nd: Array, scale_d: Array | None, has_bias: bool, dy_nd: Array, passed_nd: Array
) -> tuple[Array, Array | None, Array | None]:
    """(gradient of x, those of gain and bias, where there are, in parts [p, d] to be summed)."""
    n, d = x_nd.shape
    tiles = _Tiles.of((n, d))
    programs = min(_PROGRAMS, tiles.number)
    vectors = [] if scale_d is None else [scale_d]
    summed = [scale_d is not None, has_bias]

    def program(x_ref: Any, dy_ref: Any, passed_ref: Any, *refs: Any) -> None:
        dx_ref, *sum_refs = refs[len(vectors) :]
        p = pl.program_id(0)

        def turn(i: Array, sums: list[list[Array]]) -> list[list[Array]]:
            places = tiles.places(i * programs + p)
            dy = [_read(dy_ref, place) for place in places]
            x, scale_r1 = _normalise([_read(x_ref, place) for place in places], places, d, kernel)
            dx = dy
            if vectors:  # read in every turn: kept, the gain would take a sixth of the registers
                dx = [dy_rc * gain_rc for dy_rc, gain_rc in zip(dy, _gains(tiles, refs[0], kernel), strict=True)]
            inner_r1 = _mean([dx_rc * x_rc for dx_rc, x_rc in zip(dx, x, strict=True)], d)
            mean_r1 = _mean(dx, d) if kernel.centred else 0.0
            passed = [_read(passed_ref, place) for place in places]  # all before the first is written
            for place, dx_rc, x_rc, passed_rc in zip(places, dx, x, passed, strict=True):
                _write(dx_ref, place, (dx_rc - x_rc * inner_r1 - mean_r1) * scale_r1 + passed_rc)
            parts = ([dy_rc * x_rc for dy_rc, x_rc in zip(dy, x, strict=True)], dy)
            parts = [part for part, wanted in zip(parts, summed, strict=True) if wanted]
            return [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(sums, parts, strict=True)]

        zeros = [jnp.zeros((_ROWS, tiles.piece), jnp.float32) for _ in tiles.columns()]
        sums = jax.lax.fori_loop(0, pl.cdiv(tiles.number, programs), turn, [zeros] * sum(summed))
        for ref, pieces in zip(sum_refs, sums, strict=True):
            tiles.store_sums(ref, p, pieces)

    parts = jax.ShapeDtypeStruct((programs, d), jnp.float32)
    dx_nd, *sums = pl.pallas_call(
        program,
        grid=(programs,),
        out_shape=(jax.ShapeDtypeStruct((n, d), x_nd.dtype), *[parts] * sum(summed)),
        compiler_params=plgpu.CompilerParams(num_warps=tiles.warps),
        interpret=kernel.interpret,
        name="norm_backward",
    )(x_nd, dy_nd, passed_nd, *vectors)
    dscale_pd, dbias_pd = (sums.pop(0) if wanted else None for wanted in summed)
    return dx_nd, dscale_pd, dbias_pd
