"""The time loop of a recurrent layer as custom calls for CPUs, with the gradient around them.

XLA runs a scan's body as a score of small programs a step, and waits for all threads at each. The kernel
(``jaxlm/run/kernels``, built and registered by ``jaxlm.run.cpu_kernels``) takes each row through all steps in one call,
forward and backward. Its sums run in another order than the scan's, so the two differ by rounding.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxlm.core.types import BATCH_AXES, Array

State = dict[str, Array]


@jax.custom_vjp
def input_product(x_tbd: Array, kernel_dg: Array) -> Array:
    """``x W`` in f32, [t, b, g], its gradient made as fast on a CPU as the product itself."""
    return jnp.einsum("tbd,dg->tbg", x_tbd, kernel_dg)


def _input_forward(x_tbd: Array, kernel_dg: Array) -> tuple[Array, tuple[Array, Array]]:
    return input_product(x_tbd, kernel_dg), (x_tbd, kernel_dg)


def _input_backward(residuals: tuple[Array, Array], grad_tbg: Array) -> tuple[Array, Array]:
    x_tbd, kernel_dg = residuals
    return jnp.einsum("tbg,dg->tbd", grad_tbg, kernel_dg), weight_gradient(x_tbd, grad_tbg)


input_product.defvjp(_input_forward, _input_backward)


def weight_gradient(
    x_tbd: Array, grad_tbg: Array, first_bd: Array | None = None, keep_tb: Array | None = None
) -> Array:
    """``x^T grad`` over all rows and steps; where ``first_bd`` is given, of the x before each step (``keep_tb`` False =
    0). A call of ours: XLA multiplies so long and narrow a left factor at 70 % of its speed on a CPU."""

    def call(x: Array, first: Array, keep: Array, grad: Array) -> Array:
        out = _f32(x.shape[2], grad.shape[2])
        dkernel = jax.ffi.ffi_call(OUTER, out, vmap_method="sequential")(
            x, first, keep, grad.reshape(-1, grad.shape[2])
        )
        return rows.sum(dkernel)

    rows = _rows_spec(x_tbd.shape[1])
    specs = (rows.steps, rows.whole if first_bd is None else rows.state, rows.steps, rows.steps)
    first = _none() if first_bd is None else first_bd
    return rows.split(call, specs, rows.whole)(x_tbd, first, _keep(keep_tb, x_tbd), grad_tbg)


OUTER = "jaxlm_outer"
"""The name by which XLA knows the call that multiplies all rows of all steps."""


def target(cell: str, direction: str) -> str:
    """The name by which XLA knows the call of a cell; direction: "forward" or "backward"."""
    return f"jaxlm_{cell}_{direction}"


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def kernel_unroll(
    cell: str,
    x_tbg: Array,
    x_bias_g: Array,
    kernel_dg: Array,
    bias_g: Array,
    state: State,
    keep_tb: Array | None,
) -> tuple[Array, State]:
    """``nn.recurrent.unroll`` with everything given and in f32: ``x_bias_g`` is added to x, ``bias_g`` to h U.

    keep_tb: bool; False = the state is zeroed before this step.
    """
    return _forward(cell, x_tbg, x_bias_g, kernel_dg, bias_g, state, keep_tb)[0]


def _forward(
    cell: str, x_tbg: Array, x_bias_g: Array, kernel_dg: Array, bias_g: Array, state: State, keep_tb: Array | None
) -> tuple[tuple[Array, State], tuple]:
    def call(x_tbg: Array, x_bias: Array, u: Array, u_bias: Array, h0: Array, c0: Array, keep: Array) -> Any:
        h = _f32(*x_tbg.shape[:2], u.shape[0])
        # More than its gates: the LSTM keeps c, the GRU the part of n that its reset gate multiplies.
        extra = _f32(0) if cell == "rnn" else h
        # The gates take the place of what was added up to them, without a copy: in the two dimensions of the products
        # before and after, for XLA copies what it reshapes.
        x_ng = x_tbg.reshape(-1, x_tbg.shape[-1])
        run = _ffi(target(cell, "forward"), (h, _f32(*x_ng.shape), extra), {0: 1})
        h, gates_ng, extra = run(x_ng, x_bias, u, u_bias, h0, c0, keep)
        return h, gates_ng.reshape(x_tbg.shape), extra

    rows = _rows_spec(x_tbg.shape[1])
    c_rows = rows.whole if "c" not in state else rows.state
    args = (x_tbg, x_bias_g, kernel_dg, bias_g, state["h"], state.get("c", _none()), _keep(keep_tb, x_tbg))
    specs = (rows.steps, rows.whole, rows.whole, rows.whole, rows.state, c_rows, rows.steps)
    out_specs = (rows.steps, rows.steps, rows.whole if cell == "rnn" else rows.steps)
    h_tbd, gates_tbg, extra_tbd = rows.split(call, specs, out_specs)(*args)
    last = {"h": h_tbd[-1]} | ({"c": extra_tbd[-1]} if cell == "lstm" else {})
    return (h_tbd, last), (kernel_dg, state, keep_tb, h_tbd, gates_tbg, extra_tbd)


def _backward(cell: str, residuals: tuple, grads: tuple[Array, State]) -> tuple:
    kernel_dg, state, keep_tb, h_tbd, gates_tbg, extra_tbd = residuals
    dh_tbd, dlast = grads

    def call(dh: Array, dh_last: Array, dc_last: Array, u: Array, gates: Array, extra: Array, *others: Array) -> Any:
        gates_ng, dlast = gates.reshape(-1, gates.shape[-1]), _f32(*dh_last.shape)
        dx = _f32(*gates_ng.shape)
        # Only the GRU's reset gate makes the gradient of h U another than that of x.
        dproduct, dc = dx if cell == "gru" else _f32(0), dlast if cell == "lstm" else _f32(0)
        dx_bias = _f32(*gates.shape[1:])
        dproduct_bias = dx_bias if cell == "gru" else _f32(0)
        run = _ffi(target(cell, "backward"), (dx, dproduct, dlast, dc, dx_bias, dproduct_bias), {4: 0})
        dx, dproduct, *rest = run(dh, dh_last, dc_last, u, gates_ng, extra, *others)
        return dx.reshape(gates.shape), dproduct.reshape(gates.shape) if cell == "gru" else dproduct, *rest

    rows = _rows_spec(h_tbd.shape[1])
    c_rows = rows.whole if "c" not in state else rows.state
    extra_rows = rows.whole if cell == "rnn" else rows.steps
    args = (dh_tbd, dlast["h"], dlast.get("c", _none()), kernel_dg, gates_tbg, extra_tbd, h_tbd)
    args += (state["h"], state.get("c", _none()), _keep(keep_tb, h_tbd))
    specs = (rows.steps, rows.state, c_rows, rows.whole, rows.steps, extra_rows, rows.steps)
    specs += (rows.state, c_rows, rows.steps)
    of_product = (rows.steps, rows.state) if cell == "gru" else (rows.whole, rows.whole)
    out_specs = (rows.steps, of_product[0], rows.state, c_rows, rows.state, of_product[1])
    dx_tbg, dproduct_tbg, dh, dc, dx_bias_bg, dproduct_bias_bg = rows.split(call, specs, out_specs)(*args)

    if cell != "gru":
        dproduct_tbg, dproduct_bias_bg = dx_tbg, dx_bias_bg
    dkernel_dg = weight_gradient(h_tbd, dproduct_tbg, state["h"], keep_tb)
    dstate = {"h": dh} | ({"c": dc} if cell == "lstm" else {})
    no_keep = None if keep_tb is None else np.zeros(keep_tb.shape, jax.dtypes.float0)
    return dx_tbg, jnp.sum(dx_bias_bg, axis=0), dkernel_dg, jnp.sum(dproduct_bias_bg, axis=0), dstate, no_keep


kernel_unroll.defvjp(_forward, _backward)


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _none() -> Array:
    """Stands for an array that the cell does not have."""
    return jnp.zeros(0, jnp.float32)


def _keep(keep_tb: Array | None, x_tbg: Array) -> Array:
    return jnp.ones(x_tbg.shape[:2], bool) if keep_tb is None else keep_tb


def _ffi(name: str, results: tuple, aliases: dict[int, int]) -> Callable[..., Any]:
    return jax.ffi.ffi_call(name, results, input_output_aliases=aliases, vmap_method="sequential")


class _Rows:
    """How a call is split over the mesh: XLA cannot split one itself, and rows are independent of each other."""

    def __init__(self, axes: tuple[str, ...]):
        self._axes = axes
        self.whole = PartitionSpec()
        self.state = PartitionSpec(axes or None)
        """Of [b, ...]."""
        self.steps = PartitionSpec(None, axes or None)
        """Of [t, b, ...]."""

    def sum(self, x: Array) -> Array:
        """Of what each share of the rows gave, within a call."""
        return jax.lax.psum(x, self._axes) if self._axes else x

    def split(self, call: Callable[..., Any], specs: tuple, out_specs: Any) -> Callable[..., Any]:
        if not self._axes:
            return call
        # What is the same on all devices is not something shard_map can infer through a custom call.
        return jax.shard_map(call, in_specs=specs, out_specs=out_specs, check_vma=False)


def _rows_spec(b: int) -> _Rows:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return _Rows(())
    sizes = dict(mesh.shape)
    axes = tuple(axis for axis in BATCH_AXES if sizes.get(axis, 1) > 1)
    return _Rows(axes if b % math.prod(sizes[axis] for axis in axes) == 0 else ())
