"""Projections around attention: queries, keys and values, QK-norm, rotation, and the way back."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxlm.core.types import Array
from jaxlm.nn.kernels import Kernels, uses_triton
from jaxlm.nn.linear import Linear, apply_together, of_one_row
from jaxlm.nn.norms import Norm
from jaxlm.nn.quantized import Quantization
from jaxlm.nn.rope import RopeTables, apply_rope

AttendFn = Callable[[Array, Array, Array], Array]
"""``(q_btnh, k_bskh, v_bskh) -> out_btnh``: attention proper, its masks, scale and kernel bound."""

RememberFn = Callable[[dict[str, Array]], tuple[dict[str, Array], Any]]
"""``entries [b, t, ...] -> (all entries so far [b, s, ...], what to store)``: a layer's part of a KV cache."""


class SelfAttention(nn.Module):
    """Multi-head attention with n query and k key heads of width h. The caller gives attention itself as a function, so
    that caches, masks and kernels are no concern of the parameters."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qk_norm: bool
    norm_scale: bool
    norm_offset: bool
    norm_eps: float
    init_std: float
    out_init_std: float
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    quantization: Quantization = "none"
    kernels: Kernels = "xla"

    @nn.compact
    def __call__(
        self, x_btd: Array, attend: AttendFn, remember: RememberFn | None, rope: RopeTables | None
    ) -> tuple[Array, Any]:
        """What attention adds to the stream, [b, t, d], and what ``remember`` stored: keys (rotated) and values."""
        b, t, d = x_btd.shape

        def linear(name: str, heads: int) -> Linear:
            width = heads * self.head_dim
            return Linear(
                width, self.init_std, self.use_bias, self.dtype, self.param_dtype, self.quantization, name=name
            )

        def norm(name: str, x: Array) -> Array:
            return Norm(
                "rmsnorm",
                self.norm_eps,
                self.norm_scale,
                False,
                self.dtype,
                self.param_dtype,
                self.norm_offset,
                name=name,
            )(x)

        heads = {"q": self.num_heads, "k": self.num_kv_heads, "v": self.num_kv_heads}
        # Attention's kernel reads whole arrays: parts of a joined product would be copied.
        join = "backward" if uses_triton(self.kernels) and t > 1 else True
        projected = apply_together([linear(name, count) for name, count in heads.items()], x_btd, join=join)
        q_btnh, k_btkh, v_btkh = (y.reshape(b, t, -1, self.head_dim) for y in projected)
        if self.qk_norm:
            q_btnh, k_btkh = norm("q_norm", q_btnh), norm("k_norm", k_btkh)
        if rope is not None:
            q_btnh, k_btkh = apply_rope(q_btnh, rope), apply_rope(k_btkh, rope)
        entries, stored = {"k": k_btkh, "v": v_btkh}, None
        if remember is not None:
            entries, stored = remember(entries)
        out_btnh = attend(q_btnh, entries["k"], entries["v"])
        out = Linear(d, self.out_init_std, self.use_bias, self.dtype, self.param_dtype, self.quantization, name="o")
        out_btd = out_btnh.reshape(b, t, self.num_heads * self.head_dim)
        one_row = b * t == 1 and uses_triton(self.kernels)
        return of_one_row(out, out_btd) if one_row else out(out_btd), stored
