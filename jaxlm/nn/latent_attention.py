"""Multi-head latent attention (DeepSeek-V2, 2024, section 2.1): keys and values are read from one narrow latent."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxlm.core.types import Array
from jaxlm.nn.linear import Linear, apply_together
from jaxlm.nn.norms import Norm
from jaxlm.nn.quantized import Quantization
from jaxlm.nn.rope import RopeTables, apply_rope
from jaxlm.nn.self_attention import AttendFn, RememberFn


@dataclasses.dataclass(frozen=True)
class MlaConfig:
    """Widths of latent attention. The defaults are DeepSeek-V2's."""

    kv_lora_rank: int = 512
    """Width of the latent that keys and values are made from, and that the cache holds."""
    q_lora_rank: int | None = 1536
    """Width of the queries' latent; None = queries are projected at once (DeepSeek-V2-Lite)."""
    qk_nope_head_dim: int = 128
    """Width of the unrotated part of a query and key head."""
    qk_rope_head_dim: int = 64
    """Width of the rotated part; all heads share one rotated key."""
    v_head_dim: int = 128

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise ValueError(f"mla.{field.name}={value} must be at least 1")
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"mla.qk_rope_head_dim={self.qk_rope_head_dim} is odd, and rope turns pairs: make it even")

    @property
    def qk_head_dim(self) -> int:
        """Width of a whole query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


class LatentAttention(nn.Module):
    """``c = norm(x W_down)``; keys ``[c W_uk, rope(x W_r)]``, values ``c W_uv``, queries alike through a latent of
    their own.

    With a cache, the latent and the rotated key are remembered and nothing else, and ``W_uk`` and ``W_uv`` are moved
    into query and output: attention is then multi-query attention over the latent itself.
    """

    config: MlaConfig
    num_heads: int
    norm_scale: bool
    norm_offset: bool
    norm_eps: float
    init_std: float | None
    """None = 1/sqrt(fan in)."""
    out_init_std: float
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    quantization: Quantization = "none"
    temperature: float = 1.0
    """What the rotation multiplies its part of the scores with (YaRN's factor squared); the other part is alike."""

    @nn.compact
    def __call__(
        self, x_btd: Array, attend: AttendFn, remember: RememberFn | None, rope: RopeTables | None
    ) -> tuple[Array, Any]:
        """What attention adds to the stream, [b, t, d], and what ``remember`` stored: ``latent`` and ``k_rope``."""
        assert rope is not None
        b, t, d = x_btd.shape
        c, n = self.config, self.num_heads
        nope, rank = c.qk_nope_head_dim, c.kv_lora_rank

        def linear(name: str, fan_in: int, width: int, *, bias: bool = False) -> Linear:
            std = 1.0 / math.sqrt(fan_in) if self.init_std is None else self.init_std
            return Linear(width, std, bias, self.dtype, self.param_dtype, self.quantization, name=name)

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

        kv_down = linear("kv_down", d, rank + c.qk_rope_head_dim, bias=self.use_bias)
        if c.q_lora_rank is None:
            q_btf, kv_btf = apply_together([linear("q", d, n * c.qk_head_dim), kv_down], x_btd)
        else:
            q_down = linear("q_down", d, c.q_lora_rank, bias=self.use_bias)
            q_btf, kv_btf = apply_together([q_down, kv_down], x_btd)
            q_btf = linear("q_up", c.q_lora_rank, n * c.qk_head_dim)(norm("q_norm", q_btf))
        q_btnh = q_btf.reshape(b, t, n, c.qk_head_dim)
        q_nope, q_rope = q_btnh[..., :nope] * self.temperature, apply_rope(q_btnh[..., nope:], rope)
        latent_btr = norm("kv_norm", kv_btf[..., :rank])
        k_rope_bth = apply_rope(kv_btf[..., None, rank:], rope)[:, :, 0]

        # A bare kernel: with a cache it is applied to queries and outputs, not to the latent.
        kv_up = linear("kv_up", rank, n * (nope + c.v_head_dim))
        kernel_rnh = kv_up.weights(rank)[0].reshape(rank, n, nope + c.v_head_dim)
        if remember is None:
            kv_btnh = jnp.einsum("btr,rnh->btnh", latent_btr, kernel_rnh)
            k_rope_btnh = jnp.broadcast_to(k_rope_bth[:, :, None], (b, t, n, c.qk_rope_head_dim))
            k_btnh = jnp.concatenate([kv_btnh[..., :nope], k_rope_btnh], axis=-1)
            out_btnh = attend(jnp.concatenate([q_nope, q_rope], axis=-1), k_btnh, kv_btnh[..., nope:])
            stored = None
        else:
            entries, stored = remember({"latent": latent_btr, "k_rope": k_rope_bth})
            latent_bs1r = entries["latent"][:, :, None]
            q_latent_btnr = jnp.einsum("btnh,rnh->btnr", q_nope, kernel_rnh[..., :nope])
            q_btnh = jnp.concatenate([q_latent_btnr, q_rope], axis=-1)
            k_bs1h = jnp.concatenate([latent_bs1r, entries["k_rope"][:, :, None]], axis=-1)
            out_btnr = attend(q_btnh, k_bs1h, latent_bs1r)
            out_btnh = jnp.einsum("btnr,rnh->btnh", out_btnr, kernel_rnh[..., nope:])
        out = Linear(d, self.out_init_std, self.use_bias, self.dtype, self.param_dtype, self.quantization, name="o")
        return out(out_btnh.reshape(b, t, n * c.v_head_dim)), stored
