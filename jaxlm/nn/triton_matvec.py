"""Products of large kernels and one vector inside a Pallas kernel for NVIDIA GPUs (:mod:`jaxlm.nn.triton_decode`): each
program owns outputs, and has the weights that it will need next on their way while it multiplies others.

Kernels lie transposed, [out, in], so that each output is one piece of memory and one program sums it, in the same order
at each run. 16-bit weights lie two to a 32-bit word; a vector that meets them lies as :func:`halves`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array

_LANES = 32
"""Threads of a warp."""
COLUMNS = 4 * _LANES
"""Words of a row in one tile: 512 bytes, 16 for each thread of a warp."""
_AHEAD = 2
"""Pieces of the vector that are on their way while one is used."""
_MOST_APART = 3
"""Outputs of a thread whose sums stay apart in the words that it reads at once. Of more a thread sums what is its own:
with four sums for each of six outputs the assembler moved reads of weights down to where they are used (LOG.md)."""


def pack(kernel: Array) -> Array:
    """[..., in, out] -> [..., out, in], 16-bit numbers two to an int32, so that what was asked for can stay as it came
    until it is used."""
    return pack_lines(jnp.swapaxes(kernel, -1, -2))


def pack_lines(table: Array) -> Array:
    """[..., d] -> [..., d / 2] int32 of 16-bit numbers; f32 stays."""
    if table.dtype.itemsize == 4:
        return table
    *lead, width = table.shape
    return jax.lax.bitcast_convert_type(table.reshape(*lead, width // 2, 2), jnp.int32)


def unpack(words: Array, dtype: Any) -> Array:
    """What :func:`pack` was given."""
    return jnp.swapaxes(unpack_lines(words, dtype), -1, -2)


def unpack_lines(words: Array, dtype: Any) -> Array:
    """What :func:`pack_lines` was given."""
    if words.dtype == dtype:
        return words
    *lead, width = words.shape
    return jax.lax.bitcast_convert_type(words, dtype).reshape(*lead, 2 * width)


def halves(x: Array, packed: int) -> Array:
    """[..., d] -> [..., d]: first the elements that lie in the first halves of words, then those in the second.

    >>> halves(jnp.arange(6), 2).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    *lead, d = x.shape
    return jnp.swapaxes(x.reshape(*lead, d // packed, packed), -1, -2).reshape(*lead, d)


def whole(x: Array, packed: int) -> Array:
    """What :func:`halves` was given.

    >>> whole(halves(jnp.arange(6), 2), 2).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    *lead, d = x.shape
    return jnp.swapaxes(x.reshape(*lead, packed, d // packed), -1, -2).reshape(*lead, d)


def place(row: Array, width: int, packed: int) -> Array:
    """Where element ``row`` of a vector of ``width`` lies, as :func:`halves`."""
    return row if packed == 1 else (row % 2) * (width // 2) + row // 2


class Share(NamedTuple):
    """Which of the programs this is, and the shape of a tile: a row for each warp."""

    program: Array
    programs: int
    row_r1: Array
    """0, 1, .. for the rows of a tile."""
    col_1c: Array
    packed: int
    """Numbers in a word."""
    interpret: bool

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row_r1.shape[0], self.col_1c.shape[1]

    def numbers(self, words: Array) -> list[Array]:
        """f32: what lies in the first and the second half of words. A bfloat16 is the upper half of the f32 of its
        value."""
        if self.packed == 1:
            return [words.astype(jnp.float32)]
        return [jax.lax.bitcast_convert_type(half, jnp.float32) for half in (words << 16, words & jnp.int32(-65536))]


class Vector:
    """A vector that lies as :func:`halves`, read in pieces by each warp; with ``gain``, an array and where it starts,
    normalised by its root mean square and multiplied."""

    def __init__(
        self, share: Share, ref: Any, start: Any, width: int, *, eps: float = 0.0, gain: tuple[Any, Any] | None = None
    ):
        self.share, self.width, self.words, self.eps = share, width, width // share.packed, eps
        self.sources = [(ref, start)] + ([] if gain is None else [gain])
        self.loaded: list[Any] = []
        self.square_rc: Any = jnp.zeros(share.tile, jnp.float32)

    def ask(self, upto: int) -> None:
        """Have pieces before ``upto`` on their way."""
        row_r1, col_1c = self.share.row_r1, self.share.col_1c
        for j in range(len(self.loaded), min(upto, pl.cdiv(self.words, COLUMNS))):
            at_1c = j * COLUMNS + col_1c
            mask = (at_1c < self.words) & (row_r1 >= 0)
            self.loaded.append(
                [
                    [
                        plgpu.load(ref.at[start + half * self.words + at_1c + 0 * row_r1], mask=mask, other=0.0)
                        for ref, start in self.sources
                    ]
                    for half in range(self.share.packed)
                ]
            )

    def take(self, j: int) -> list[Array]:
        """Piece j for the first and the second half of words, [r, c]."""
        self.ask(j + 1 + _AHEAD)
        out = []
        for v, *gain in self.loaded[j]:
            if gain:
                self.square_rc = _fma(self.share, v, v, self.square_rc)
            out.append(v * gain[0] if gain else v)
        self.loaded[j] = None
        return out

    def finish(self, sum_r: Array) -> Array:
        """What products are, given their sums over all pieces: the norm's factor is known only now."""
        if len(self.sources) == 1:
            return sum_r
        return sum_r * jax.lax.rsqrt(jnp.sum(self.square_rc, axis=1) / self.width + self.eps)


class Product:
    """The outputs of a product that this program owns. ``ref`` [l * kernels * outputs, words]: of each layer so many
    ``kernels``, one below the other, whose rows i make output i together."""

    def __init__(
        self,
        share: Share,
        ref: Any,
        layer: Array,
        outputs: int,
        *,
        ahead: int,
        kernels: int = 1,
        turn: tuple[Any, int] | None = None,
    ):
        """``turn`` (i, blocks): of this program's outputs only the i-th so many blocks of a tile's rows."""
        self.share, self.ref, self.ahead = share, ref, ahead
        self.outputs, self.kernels, self.words = outputs, kernels, ref.shape[-1]
        self.base = layer * (outputs * kernels)
        own = pl.cdiv(outputs, share.programs)
        self.first, self.end = share.program * own, jnp.minimum((share.program + 1) * own, outputs)
        self.blocks, pieces = pl.cdiv(own, share.tile[0]), pl.cdiv(self.words, COLUMNS)
        if turn is not None:
            i, self.blocks = turn
            self.first = self.first + i * (self.blocks * share.tile[0])
        self.order = [(j, i, k) for j in range(pieces) for i in range(self.blocks) for k in range(kernels)]
        self.loaded: list[Any] = []

    def ask(self, upto: int) -> None:
        """Have tiles before ``upto`` on their way."""
        for j, i, k in self.order[len(self.loaded) : upto]:
            row = self.first + i * self.share.tile[0] + self.share.row_r1
            col = j * COLUMNS + self.share.col_1c
            mask = row < self.end
            if (j + 1) * COLUMNS > self.words:
                mask = mask & (col < self.words)
            at = (self.base + k * self.outputs + row, col)
            none = jnp.zeros((), self.ref.dtype)
            self.loaded.append(plgpu.load(self.ref.at[at], mask=mask, other=none, eviction_policy="evict_first"))

    def run(self, x: Vector, use: Any, *, following: "Product | None" = None, early: int = 0) -> None:
        """``use(rows, which exist, outputs of each kernel)`` for each block of rows. ``following``: what comes next;
        its first ``early`` tiles are asked for as this one's run out."""
        places = [(i, k) for i in range(self.blocks) for k in range(self.kernels)]
        width = _LANES if len(places) > _MOST_APART else COLUMNS
        sums = dict.fromkeys(places, jnp.zeros((self.share.tile[0], width), jnp.float32))
        part: Any = None
        for at, (j, i, k) in enumerate(self.order):
            if i == k == 0:
                part = x.take(j)
            self.ask(at + 1 + self.ahead)
            if following is not None and (more := at + 1 + self.ahead - len(self.order)) > 0:
                following.ask(min(early, more))
            sums[i, k] = _accumulate(self.share, self.loaded[at], part, sums[i, k])
            self.loaded[at] = None
        if following is not None:
            following.ask(early)
        for i in range(self.blocks):
            row_r = self.first + i * self.share.tile[0] + jnp.arange(self.share.tile[0], dtype=jnp.int32)
            outs = [x.finish(jnp.sum(sums[i, k], axis=1)) for k in range(self.kernels)]
            use(row_r, row_r < self.end, outs)


def _fma(share: Share, a: Array, b: Array, c: Array) -> Array:
    """a b + c in one instruction, which the compiler does not make of two by itself."""
    if share.interpret:
        return a * b + c
    (out,) = plgpu.elementwise_inline_asm(
        "fma.rn.f32 $0, $1, $2, $3;",
        args=[a, b, c],
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(c.shape, c.dtype)],
    )
    return out


def _accumulate(share: Share, words_rc: Array, x: list[Array], sum_rx: Array) -> Array:
    """The sum and the products of words and the vector's pieces for their halves, f32 [r, columns or lanes]."""
    numbers = list(zip(share.numbers(words_rc), x, strict=True))
    if sum_rx.shape == words_rc.shape:
        for number_rc, x_rc in numbers:
            sum_rx = _fma(share, number_rc, x_rc, sum_rx)
        return sum_rx
    (number_rc, x_rc), *others = numbers
    part_rc = number_rc * x_rc
    for number_rc, x_rc in others:
        part_rc = _fma(share, number_rc, x_rc, part_rc)
    return sum_rx + jnp.sum(part_rc.reshape(part_rc.shape[0], _LANES, -1), axis=2)
