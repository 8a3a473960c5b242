"""Recurrent layers: Elman, LSTM and GRU cells, unrolled over time with one weight gradient for the whole sequence.

h_t = cell(x_t W + b, h_{t-1} U, state_{t-1}). Left to itself, the gradient of a scan adds to dU at every step: a
product of b rows, and all of dU read and written. Here the backward scan hands out the gradients of the gates alone,
and dU is one product over all b * t rows after it. On CPUs the scans can be custom calls (``recurrent_kernel``).
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array
from jaxlm.nn.kernels import KernelMissing
from jaxlm.nn.recurrent_kernel import kernel_unroll

CellName = Literal["rnn", "lstm", "gru"]
CELLS: tuple[CellName, ...] = get_args(CellName)

Implementation = Literal["auto", "scan", "unrolled", "kernel"]
"""Of the loop over time: XLA's, step by step or with some steps written out, or ours for CPUs. ``auto`` left unresolved
means ``scan``."""
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)

_TOGETHER = 8
"""Steps that ``unrolled`` writes out between two turns of the loop. On a GPU a step is then some 3 programs, not 10."""

State = dict[str, Array]
"""What a layer remembers: ``h`` [b, d], and for the LSTM its cell ``c`` [b, d]; f32."""


class Cell(NamedTuple):
    """One kind of layer, d wide. Its gates are linear in two products, that of the input and that of ``h``."""

    width: int
    """Columns of W and U over d."""
    state: tuple[str, ...]
    combine: Callable[[Array, Array], Array]
    """``(x W + b, h U) -> gates``: linear."""
    separate: Callable[[Array], tuple[Array, Array]]
    """Its transpose: gradients of the gates -> those of the two products."""
    advance: Callable[[Array, State], tuple[State, Array]]
    """``(gates, state) -> (state, saved)``, element by element."""
    retreat: Callable[[Array, State, State], tuple[Array, State]]
    """``(saved, state before, gradient of the state after) -> (gradient of the gates, and of the state before)``, but
    for what ``h`` gives the product. From what is saved it takes no exponential again."""


def _blocks(x: Array, count: int) -> list[Array]:
    return jnp.split(x, count, axis=-1)


def _join(*blocks: Array) -> Array:
    return jnp.concatenate(blocks, axis=-1)


def _advance_rnn(gates_bg: Array, before: State) -> tuple[State, Array]:
    del before
    h = jnp.tanh(gates_bg)
    return {"h": h}, h


def _retreat_rnn(saved_bg: Array, before: State, dafter: State) -> tuple[Array, State]:
    del before
    return dafter["h"] * (1 - saved_bg**2), {}


def _advance_lstm(gates_bg: Array, before: State) -> tuple[State, Array]:
    i, f, g, o = _blocks(gates_bg, 4)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * before["c"] + i * g
    tanh_c = jnp.tanh(c)
    return {"h": o * tanh_c, "c": c}, _join(i, f, g, o, tanh_c)


def _retreat_lstm(saved_bg: Array, before: State, dafter: State) -> tuple[Array, State]:
    i, f, g, o, tanh_c = _blocks(saved_bg, 5)
    dh = dafter["h"]
    dc = dafter["c"] + dh * o * (1 - tanh_c**2)
    di, df = dc * g * i * (1 - i), dc * before["c"] * f * (1 - f)
    return _join(di, df, dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)), {"c": dc * f}


def _advance_gru(gates_bg: Array, before: State) -> tuple[State, Array]:
    r, z, input_n, hidden_n = _blocks(gates_bg, 4)
    r, z = jax.nn.sigmoid(r), jax.nn.sigmoid(z)
    n = jnp.tanh(input_n + r * hidden_n)
    return {"h": (1 - z) * n + z * before["h"]}, _join(r, z, n, hidden_n)


def _retreat_gru(saved_bg: Array, before: State, dafter: State) -> tuple[Array, State]:
    r, z, n, hidden_n = _blocks(saved_bg, 4)
    dh = dafter["h"]
    dn = dh * (1 - z) * (1 - n**2)
    dr, dz = dn * hidden_n * r * (1 - r), dh * (before["h"] - n) * z * (1 - z)
    return _join(dr, dz, dn, dn * r), {"h": dh * z}


def _combine_gru(x_bg: Array, h_bg: Array) -> Array:
    """[r, z, n] twice -> [r, z, n of the input, n of h]: the reset gate multiplies the last alone."""
    (xr, xz, xn), (hr, hz, hn) = _blocks(x_bg, 3), _blocks(h_bg, 3)
    return _join(xr + hr, xz + hz, xn, hn)


def _separate_gru(gates: Array) -> tuple[Array, Array]:
    r, z, input_n, hidden_n = _blocks(gates, 4)
    return _join(r, z, input_n), _join(r, z, hidden_n)


def _same_twice(gates: Array) -> tuple[Array, Array]:
    return gates, gates


_CELLS: dict[CellName, Cell] = {
    "rnn": Cell(1, ("h",), jnp.add, _same_twice, _advance_rnn, _retreat_rnn),
    "lstm": Cell(4, ("h", "c"), jnp.add, _same_twice, _advance_lstm, _retreat_lstm),
    "gru": Cell(3, ("h",), _combine_gru, _separate_gru, _advance_gru, _retreat_gru),
}


def gate_width(cell: CellName) -> int:
    """Columns of a layer's kernels over its width: 1 (Elman 1990), 4 (LSTM: i f g o) or 3 (GRU: r z n)."""
    return _CELLS[cell].width


