"""Affine maps and lookup tables."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.axes import free_axes
from jaxlm.core.types import Array


def normal_init(std: float) -> jax.nn.initializers.Initializer:
    """Normal with a standard deviation; exact zeros at 0."""
    return nn.initializers.normal(std) if std > 0 else nn.initializers.zeros_init()


def is_unsharded() -> bool:
    """True while tracing for a single device: no mesh is set, or one of size 1, or a ``shard_map`` has all of it."""
    return not free_axes()


def matmul(x: Array, kernel: Array, *, transpose: bool = False, out_dtype: jnp.dtype | None = None) -> Array:
    """``x @ kernel`` over x's last axis ([in, out] kernel; [out, in] with ``transpose``), accumulated in ``out_dtype``.

    Without a mesh the leading axes are one axis: with two, XLA:CPU transposes the output's gradient in memory to make
    the kernel's, a sixth of a small step. On a mesh they stay apart, as each may be split.
    """
    contract = ((x.ndim - 1,), (1 if transpose else 0,))
    if x.ndim > 2 and is_unsharded():
        y = matmul(x.reshape(-1, x.shape[-1]), kernel, transpose=transpose, out_dtype=out_dtype)
        return y.reshape(*x.shape[:-1], y.shape[-1])
    return jax.lax.dot_general(x, kernel, (contract, ((), ())), preferred_element_type=out_dtype)


class Linear(nn.Module):
    """``x @ kernel + bias`` over the last axis, computed in ``dtype`` from parameters kept in ``param_dtype``.

    ``kernel`` is [in, out]: heads are folded into one axis, so that it divides over a mesh even where heads are few.
    """

    features: int
    init_std: float
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def weights(self, in_features: int) -> tuple[Array, Array | None]:
        """The kernel [in, out] and the bias [out] (None without), in ``dtype``."""
        kernel = self.param("kernel", normal_init(self.init_std), (in_features, self.features), self.param_dtype)
        if not self.use_bias:
            return kernel.astype(self.dtype), None
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), self.param_dtype)
        return kernel.astype(self.dtype), bias.astype(self.dtype)

    def __call__(self, x: Array) -> Array:
        return apply_together([self], x)[0]

    def change(self, x: Array) -> Array | None:
        """What a low-rank adapter beside the kernel (`models.lora`) adds, ``(x A) B``; None where there is none."""
        a, b = (self.get_variable("params", name) for name in ("lora_a", "lora_b"))
        if a is None or b is None:
            return None
        return matmul(matmul(x, a["kernel"].astype(self.dtype)), b["kernel"].astype(self.dtype))


def apply_together(linears: Sequence[Linear], x: Array) -> list[Array]:
    """``[linear(x) for linear in linears]``, all of one ``dtype``.

    Without a mesh their kernels are laid side by side, so that one product, twice as fast on a CPU as three narrow
    ones, makes them all. On a mesh each kernel's columns are split on their own, and joining them would move them.
    """
    x = x.astype(linears[0].dtype)
    weights = [linear.weights(x.shape[-1]) for linear in linears]
    kernels = [kernel for kernel, _ in weights]
    if len(kernels) > 1 and is_unsharded():
        widths = np.cumsum([kernel.shape[1] for kernel in kernels])[:-1].tolist()
        products = jnp.split(matmul(x, jnp.concatenate(kernels, axis=1)), widths, axis=-1)
    else:
        products = [matmul(x, kernel) for kernel in kernels]
    products = [y if bias is None else y + bias for y, (_, bias) in zip(products, weights, strict=True)]
    changes = [linear.change(x) for linear in linears]
    return [y if change is None else y + change for y, change in zip(products, changes, strict=True)]
