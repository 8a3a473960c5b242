"""Parameter counts in closed form; nothing is traced or allocated. A test holds them against the parameter tree."""

from typing import NamedTuple

import jax

from jaxlm.models.api import Model
from jaxlm.models.decoder import DecoderConfig
from jaxlm.nn.mlp import GATED


class ParamCounts(NamedTuple):
    """Counts of parameters (elements, not bytes)."""

    total: int
    embedding: int
    """Tables that are looked up: tokens and learned positions. A tied table is here, and in ``matmul`` too."""
    matmul: int
    """What each token is multiplied with: N of 6ND. Of experts, those that serve a token."""
    active: int
    """What one token meets: ``total`` less the experts that it does not go to."""


def param_shapes(model: Model) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameter tree as ShapeDtypeStructs."""
    return jax.eval_shape(model.init, jax.random.key(0))


def count_decoder_params(config: DecoderConfig) -> ParamCounts:
    """Counts of a decoder, exactly those of its parameter tree."""
    table = config.padded_vocab_size * config.model_dim
    positions = config.max_seq_len * config.model_dim if config.position == "learned" else 0
    head = 0 if config.tie_embeddings else table
    layer = attention_params(config) + layer_norms(config) * _norm(config)
    whole, met = feed_forward_params(config)
    rest = config.num_layers * layer + _norm(config) + head
    total, active = (table + positions + rest + config.num_layers * width for width in (whole, met))
    matmul = active - positions - (0 if config.tie_embeddings else table)
    return ParamCounts(total, table + positions, matmul, active)


def _norm(config: DecoderConfig) -> int:
    """Parameters of one norm over the stream."""
    if not config.norm_scale:
        return 0
    return config.model_dim * (2 if config.norm == "layernorm" and config.bias else 1)


def layer_norms(config: DecoderConfig) -> int:
    """Norms over the stream in a layer."""
    branches = 1 if config.mlp == "none" else 2
    return (1 if config.parallel_block else branches) + (branches if config.output_norms else 0)


def attention_params(config: DecoderConfig) -> int:
    """Parameters of one layer's attention, its own norms included."""

    def linear(fan_in: int, fan_out: int, bias: bool = config.bias) -> int:
        return (fan_in + bias) * fan_out

    d, n = config.model_dim, config.num_heads
    scales = int(config.norm_scale)
    out = linear(n * config.v_width, d)
    if config.mla is None:
        norms = 2 * config.head_width * scales if config.qk_norm else 0
        kv = 2 * linear(d, config.kv_heads * config.head_width)
        return linear(d, n * config.head_width) + kv + out + norms
    c = config.mla
    kv = linear(d, c.kv_lora_rank + c.qk_rope_head_dim) + c.kv_lora_rank * scales
    kv += linear(c.kv_lora_rank, n * (c.qk_nope_head_dim + c.v_head_dim), bias=False)
    if c.q_lora_rank is None:
        return linear(d, n * c.qk_head_dim, bias=False) + kv + out
    q = linear(d, c.q_lora_rank) + c.q_lora_rank * scales + linear(c.q_lora_rank, n * c.qk_head_dim, bias=False)
    return q + kv + out


def feed_forward_params(config: DecoderConfig) -> tuple[int, int]:
    """Parameters of one layer's MLP or experts: (all, those that one token meets)."""
    ups = 2 if config.mlp in GATED else 1

    def mlp(width: int) -> int:
        biases = ups * width + config.model_dim if config.bias else 0
        return (ups + 1) * config.model_dim * width + biases

    if config.mlp == "none":
        return 0, 0
    if config.moe is None:
        return mlp(config.mlp_width), mlp(config.mlp_width)
    c = config.moe
    always = config.model_dim * c.num_experts + (0 if c.shared_dim is None else mlp(c.shared_dim))
    expert = mlp(config.mlp_width)
    return always + c.num_experts * expert, always + c.top_k * expert
