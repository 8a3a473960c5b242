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
from jaxlm.core.ptx import exp2_polynomial, multiply_add
from jaxlm.core.types import Array

_BLOCK = 4096
_TAIL = (
    -0.9999999403953552,
    -1.151106834411621,
    -0.45919737219810486,
    -0.05251866951584816,
    0.007075916510075331,
    -0.00012352567864581943,
    -0.0002076945238513872,
    5.066718949819915e-05,
    -5.478022103488911e-06,
    2.32470910077609e-07,
)
"""Of a polynomial in a: log2 of the normal distribution's tail beyond a, fitted over [0, 8] with the greatest error of
``a tail(a)`` least (weighted least squares, reweighted)."""
_TAIL_END = 8.0
_DENSITY = (-0.5 * math.log2(2 * math.pi), -0.5 / math.log(2))
"""log2 of the normal density, a polynomial in x^2."""

Elementwise = Callable[..., Array]
"""A function of f32 arrays of one shape, element by element. One object for each function: it is a key of caches."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def gelu_by_erf(x: Array, ptx: bool = False) -> Array:
    """``x Phi(x)`` within 1e-6 in f32, by one power of two and no division. ``ptx``: of the GPU's own instructions."""
    return _gelu(x, _tail(x, ptx), ptx)


def gelu_on_gpu(x: Array) -> Array:
    """`gelu_by_erf` inside of a kernel for GPUs."""
    return gelu_by_erf(x, True)


def _tail(x: Array, ptx: bool) -> Array:
    """``Phi(-|x|)``."""
    return exp2_polynomial(_TAIL, jnp.minimum(jnp.abs(x), _TAIL_END), ptx=ptx)


def _gelu(x: Array, tail: Array, ptx: bool) -> Array:
    return multiply_add(-jnp.abs(x), tail, jnp.maximum(x, 0.0), ptx=ptx)


@gelu_by_erf.defjvp
def _gelu_jvp(ptx: bool, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    tail = _tail(x, ptx)
    density = exp2_polynomial(_DENSITY, x * x, ptx=ptx)
    slope = multiply_add(x, density, jnp.where(x > 0, 1.0 - tail, tail), ptx=ptx)
    return _gelu(x, tail, ptx), slope * dx


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
