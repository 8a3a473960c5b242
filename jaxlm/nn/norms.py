"""RMSNorm and LayerNorm, statistics in f32 whatever the compute dtype."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.core.types import Array
from jaxlm.nn.kernels import Kernels, uses_triton
from jaxlm.nn.triton_norms import NormKernel, norm_beside

NormKind = Literal["rmsnorm", "layernorm"]


def rms_normalize(x: Array, eps: float) -> Array:
    """``x / sqrt(mean(x^2) + eps)`` over the last axis, in f32 (Zhang & Sennrich 2019)."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps)


def layer_normalize(x: Array, eps: float) -> Array:
    """``(x - mean) / sqrt(var + eps)`` over the last axis, in f32 (Ba et al. 2016)."""
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + eps)


_NORMALIZE = {"rmsnorm": rms_normalize, "layernorm": layer_normalize}


class Norm(nn.Module):
    """A norm over the last axis with an optional learned gain, and for LayerNorm an optional bias. Returns
    ``dtype``. With ``offset`` the gain is 1 + ``scale``, which starts at 0 (Gemma)."""

    kind: NormKind
    eps: float
    use_scale: bool
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    offset: bool = False
    kernels: Kernels = "xla"

    def __call__(self, x: Array) -> Array:
        return self.beside(x)[0]

    @nn.compact
    def beside(self, x: Array, delta: Array | None = None) -> tuple[Array, Array]:
        """(the norm of x + delta, x + delta; None = 0): of a stream that goes on as it is, too. With kernels of ours
        the norm's forward pass makes the sum, and its backward pass adds the gradients of both ways."""
        start = nn.initializers.zeros_init() if self.offset else nn.initializers.ones_init()
        scale, bias = None, None
        if self.use_scale:
            scale = self.param("scale", start, (x.shape[-1],), self.param_dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],), self.param_dtype)
        if uses_triton(self.kernels):
            interpret = self.kernels == "triton_interpret"
            kernel = NormKernel(self.kind == "layernorm", self.eps, self.offset, self.dtype, interpret)
            return norm_beside(kernel, x, scale, bias, delta)
        x = x if delta is None else x + delta
        y = _NORMALIZE[self.kind](x, self.eps)
        if scale is not None:
            scale = scale.astype(jnp.float32)
            y = y * (1.0 + scale if self.offset else scale)
        if bias is not None:
            y = y + bias.astype(jnp.float32)
        return y.astype(self.dtype), x
