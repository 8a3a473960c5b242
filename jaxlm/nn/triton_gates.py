"""Activations on NVIDIA GPUs: the gradients of all inputs in one pass that keeps nothing but the inputs.

XLA reads the inputs once for each gradient, or keeps what the forward pass had on the way, a second array as wide.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array

_BLOCK = 2048
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_T = 0.3275911

Elementwise = Callable[..., Array]
"""A function of f32 arrays of one shape, element by element. One object for each function: it is a key of caches."""


@jax.custom_jvp
def erf(x: Array) -> Array:
    """The error function within 1e-6 in f32 (Abramowitz & Stegun 1964, 7.1.26), of what Pallas can lower to Triton."""
    t = 1.0 / (1.0 + _ERF_T * jnp.abs(x))
    series = jnp.zeros_like(x)
    for coefficient in reversed(_ERF):
        series = (series + coefficient) * t
    size = 1.0 - series * jnp.exp(-x * x)
    return jnp.where(x < 0, -size, size)


@erf.defjvp
def _erf_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return erf(x), 2.0 / math.sqrt(math.pi) * jnp.exp(-x * x) * dx


def gelu_by_erf(x: Array) -> Array:
    """``x Phi(x)``."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def elementwise(fn: Elementwise, interpret: bool, *inputs: Array) -> Array:
    """``fn(*inputs)`` computed in f32 and rounded once, to the dtype of the inputs. ``interpret``: the kernels in
    Pallas's interpreter, on any platform."""
    (out,) = _over_blocks(lambda *x: (fn(*x),), inputs, (inputs[0],), interpret, "activation_forward")
    return out


def _fwd(fn: Elementwise, interpret: bool, *inputs: Array) -> tuple[Array, tuple[Array, ...]]:
    return elementwise(fn, interpret, *inputs), inputs


def _bwd(fn: Elementwise, interpret: bool, inputs: tuple[Array, ...], grad: Array) -> tuple[Array, ...]:
    def pull(grad: Array, *inputs: Array) -> tuple[Array, ...]:
        return jax.vjp(fn, *inputs)[1](grad)

    return _over_blocks(pull, (grad, *inputs), inputs, interpret, "activation_backward")


elementwise.defvjp(_fwd, _bwd)


def _over_blocks(
    fn: Callable[..., tuple[Array, ...]], inputs: tuple[Array, ...], like: tuple[Array, ...], interpret: bool, name: str
) -> tuple[Array, ...]:
    """``fn`` of arrays of one shape, element by element and in f32; results of the shapes and dtypes of ``like``."""
    size = inputs[0].size
    if size >= 2**31:  # places are int32
        raise UserError(
            f"model.kernels=triton cannot count {size:,} elements of one activation: use xla, or fewer rows"
        )

    def program(*refs: Any) -> None:
        place = pl.program_id(0) * _BLOCK + jnp.arange(_BLOCK)
        mask = place < size
        values = [plgpu.load(ref.at[place], mask=mask, other=0.0).astype(jnp.float32) for ref in refs[: len(inputs)]]
        for ref, value in zip(refs[len(inputs) :], fn(*values), strict=True):
            plgpu.store(ref.at[place], value.astype(ref.dtype), mask=mask)

    results = pl.pallas_call(
        program,
        grid=(pl.cdiv(size, _BLOCK),),
        out_shape=tuple(jax.ShapeDtypeStruct((size,), x.dtype) for x in like),
        compiler_params=plgpu.CompilerParams(num_warps=4),
        interpret=interpret,
        name=name,
    )(*(x.reshape(-1) for x in inputs))
    return tuple(result.reshape(x.shape) for result, x in zip(results, like, strict=True))
