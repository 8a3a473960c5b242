"""Cross-entropy on NVIDIA GPUs: one kernel reads the logits and leaves their gradient in their place.

XLA makes three passes over [n, v] forward and one backward. Here the gradient is made while the loss is, once for each
row's own unit of loss; what the loss is multiplied by afterwards scales the rows of the two products that follow.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array

_BLOCK = 4096
_WARPS = 16
"""Of a program, which has one row: few rows at a time, so that the second reading of each comes from the cache."""


class HeadKernel(NamedTuple):
    """How the loss is worked out. Hashable: it is no part of what is traced."""

    num_symbols: int | None
    """Rows of the table from here on are padding and have no probability; None = none are."""
    logits_dtype: Any
    """What logits are rounded to; their statistics are f32."""
    interpret: bool = False
    """Pallas's interpreter in place of a GPU: slow, to check the kernel anywhere."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def head_nll(hidden_nd: Array, table_vd: Array, targets_n: Array, kernel: HeadKernel) -> tuple[Array, Array]:
    """(negative log-likelihood of each target, log-normaliser), nats, f32 [n], of the logits ``hidden table^T``."""
    return _forward(hidden_nd, table_vd, targets_n, kernel)[0]


def _forward(
    hidden_nd: Array, table_vd: Array, targets_n: Array, kernel: HeadKernel
) -> tuple[tuple[Array, Array], Array]:
    contract = (((1,), (1,)), ((), ()))
    logits_nv = jax.lax.dot_general(hidden_nd, table_vd, contract, preferred_element_type=kernel.logits_dtype)
    nll_n, log_z_n, slope_nv = _nll_and_slope(logits_nv, targets_n, hidden_nd.dtype, kernel)
    return (nll_n, log_z_n), slope_nv


def _head_fwd(hidden_nd: Any, table_vd: Any, targets_n: Any, kernel: HeadKernel) -> tuple[Any, Any]:
    hidden_nd, table_vd, targets_n = hidden_nd.value, table_vd.value, targets_n.value
    out, slope_nv = _forward(hidden_nd, table_vd, targets_n, kernel)
    return out, (hidden_nd, table_vd, targets_n, slope_nv)


def _head_bwd(kernel: HeadKernel, kept: Any, grads: tuple[Any, Any]) -> tuple[Array, Array, None]:
    del kernel
    hidden_nd, table_vd, targets_n, slope_nv = kept
    grad_nll_n, grad_z_n = (None if isinstance(grad, SymbolicZero) else grad for grad in grads)
    given: list[Array] = [grad for grad in (grad_nll_n, grad_z_n) if grad is not None]
    scale_n1 = functools.reduce(jnp.add, given)[:, None]
    scaled_nd = (scale_n1 * hidden_nd.astype(jnp.float32)).astype(hidden_nd.dtype)
    grad_hidden_nd = scale_n1 * jnp.dot(slope_nv, table_vd, preferred_element_type=jnp.float32)
    grad_table_vd = jax.lax.dot_general(slope_nv, scaled_nd, (((0,), (0,)), ((), ())))
    if grad_z_n is not None:  # d log z is the whole softmax: the one-hot part comes back, by rows of the table
        hot_n1 = grad_z_n[:, None]
        grad_hidden_nd += hot_n1 * jnp.take(table_vd, targets_n, axis=0, mode="clip").astype(jnp.float32)
        grad_table_vd = grad_table_vd.at[targets_n].add((hot_n1 * hidden_nd.astype(jnp.float32)).astype(table_vd.dtype))
    return grad_hidden_nd.astype(hidden_nd.dtype), grad_table_vd.astype(table_vd.dtype), None


head_nll.defvjp(_head_fwd, _head_bwd, symbolic_zeros=True)


def _nll_and_slope(logits_nv: Array, targets_n: Array, dtype: Any, kernel: HeadKernel) -> tuple[Array, Array, Array]:
    """(nll f32 [n], log-normaliser f32 [n], softmax minus one-hot [n, v] in ``dtype``)."""
    n, v = logits_nv.shape
    num_symbols = v if kernel.num_symbols is None else kernel.num_symbols
    in_place = jnp.dtype(dtype) == logits_nv.dtype

    def program(logits_ref: Any, target_ref: Any, nll_ref: Any, log_z_ref: Any, slope_ref: Any) -> None:
        row = pl.program_id(0)
        blocks = pl.cdiv(v, _BLOCK)

        def read(i: Array) -> tuple[Array, Array]:
            col_c = i * _BLOCK + jnp.arange(_BLOCK)
            x_c = plgpu.load(logits_ref.at[row, col_c], mask=col_c < num_symbols, other=-jnp.inf)
            return x_c.astype(jnp.float32), col_c

        target = target_ref[row]
        # No target may be read from outside of the row, whatever padding holds.
        chosen = plgpu.load(logits_ref.at[row, jnp.clip(target, 0, v - 1)]).astype(jnp.float32)

        def add(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            most, total = carry
            x_c, _ = read(i)
            new = jnp.maximum(most, jnp.max(x_c))
            return new, total * jnp.exp(most - new) + jnp.sum(jnp.exp(x_c - new))

        start = (jnp.asarray(-1e30, jnp.float32), jnp.asarray(0.0, jnp.float32))
        most, total = jax.lax.fori_loop(0, blocks, add, start)
        log_z = most + jnp.log(total)
        nll_ref[row] = log_z - chosen
        log_z_ref[row] = log_z

        def write(i: Array, carry: None) -> None:
            x_c, col_c = read(i)
            slope_c = jnp.exp(x_c - log_z) - jnp.where(col_c == target, 1.0, 0.0)
            plgpu.store(slope_ref.at[row, col_c], slope_c.astype(slope_ref.dtype), mask=col_c < v)
            return carry

        jax.lax.fori_loop(0, blocks, write, None)

    each = jax.ShapeDtypeStruct((n,), jnp.float32)
    return pl.pallas_call(
        program,
        grid=(n,),
        out_shape=(each, each, jax.ShapeDtypeStruct((n, v), dtype)),
        input_output_aliases={0: 2} if in_place else {},
        compiler_params=plgpu.CompilerParams(num_warps=_WARPS),
        interpret=kernel.interpret,
        name="cross_entropy",
    )(logits_nv, targets_n)
