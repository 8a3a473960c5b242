"""Affine maps and lookup tables."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.core.types import Array


def normal_init(std: float) -> jax.nn.initializers.Initializer:
    """Normal with a standard deviation; exact zeros at 0."""
    return nn.initializers.normal(std) if std > 0 else nn.initializers.zeros_init()


def matmul(x: Array, kernel: Array, *, transpose: bool = False, out_dtype: jnp.dtype | None = None) -> Array:
    """``x @ kernel`` over x's last axis ([in, out] kernel; [out, in] with ``transpose``), accumulated in ``out_dtype``.

    Without a mesh the leading axes are one axis: with two, XLA:CPU transposes the output's gradient in memory to make
    the kernel's, a sixth of a small step. On a mesh they stay apart, as each may be split.
    """
    contract = ((x.ndim - 1,), (1 if transpose else 0,))
    mesh = jax.sharding.get_abstract_mesh()
    if x.ndim > 2 and (mesh.empty or mesh.size == 1):
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
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", normal_init(self.init_std), (x.shape[-1], self.features), self.param_dtype)
        y = matmul(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), self.param_dtype)
            y = y + bias.astype(self.dtype)
        return y