def init_state(cell: CellName, batch_size: int, width: int) -> State:
    """Zeros: what is remembered before the first token."""
    # No two share a buffer, so that a step can donate them.
    return {name: jnp.zeros((batch_size, width), jnp.float32) for name in _CELLS[cell].state}


def choose_unroll(
    implementation: Implementation, platform: str, *, dtype: jnp.dtype, kernel_missing: KernelMissing
) -> Implementation:
    """``auto`` -> what is fastest on ``platform`` ("cpu", "gpu", "tpu") for products in ``dtype``; another is checked.

    Raises UserError where the chosen one cannot run there.
    """
    if implementation in ("scan", "unrolled"):
        return implementation
    fits = platform == "cpu" and dtype == jnp.float32
    if implementation == "auto":
        if fits and kernel_missing("recurrent") is None:
            return "kernel"
        return "scan" if platform == "cpu" else "unrolled"
    if not fits:
        raise UserError(
            f"model.implementation=kernel is for CPUs and model.compute_dtype=float32, this is {platform} and {dtype}: "
            "use auto or scan"
        )
    if reason := kernel_missing("recurrent"):
        raise UserError(f"model.implementation=kernel cannot be had here, {reason}: use auto or scan")
    return "kernel"


def unroll(
    cell: CellName,
    x_tbg: Array,
    kernel_dg: Array,
    bias_g: Array | None,
    state: State,
    reset_tb: Array | None = None,
    *,
    x_bias_g: Array | None = None,
    implementation: Implementation = "scan",
) -> tuple[Array, State]:
    """``h`` at every step, f32 [t, b, d], and the state after the last. Time comes first, as the steps are taken.

    Elman: h = tanh(x + h U). LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000):
    c = s(f) c + s(i) tanh(g), h = s(o) tanh(c). GRU (Cho et al. 2014, the reset gate after the product, as in cuDNN and
    PyTorch): n = tanh(x_n + s(r) (h U_n + b_n)), h = (1 - s(z)) n + s(z) h.

    Args:
      x_tbg: the input's part of the gates, ``x W``; g is ``gate_width(cell)`` * d.
      kernel_dg: U.
      bias_g: added to ``h U``; of the GRU's three parts only n's is another than one in ``x_bias_g``.
      reset_tb: bool; True = the state is zeroed before this step (a new text begins).
      x_bias_g: added to ``x W``.
      implementation: ``kernel`` needs ``kernel_dg`` in f32 and the kernel registered (``jaxlm.run.cpu_kernels``). It
        serves rows of several steps; a single one, as in generation, is XLA's in any case.
    """
    x_tbg = x_tbg.astype(jnp.float32)
    no_bias = jnp.zeros(kernel_dg.shape[1], jnp.float32)
    bias = no_bias if bias_g is None else bias_g.astype(jnp.float32)
    x_bias = None if x_bias_g is None else x_bias_g.astype(jnp.float32)
    unrolled: Any  # custom_vjp hides its type
    if implementation == "kernel" and x_tbg.shape[0] > 1:
        if kernel_dg.dtype != jnp.float32:
            raise ValueError(f"the kernel of the recurrent layers multiplies float32, not {kernel_dg.dtype}: use scan")
        keep_tb = None if reset_tb is None else ~reset_tb
        unrolled = kernel_unroll(cell, x_tbg, no_bias if x_bias is None else x_bias, kernel_dg, bias, state, keep_tb)
        return unrolled
    keep_tb1 = None if reset_tb is None else ~reset_tb[..., None]
    together = _TOGETHER if implementation == "unrolled" else 1
    unrolled = _unroll(cell, together, x_tbg if x_bias is None else x_tbg + x_bias, kernel_dg, bias, state, keep_tb1)
    return unrolled


