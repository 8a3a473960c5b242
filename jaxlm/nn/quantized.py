"""Matrix products in 8 bits while training: parameters stay as they are, products read rounded copies (qwix).

``x W`` with one scale for each row of x and each column of W: ``(round(x / s) round(W / u)) s u``, the product summed
in 32 bits. Gradients pass the rounding straight through (Bengio et al. 2013); their two products are made of rounded
operands too, with scales along the axes that each keeps (AQT; SwitchBack, Wortsman et al. 2023), or exactly.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array

Quantization = Literal["none", "int8", "int8_forward", "fp8", "fp8_forward"]
"""``int8`` and ``fp8``: all three products of a linear map, forward and backward. ``_forward``: its first alone."""


class _Form(NamedTuple):
    """What operands are rounded to."""

    values: Any
    """Activations and kernels."""
    gradients: Any
    """Gradients in the backward pass; None = its products are exact."""


_FORMS: dict[str, _Form] = {
    "int8": _Form(jnp.int8, jnp.int8),
    "int8_forward": _Form(jnp.int8, None),
    "fp8": _Form(jnp.float8_e4m3fn, jnp.float8_e5m2),  # gradients need range more than precision
    "fp8_forward": _Form(jnp.float8_e4m3fn, None),
}


def check_quantization(quantization: Quantization) -> None:
    """Raises UserError where 8-bit products are asked for without qwix, which makes them."""
    if quantization != "none":
        _qwix()


def _qwix() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise UserError("model.quantization needs the package qwix: pip install 'jaxlm[quant]', or set none") from error
    return qwix


Axes = tuple[tuple[int, ...], tuple[int, ...]]
"""Which axes of two operands are summed over."""


def _rounded_product(a: Array, b: Array, axes: Axes, a_type: Any, b_type: Any) -> Array:
    """``a`` and ``b`` contracted over ``axes``, both rounded with a scale for every index of their other axes."""
    qwix = _qwix()
    kept_a, kept_b = ([axis for axis in range(x.ndim) if axis not in axes[i]] for i, x in enumerate((a, b)))
    with jax.numpy_dtype_promotion("standard"):  # qwix multiplies integers with scales
        rounded_a = qwix.quantize(a, a_type, channelwise_axes=kept_a)
        rounded_b = qwix.quantize(b, b_type, channelwise_axes=kept_b)
        return qwix.dot_general(rounded_a, rounded_b, (axes, ((), ()))).astype(a.dtype)


def _exact_product(a: Array, b: Array, axes: Axes, a_type: Any, b_type: Any) -> Array:
    del a_type, b_type
    return jax.lax.dot_general(a, b, (axes, ((), ())))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def quantized_matmul(x: Array, kernel: Array, quantization: Quantization) -> Array:
    """``x @ kernel``, [..., in] @ [in, out] -> [..., out] in x's dtype, its products in 8 bits as ``quantization``
    says."""
    values = _FORMS[quantization].values
    return _rounded_product(x, kernel, ((x.ndim - 1,), (0,)), values, values)


def _forward(x: Array, kernel: Array, quantization: Quantization) -> tuple[Array, tuple[Array, Array]]:
    return quantized_matmul(x, kernel, quantization), (x, kernel)


def _backward(quantization: Quantization, kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    (x, kernel), (values, gradients) = kept, _FORMS[quantization]
    product = _exact_product if gradients is None else _rounded_product
    rows = tuple(range(x.ndim - 1))
    grad_x = product(grad, kernel, ((x.ndim - 1,), (1,)), gradients, values)
    grad_kernel = product(x, grad, (rows, rows), values, gradients)
    return grad_x, grad_kernel


quantized_matmul.defvjp(_forward, _backward)
