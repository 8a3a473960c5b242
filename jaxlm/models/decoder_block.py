"""One layer of the decoder."""

import math
from typing import Any

import flax.linen as nn
import jax

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.types import Array
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.nn.dropout import dropout
from jaxlm.nn.latent_attention import LatentAttention
from jaxlm.nn.mlp import MLP
from jaxlm.nn.moe import MoE
from jaxlm.nn.norms import Norm
from jaxlm.nn.rope import RopeTables, rope_frequencies
from jaxlm.nn.self_attention import AttendFn, RememberFn, SelfAttention
from jaxlm.sharding.activations import DEFAULT_LAYOUT, ActivationLayout

Sums = dict[str, Array]
"""What a layer adds to the terms of the loss, f32 scalars summed over tokens; empty but for experts."""


def block_norm(config: DecoderConfig, name: str | None = None) -> Norm:
    """The norm that the config asks for."""
    return Norm(
        config.norm,
        config.norm_eps,
        config.norm_scale,
        config.norm == "layernorm" and config.norm_scale and config.bias,
        as_dtype(config.compute_dtype),
        as_dtype(config.param_dtype),
        config.norm_offset,
        config.kernels,
        name=name,
    )


def _std(config: DecoderConfig, fan_in: int, *, output: bool = False) -> float:
    """Deviation of a weight at the start; output projections are smaller by the number of sums into the stream."""
    if output and config.zero_init_outputs:
        return 0.0
    std = 1.0 / math.sqrt(fan_in) if config.init_std is None else config.init_std
    return std / math.sqrt(2 * config.num_layers) if output else std


class DecoderBlock(nn.Module):
    """``x + attn(norm(x))`` then ``x + mlp(norm(x))``, or in parallel ``x + attn(norm(x)) + mlp(norm(x))``.

    With ``output_norms`` what attention and MLP give is normalised before it is added. Without an MLP (``mlp="none"``)
    a layer ends with its attention.
    """

    config: DecoderConfig
    layout: ActivationLayout = DEFAULT_LAYOUT

    @nn.compact
    def __call__(
        self,
        x_btd: Array,
        attend: AttendFn,
        remember: RememberFn | None,
        rope: RopeTables | None,
        dropout_key: Array | None = None,
        counted_bt: Array | None = None,
    ) -> tuple[Array, Any, Sums]:
        """The stream after the layer, what ``remember`` stored, and the layer's sums for the loss.

        ``dropout_key`` None = no dropout. ``counted_bt``: tokens that the sums are over; None = all.
        """
        c = self.config
        keys = (None, None) if dropout_key is None else tuple(jax.random.split(dropout_key))
        gathered, scattered = self.layout.gathered, self.layout.scattered
        normed_btd, x_btd = block_norm(c, "attn_norm").beside(x_btd)
        normed_btd = gathered(normed_btd)
        out_btd, stored = self._attention()(normed_btd, attend, remember, rope)
        out_btd = scattered(out_btd)
        if c.output_norms:
            out_btd = block_norm(c, "attn_out_norm")(out_btd)
        out_btd = dropout(out_btd, c.dropout, keys[0])
        if c.mlp == "none":
            return x_btd + out_btd, stored, {}
        if c.parallel_block:
            attended_btd = x_btd + out_btd
        else:
            normed_btd, attended_btd = block_norm(c, "mlp_norm").beside(x_btd, out_btd)
            normed_btd = gathered(normed_btd)
        out_btd, sums = self._feed_forward(normed_btd, counted_bt)
        out_btd = scattered(out_btd)
        if c.output_norms:
            out_btd = block_norm(c, "mlp_out_norm")(out_btd)
        return attended_btd + dropout(out_btd, c.dropout, keys[1]), stored, sums

    def _attention(self) -> SelfAttention | LatentAttention:
        c = self.config
        shared: dict[str, Any] = {
            "num_heads": c.num_heads,
            "norm_scale": c.norm_scale,
            "norm_offset": c.norm_offset,
            "norm_eps": c.norm_eps,
            "out_init_std": _std(c, c.num_heads * c.v_width, output=True),
            "use_bias": c.bias,
            "dtype": as_dtype(c.compute_dtype),
            "param_dtype": as_dtype(c.param_dtype),
            "quantization": c.quantization,
            "name": "attn",
        }
        if c.mla is not None:
            factor = rope_frequencies(c.rope, c.rope_width)[1]
            return LatentAttention(config=c.mla, init_std=c.init_std, temperature=factor**2, **shared)
        return SelfAttention(
            num_kv_heads=c.kv_heads,
            head_dim=c.head_width,
            qk_norm=c.qk_norm,
            kernels=c.kernels,
            init_std=_std(c, c.model_dim),
            **shared,
        )

    def _feed_forward(self, x_btd: Array, counted_bt: Array | None) -> tuple[Array, Sums]:
        c = self.config
        shared: dict[str, Any] = {
            "kind": c.mlp,
            "width": c.mlp_width,
            "init_std": _std(c, c.model_dim),
            "down_init_std": _std(c, c.mlp_width, output=True),
            "dtype": as_dtype(c.compute_dtype),
            "param_dtype": as_dtype(c.param_dtype),
        }
        if c.moe is not None:
            shared_std = _std(c, c.moe.shared_dim or c.mlp_width, output=True)
            return MoE(config=c.moe, shared_down_init_std=shared_std, name="moe", **shared)(x_btd, counted_bt)
        return MLP(use_bias=c.bias, quantization=c.quantization, kernels=c.kernels, name="mlp", **shared)(x_btd), {}