def _kept(state: State, keep_b1: Array | None) -> State:
    return state if keep_b1 is None else {name: jnp.where(keep_b1, x, 0.0) for name, x in state.items()}


def _product(h_bd: Array, kernel_dg: Array) -> Array:
    return jnp.dot(h_bd.astype(kernel_dg.dtype), kernel_dg, preferred_element_type=jnp.float32)


def _forward(
    name: CellName, together: int, x_tbg: Array, kernel_dg: Array, bias_g: Array, state: State, keep_tb1: Array | None
) -> tuple[Array, State, tuple[Array, State]]:
    """``h`` at every step, the last state, and what the gradient needs of each: what its cell saves, and the state
    before it. ``together``: steps that are written out between two turns of the loop."""
    cell = _CELLS[name]

    def step(state: State, xs: tuple[Array, Array | None]) -> tuple[State, tuple[Array, Array, State]]:
        x_bg, keep_b1 = xs
        before = _kept(state, keep_b1)
        gates = cell.combine(x_bg, _product(before["h"], kernel_dg) + bias_g)
        after, saved = cell.advance(gates, before)
        return after, (after["h"], saved, before)

    state, (h_tbd, saved, before) = jax.lax.scan(step, state, (x_tbg, keep_tb1), unroll=together)
    return h_tbd, state, (saved, before)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _unroll(
    name: CellName, together: int, x_tbg: Array, kernel_dg: Array, bias_g: Array, state: State, keep_tb1: Array | None
) -> tuple[Array, State]:
    h_tbd, state, _ = _forward(name, together, x_tbg, kernel_dg, bias_g, state, keep_tb1)
    return h_tbd, state


def _unroll_fwd(
    name: CellName, together: int, x_tbg: Array, kernel_dg: Array, bias_g: Array, state: State, keep_tb1: Array | None
) -> tuple[tuple[Array, State], tuple]:
    h_tbd, state, (saved, before) = _forward(name, together, x_tbg, kernel_dg, bias_g, state, keep_tb1)
    return (h_tbd, state), (kernel_dg, saved, before, keep_tb1)


def _unroll_bwd(name: CellName, together: int, residuals: tuple, grads: tuple[Array, State]) -> tuple:
    cell = _CELLS[name]
    kernel_dg, saved_tbg, before, keep_tb1 = residuals
    dh_tbd, dstate = grads

    def step(dstate: State, xs: tuple) -> tuple[State, Array]:
        dh_bd, saved_bg, before, keep_b1 = xs
        dgates, dbefore = cell.retreat(saved_bg, before, dstate | {"h": dstate["h"] + dh_bd})
        _, dproduct = cell.separate(dgates)
        dh = jnp.dot(dproduct.astype(kernel_dg.dtype), kernel_dg.T, preferred_element_type=jnp.float32)
        dh = dbefore["h"] + dh if "h" in dbefore else dh
        return _kept(dbefore | {"h": dh}, keep_b1), dgates

    dstate, dgates_tbg = jax.lax.scan(
        step, dstate, (dh_tbd, saved_tbg, before, keep_tb1), reverse=True, unroll=together
    )
    dx_tbg, dproduct_tbg = cell.separate(dgates_tbg)
    rows = before["h"].reshape(-1, kernel_dg.shape[0]).astype(kernel_dg.dtype)
    dproduct = dproduct_tbg.reshape(-1, kernel_dg.shape[1])
    dkernel = jnp.dot(rows.T, dproduct.astype(kernel_dg.dtype), preferred_element_type=jnp.float32)
    no_keep = None if keep_tb1 is None else np.zeros(keep_tb1.shape, jax.dtypes.float0)
    return dx_tbg, dkernel.astype(kernel_dg.dtype), jnp.sum(dproduct, axis=0), dstate, no_keep


_unroll.defvjp(_unroll_fwd, _unroll_bwd)
