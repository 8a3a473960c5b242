"""One layer of the decoder."""

import math
from typing import Any

import flax.linen as nn
import jax

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.types import Array
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.nn.dropout import dropout
from jaxlm.nn.mlp import MLP
from jaxlm.nn.norms import Norm
from jaxlm.nn.rope import RopeTables
from jaxlm.nn.self_attention import AttendFn, SelfAttention


def block_norm(config: DecoderConfig, name: str | None = None) -> Norm:
    """The norm that the config asks for."""
    return Norm(
        config.norm,
        config.norm_eps,
        config.norm_scale,
        config.norm == "layernorm" and config.norm_scale and config.bias,
        as_dtype(config.compute_dtype),
        as_dtype(config.param_dtype),
        name=name,
    )


def _std(config: DecoderConfig, fan_in: int, *, output: bool = False) -> float:
    """Deviation of a weight at the start; output projections are smaller by the number of sums into the stream."""
    if output and config.zero_init_outputs:
        return 0.0
    std = 1.0 / math.sqrt(fan_in) if config.init_std is None else config.init_std
    return std / math.sqrt(2 * config.num_layers) if output else std


class DecoderBlock(nn.Module):
    """``x + attn(norm(x))`` then ``x + mlp(norm(x))``, or in parallel ``x + attn(norm(x)) + mlp(norm(x))``."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, x_btd: Array, attend: AttendFn, rope: RopeTables | None, dropout_key: Array | None
    ) -> tuple[Array, Any]:
        """The stream after the layer, and what ``attend`` stored. ``dropout_key`` None = no dropout."""
        c = self.config
        dtype, param_dtype = as_dtype(c.compute_dtype), as_dtype(c.param_dtype)
        attn = SelfAttention(
            num_heads=c.num_heads,
            num_kv_heads=c.kv_heads,
            head_dim=c.head_width,
            qk_norm=c.qk_norm,
            norm_scale=c.norm_scale,
            norm_eps=c.norm_eps,
            init_std=_std(c, c.model_dim),
            out_init_std=_std(c, c.num_heads * c.head_width, output=True),
            use_bias=c.bias,
            dtype=dtype,
            param_dtype=param_dtype,
            name="attn",
        )
        mlp = MLP(
            kind=c.mlp,
            width=c.mlp_width,
            init_std=_std(c, c.model_dim),
            down_init_std=_std(c, c.mlp_width, output=True),
            use_bias=c.bias,
            dtype=dtype,
            param_dtype=param_dtype,
            name="mlp",
        )
        keys = (None, None) if dropout_key is None else tuple(jax.random.split(dropout_key))
        normed_btd = block_norm(c, "attn_norm")(x_btd)
        out_btd, stored = attn(normed_btd, attend, rope)
        attended_btd = x_btd + dropout(out_btd, c.dropout, keys[0])
        if not c.parallel_block:
            normed_btd = block_norm(c, "mlp_norm")(attended_btd)
        return attended_btd + dropout(mlp(normed_btd), c.dropout, keys[1]), stored
