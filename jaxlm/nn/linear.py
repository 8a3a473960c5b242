"""Affine maps and lookup tables."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.axes import free_axes
from jaxlm.core.types import Array, Params
from jaxlm.nn.quantized import Quantization, quantized_matmul


def normal_init(std: float) -> jax.nn.initializers.Initializer:
    """Normal with a standard deviation; exact zeros at 0."""
    return nn.initializers.normal(std) if std > 0 else nn.initializers.zeros_init()


def is_unsharded() -> bool:
    """True while tracing for a single device: no mesh is set, or one of size 1, or a ``shard_map`` has all of it."""
    return not free_axes()


def over_rows(fn: Callable[[Array], Array], x: Array) -> Array:
    """``fn`` of [n, in] on [..., in]."""
    y = fn(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], y.shape[-1])


def matmul(x: Array, kernel: Array, *, transpose: bool = False, out_dtype: jnp.dtype | None = None) -> Array:
    """``x @ kernel`` over x's last axis ([in, out] kernel; [out, in] with ``transpose``), accumulated in ``out_dtype``.

    Without a mesh the leading axes are one axis: with two, XLA:CPU transposes the output's gradient in memory to make
    the kernel's, a sixth of a small step. On a mesh they stay apart, as each may be split.
    """
    contract = ((x.ndim - 1,), (1 if transpose else 0,))
    if x.ndim > 2 and is_unsharded():
        return over_rows(lambda x: matmul(x, kernel, transpose=transpose, out_dtype=out_dtype), x)
    return jax.lax.dot_general(x, kernel, (contract, ((), ())), preferred_element_type=out_dtype)


class Weights(NamedTuple):
    """What a linear map is made of, as it is kept."""

    kernel: Array
    """[in, out], of the compute dtype, or int8."""
    scale_o: Array | None
    """f32 [out]: the kernel is ``kernel * scale``. None = the kernel is as it stands."""
    bias_o: Array | None


KERNEL_SCALE = "kernel_scale"
"""Name of the parameter that stands beside a kernel kept in int8."""


def dequantize(kernel: Array, scale_o: Array | None, dtype: jnp.dtype) -> Array:
    """A kernel [..., in, out] in ``dtype``, whichever way it is kept (scale [..., out])."""
    if scale_o is None:
        return kernel.astype(dtype)
    return (kernel.astype(jnp.float32) * scale_o[..., None, :]).astype(dtype)


class Linear(nn.Module):
    """``x @ kernel + bias`` over the last axis, computed in ``dtype`` from parameters kept in ``param_dtype``.

    ``kernel`` is [in, out]: heads are folded into one axis, so that it divides over a mesh even where heads are few.
    """

    features: int
    init_std: float
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    quantization: Quantization = "none"
    """8-bit products while training, of parameters kept as ever."""

    @nn.compact
    def kept(self, in_features: int) -> Weights:
        """The parameters, cast to ``dtype`` unless they are int8."""
        kernel = self.param("kernel", normal_init(self.init_std), (in_features, self.features), self.param_dtype)
        scale_o = self.get_variable("params", KERNEL_SCALE)
        kernel = kernel.astype(self.dtype) if scale_o is None else kernel
        if not self.use_bias:
            return Weights(kernel, scale_o, None)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), self.param_dtype)
        return Weights(kernel, scale_o, bias.astype(self.dtype))

    def weights(self, in_features: int) -> tuple[Array, Array | None]:
        """The kernel [in, out] and the bias [out] (None without), in ``dtype``."""
        kernel, scale_o, bias_o = self.kept(in_features)
        return dequantize(kernel, scale_o, self.dtype), bias_o

    def __call__(self, x: Array) -> Array:
        return apply_together([self], x)[0]

    def change(self, x: Array) -> Array | None:
        """What a low-rank adapter beside the kernel (`models.lora`) adds, ``(x A) B``; None where there is none."""
        a, b = (self.get_variable("params", name) for name in ("lora_a", "lora_b"))
        if a is None or b is None:
            return None
        return matmul(matmul(x, a["kernel"].astype(self.dtype)), b["kernel"].astype(self.dtype))


@jax.custom_vjp
def _joined_backward(x_nd: Array, kernels: tuple[Array, ...]) -> tuple[Array, ...]:
    """``x @ kernel`` of each, [n, width]. Each product waits for the one before, or XLA would join them; in the
    backward pass their gradients are laid side by side once, where XLA does so for each of two products."""
    products = []
    for kernel in kernels:
        x_nd, y = jax.lax.optimization_barrier((x_nd, x_nd @ kernel))
        products.append(y)
    return tuple(products)


def _joined_bwd(kept: tuple[Array, tuple[Array, ...]], grads: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    x_nd, kernels = kept
    grad = jax.lax.optimization_barrier(jnp.concatenate(grads, axis=1))
    dx_nd = grad @ jnp.concatenate(kernels, axis=1).T
    return dx_nd, tuple(_split(x_nd.T @ grad, [kernel.shape[1] for kernel in kernels]))


_joined_backward.defvjp(lambda x_nd, kernels: (_joined_backward(x_nd, kernels), (x_nd, kernels)), _joined_bwd)


def apply_together(linears: Sequence[Linear], x: Array, *, join: bool | Literal["backward"] = True) -> list[Array]:
    """``[linear(x) for linear in linears]``, all of one ``dtype``.

    Without a mesh their kernels are laid side by side, so that one product, twice as fast on a CPU as three narrow
    ones, makes them all. On a mesh each kernel's columns are split on their own, and joining them would move them.
    Parameters that were joined beforehand (`join_kernels`) are taken as they are. ``join`` False: each by its own
    product, for kernels that read their results as whole arrays; "backward": so, but for their gradients.
    """
    x = x.astype(linears[0].dtype)
    quantization = linears[0].quantization
    joined = _kept_joined(linears)
    if joined is not None:
        return _split(_affine(x, joined, quantization), [linear.features for linear in linears])
    weights = [linear.kept(x.shape[-1]) for linear in linears]
    plain = quantization == "none" and all(one.scale_o is None for one in weights)
    if (
        join and len(weights) > 1 and plain and is_unsharded()
    ):  # in 8 bits they would share the scales of their gradients
        kernels = tuple(kernel for kernel, _, _ in weights)
        if join == "backward":
            rows = _joined_backward(x.reshape(-1, x.shape[-1]), kernels)
            products = [y_nd.reshape(*x.shape[:-1], -1) for y_nd in rows]
        else:
            products = _split(matmul(x, jnp.concatenate(kernels, axis=1)), [kernel.shape[1] for kernel in kernels])
        products = [y if bias is None else y + bias for y, (_, _, bias) in zip(products, weights, strict=True)]
    else:
        products = [_affine(x, one, quantization) for one in weights]
    changes = [linear.change(x) for linear in linears]
    return [y if change is None else y + change for y, change in zip(products, changes, strict=True)]


def of_one_row(linear: Linear, x: Array) -> Array:
    """``linear`` of one row, on a GPU, where XLA makes the product with a small kernel in memory, element by element,
    and sums it after: three times the traffic. Eight equal rows are a product of matrices, which is made at once."""
    assert x.size == x.shape[-1], x.shape
    return linear(jnp.broadcast_to(x, (8, *x.shape[1:])))[:1]


def _affine(x: Array, weights: Weights, quantization: Quantization) -> Array:
    """``x @ kernel + bias`` in x's dtype. An int8 kernel is read as it is, and its scales applied to the product, which
    the compiler can fuse: the kernel never stands in memory in another form."""
    kernel, scale_o, bias_o = weights
    if scale_o is None:
        y = _product(x, kernel, quantization)
    else:
        f32 = jnp.dtype(jnp.float32)
        y = (matmul(x, kernel.astype(x.dtype), out_dtype=f32) * scale_o).astype(x.dtype)
    return y if bias_o is None else y + bias_o


def _product(x: Array, kernel: Array, quantization: Quantization) -> Array:
    if quantization == "none":
        return matmul(x, kernel)
    if x.ndim > 2 and is_unsharded():
        return over_rows(lambda x: quantized_matmul(x, kernel, quantization), x)
    return quantized_matmul(x, kernel, quantization)


def _split(y: Array, widths: Sequence[int]) -> list[Array]:
    return jnp.split(y, np.cumsum(widths)[:-1].tolist(), axis=-1)


def joined_name(names: Sequence[str]) -> str:
    """Under which the joined parameters of linear maps stand: ``q+k+v``."""
    return "+".join(names)


def _kept_joined(linears: Sequence[Linear]) -> Weights | None:
    """The parameters of these maps if they stand side by side under their parent, else None."""
    parent = linears[0].parent
    if len(linears) == 1 or not isinstance(parent, nn.Module):
        return None
    kept = parent.get_variable("params", joined_name([str(linear.name) for linear in linears]))
    if kept is None:
        return None
    dtype, scale_o, bias_o = linears[0].dtype, kept.get(KERNEL_SCALE), kept.get("bias")
    kernel = kept["kernel"].astype(dtype) if scale_o is None else kept["kernel"]
    return Weights(kernel, scale_o, None if bias_o is None else bias_o.astype(dtype))


def join_kernels(parts: Sequence[Params]) -> Params:
    """The parameters of linear maps of one input, {"kernel" [in, out], "bias" [out] or none}, as those of one map."""
    joined = {"kernel": jnp.concatenate([part["kernel"] for part in parts], axis=-1)}
    if any("bias" in part for part in parts):
        biases = [part.get("bias", jnp.zeros(part["kernel"].shape[-1], part["kernel"].dtype)) for part in parts]
        joined["bias"] = jnp.concatenate(biases)
    return joined


def quantize_kernel(kernel: Array) -> Params:
    """A kernel [..., in, out] as ``{"kernel": int8, "kernel_scale": f32 [..., out]}``, symmetric, one scale for each
    output: scale = max |w| / 127, rounded to the nearest. An output of zeros keeps scale 1."""
    kernel = kernel.astype(jnp.float32)
    scale_o = jnp.max(jnp.abs(kernel), axis=-2) / 127.0
    scale_o = jnp.where(scale_o > 0, scale_o, 1.0)
    return {"kernel": jnp.round(kernel / scale_o[..., None, :]).astype(jnp.int8), KERNEL_SCALE: scale_o}
