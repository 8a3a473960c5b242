"""Cross-entropy on NVIDIA GPUs: one kernel reads the logits and leaves their gradient in their place.

XLA makes three passes over [n, v] forward and one backward. Here the gradient is made while the loss is, once for each
row's own unit of loss; what the loss is multiplied by afterwards scales the rows of the two products that follow.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.ptx import exp2_polynomial
from jaxlm.core.types import Array

_WARPS = 32
"""Of a program, which has one row: two rows on a multiprocessor, so that the second reading of each comes from the
cache."""
_EACH = 8
"""Neighbouring symbols of a thread at a time: 16 bytes of bfloat16."""
_LOG2_E = math.log2(math.e)
_NEVER = -3e38
"""The logit of a symbol without probability. Finite: none of its products is NaN."""


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

    threads = 32 * _WARPS
    block = threads * _EACH
    ptx = not kernel.interpret

    def program(logits_ref: Any, target_ref: Any, nll_ref: Any, log_z_ref: Any, slope_ref: Any) -> None:
        row = pl.program_id(0)
        place_rc = jnp.arange(threads)[:, None] * _EACH + jnp.arange(_EACH)[None, :]

        def read(i: Array) -> tuple[Array, Array]:
            col_rc = i * block + place_rc
            x_rc = plgpu.load(logits_ref.at[row, col_rc], mask=col_rc < num_symbols, other=_NEVER)
            return x_rc.astype(jnp.float32), col_rc

        target = target_ref[row]
        # No target may be read from outside of the row, whatever padding holds.
        chosen = plgpu.load(logits_ref.at[row, jnp.clip(target, 0, v - 1)]).astype(jnp.float32)

        def add(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            """Each thread's most and the sum over its own symbols: no thread waits for another."""
            most_r, total_r = carry
            x_rc, _ = read(i)
            new_r = jnp.maximum(most_r, jnp.max(x_rc, axis=1))
            lowered_rc = jnp.broadcast_to((new_r * -_LOG2_E)[:, None], x_rc.shape)
            sum_r = jnp.sum(exp2_polynomial((0.0, _LOG2_E), x_rc, lowered_rc, ptx=ptx), axis=1)
            return new_r, total_r * jnp.exp2((most_r - new_r) * _LOG2_E) + sum_r

        start = (jnp.full((threads,), -1e30, jnp.float32), jnp.zeros((threads,), jnp.float32))
        most_r, total_r = jax.lax.fori_loop(0, pl.cdiv(v, block), add, start)
        most = jnp.max(most_r)
        log_z = most + jnp.log(jnp.sum(total_r * jnp.exp2((most_r - most) * _LOG2_E)))
        nll_ref[row] = log_z - chosen
        log_z_ref[row] = log_z
        lowered_rc = jnp.full((threads, _EACH), -_LOG2_E * log_z)

        def write(i: Array, carry: None) -> None:
            x_rc, col_rc = read(i)
            slope_rc = exp2_polynomial((0.0, _LOG2_E), x_rc, lowered_rc, ptx=ptx)
            slope_rc = slope_rc - jnp.where(col_rc == target, 1.0, 0.0)
            plgpu.store(slope_ref.at[row, col_rc], slope_rc.astype(slope_ref.dtype), mask=col_rc < v)
            return carry

        jax.lax.fori_loop(0, pl.cdiv(v, block), write, None)

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
