"""Affine maps and lookup tables."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.core.types import Array


def normal_init(std: float) -> jax.nn.initializers.Initializer:
    """Normal with a standard deviation; exact zeros at 0."""
    return nn.initializers.normal(std) if std > 0 else nn.initializers.zeros_init()


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
        y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), self.param_dtype)
            y = y + bias.astype(self.dtype)
        return y
