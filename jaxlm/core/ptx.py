"""Arithmetic of NVIDIA GPUs inside of Pallas kernels for Triton, where JAX's own lowering makes more of it.

It rounds a product before it adds to it, in an instruction of its own, and guards every power of two against numbers
below 2^-126. A kernel that does as little as an activation is then held up by its arithmetic as much as by its memory.
"""

import struct
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array


def multiply_add(a: Array, b: Array, c: Array, *, ptx: bool) -> Array:
    """``a b + c`` in f32. ``ptx``: rounded once, for kernels on a GPU; else as two operations of JAX."""
    return _inline("fma.rn.ftz.f32 $0, $1, $2, $3;", a, b, c) if ptx else a * b + c


def exp2_polynomial(coefficients: Sequence[float], x: Array, constant: Array | None = None, *, ptx: bool) -> Array:
    """``2^(constant + coefficients[0] + coefficients[1] x + ...)`` in f32, the constant (None = 0) of x's shape, and
    then ``coefficients[0]`` is taken for 0. ``ptx`` as in `multiply_add`."""
    *lower, highest = coefficients
    if ptx:
        terms = "".join(f"fma.rn.ftz.f32 t, t, $1, {_number(c)};" for c in lower[:0:-1])
        last = "$2" if constant is not None else _number(lower[0])
        body = f"mov.f32 t, {_number(highest)}; {terms} fma.rn.ftz.f32 t, t, $1, {last};"
        asm = "{ .reg .f32 t; " + body + " ex2.approx.ftz.f32 $0, t; }"
        return _inline(asm, x) if constant is None else _inline(asm, x, constant)
    power: Array = jnp.full_like(x, highest)
    for c in lower[:0:-1]:
        power = power * x + c
    return jnp.exp2(power * x + (lower[0] if constant is None else constant))


def _inline(asm: str, *args: Array) -> Array:
    like = [jax.ShapeDtypeStruct(args[0].shape, jnp.float32)]
    constraints = ",".join(["=f", *("f" for _ in args)])
    (out,) = plgpu.elementwise_inline_asm(asm, args=args, constraints=constraints, pack=1, result_shape_dtypes=like)
    return out


def _number(value: float) -> str:
    """As PTX writes it, bit for bit."""
    return f"0f{struct.unpack('>I', struct.pack('>f', value))[0]:08X}"
