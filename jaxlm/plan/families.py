"""What a step of any family costs: FLOPs a token, and what its backward pass keeps."""

import math
from collections.abc import Callable
from typing import Any

from jaxlm.core.tree import flatten_with_paths
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.families import ModelConfig, make_model
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.nn.mlp import GATED
from jaxlm.nn.recurrent import gate_width
from jaxlm.plan import flops
from jaxlm.plan.activations import Share, StepBytes, decoder_step_bytes
from jaxlm.plan.params import ParamCounts, param_shapes


def count_recurrent_params(config: RecurrentConfig) -> ParamCounts:
    """Counts of a recurrent model, exactly those of its parameter tree."""
    leaves = flatten_with_paths(param_shapes(make_model(config)))
    sizes = {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    total, table = sum(sizes.values()), sizes["embed/table"]
    return ParamCounts(total, table, total if config.tie_embeddings else total - table, total)


def count_encoder_params(config: EncoderConfig) -> ParamCounts:
    """Counts of an encoder, exactly those of its parameter tree. The pooler, which masked text does not use, is not in
    ``matmul``; the table is, for the head."""
    leaves = flatten_with_paths(param_shapes(make_model(config)))
    sizes = {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    embedding = sum(size for path, size in sizes.items() if path.startswith("embed/"))
    pooler = sum(size for path, size in sizes.items() if path.startswith("pooler/"))
    total = sum(sizes.values())
    return ParamCounts(total, embedding, total - embedding - pooler + sizes["embed/table"], total)


def encoder_head_params(config: EncoderConfig) -> int:
    """Of ``count_encoder_params``, those of the head that predicts symbols, the table apart: published counts leave
    them out."""
    leaves = flatten_with_paths(param_shapes(make_model(config)))
    return sum(math.prod(leaf.shape) for path, leaf in leaves.items() if path.startswith("head/"))


def encoder_attention_flops(config: EncoderConfig, seq_len: int) -> float:
    """Forward FLOPs of attention for one token: each query sees the whole row, 4 n h FLOPs a key."""
    return 4.0 * config.num_layers * config.num_heads * config.head_width * seq_len


def _encoder_flops(config: EncoderConfig, seq_len: int) -> float:
    """6 N + 3 x attention."""
    return 6.0 * count_encoder_params(config).matmul + 3.0 * encoder_attention_flops(config, seq_len)


def _recurrent_flops(config: RecurrentConfig, seq_len: int) -> float:
    """6 N a token, whatever the length: there is no attention."""
    del seq_len
    return 6.0 * count_recurrent_params(config).matmul


def _recurrent_bytes(config: RecurrentConfig, share: Share) -> StepBytes:
    """Kept: for each layer its input, the input's part of the gates, the gates and the states, in f32. The logits and
    their gradient. The other axes split nothing of it."""
    tokens, kept = share.rows * share.seq_len, 0.0
    for width in config.layer_widths:
        gates = (gate_width(config.cell) + (config.cell == "gru")) * width
        kept += tokens * (config.model_dim + (2 * gates + 3 * width) / share.model_ways) * 4
    logits = 2 * share.rows * share.chunk * config.padded_vocab_size / share.model_ways * 4
    return StepBytes(int(kept), 0, 0, int(logits))


def _encoder_bytes(config: EncoderConfig, share: Share) -> StepBytes:
    """What a plain decoder of the same shape keeps: a layer has the same products, norms and attention weights."""
    decoder = DecoderConfig(
        vocab_size=config.vocab_size,
        vocab_multiple=config.vocab_multiple,
        num_layers=config.num_layers,
        model_dim=config.model_dim,
        num_heads=config.num_heads,
        head_dim=config.head_width,
        mlp_dim=config.mlp_width,
        mlp="swiglu" if config.mlp in GATED else "gelu",
        position="none",
        param_dtype=config.param_dtype,
        compute_dtype=config.compute_dtype,
        remat_policy=config.remat_policy,
        attention=config.attention,
    )
    return decoder_step_bytes(decoder, share)


_FLOPS: dict[str, Callable[[Any, int], float]] = {
    "decoder": flops.train_flops_per_token,
    "recurrent": _recurrent_flops,
    "encoder": _encoder_flops,
}
_BYTES: dict[str, Callable[[Any, Share], StepBytes]] = {
    "decoder": decoder_step_bytes,
    "recurrent": _recurrent_bytes,
    "encoder": _encoder_bytes,
}


def train_flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """Forward and backward FLOPs for one token, by the convention of `jaxlm.plan.flops`."""
    return _FLOPS[config.family](config, seq_len)


def step_bytes(config: ModelConfig, share: Share) -> StepBytes:
    """What one device's share of a microbatch holds beside the state."""
    return _BYTES[config.family](config, share)
