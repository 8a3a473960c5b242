"""Bytes that one device must hold to train: the state exactly, activations by a model of what the backward pass
keeps."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.types import PyTree
from jaxlm.models.decoder import DecoderConfig
from jaxlm.nn.mlp import GATED


class MemoryTerm(NamedTuple):
    """One row of the estimate."""

    name: str
    num_bytes: int
    lower: str
    """What to change in the config to make it smaller."""


class MemoryEstimate(NamedTuple):
    """Bytes a device, largest term first."""

    terms: tuple[MemoryTerm, ...]

    @property
    def total(self) -> int:
        return sum(term.num_bytes for term in self.terms)


def sharded_bytes(shapes: PyTree, specs: PyTree, axis_sizes: dict[str, int]) -> int:
    """Bytes of one device's share of a tree, given the PartitionSpec of each leaf and the sizes of the mesh axes."""

    def leaf_bytes(leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> int:
        ways = 1
        for entry in spec:
            for axis in (entry,) if isinstance(entry, str) else (entry or ()):
                ways *= axis_sizes[axis]
        return math.ceil(math.prod(leaf.shape) / ways) * np.dtype(leaf.dtype).itemsize

    sizes = jax.tree.map(leaf_bytes, shapes, specs)
    return sum(jax.tree.leaves(sizes))


def _kept_widths(config: DecoderConfig, expert_ways: int) -> tuple[int, int]:
    """Elements a token in one layer: (outputs of the inner matrix products, what activations and norms keep).

    A token's experts each keep what one MLP keeps, and a device keeps room for all tokens of its ``expert_ways``, since
    all may choose its experts. Latent attention keeps its latents too.
    """
    heads = config.num_heads * config.qk_width
    values = config.num_heads * config.v_width
    keys = config.kv_heads * config.head_width * 2
    if config.mla is not None:
        c = config.mla
        latents = c.kv_lora_rank + c.qk_rope_head_dim + (c.q_lora_rank or 0)
        keys = config.num_heads * (c.qk_nope_head_dim + c.v_head_dim) + latents
    gated = 2 if config.mlp in GATED else 1
    inner = config.mlp_width
    routed = 0
    if config.moe is not None:
        copies = expert_ways * config.moe.top_k
        inner = copies * config.mlp_width + (config.moe.shared_dim or 0)
        routed = 2 * copies * config.model_dim  # tokens as sorted by expert, and what experts give
    return heads + keys + gated * inner + routed, values + (1 + gated) * inner


def kv_cache_bytes_per_token(config: DecoderConfig, itemsize: int = 2) -> int:
    """Bytes of the KV cache for one token of one row, over all layers. Layers with a window keep every token too."""
    return config.num_layers * sum(math.prod(shape) for shape in config.cache_shapes.values()) * itemsize


def activation_bytes(
    config: DecoderConfig, *, rows: int, seq_len: int, model_ways: int = 1, expert_ways: int = 1
) -> tuple[int, int]:
    """(kept between forward and backward, logits) in bytes, for one device's rows of one microbatch.

    Kept for each layer: with full remat its input alone; with ``dots`` its matmul outputs; with none these, what norms
    and activations save, and the attention weights (the xla form keeps them; cuDNN and splash do not).
    The logits are held twice in f32: themselves and their gradient.
    """
    itemsize = as_dtype(config.compute_dtype).itemsize
    tokens = rows * seq_len
    dots, extra = _kept_widths(config, expert_ways)
    residual = 2 * config.model_dim
    dots, extra = dots + 2 * config.model_dim, extra + 2 * config.model_dim
    per_token = {
        "full": config.model_dim,
        "dots": config.model_dim + dots / model_ways,
        "none": residual + (dots + extra) / model_ways,
    }[config.remat_policy]
    kept = config.num_layers * tokens * per_token * itemsize
    if config.remat_policy == "none" and config.attention in ("auto", "xla"):
        kept += config.num_layers * rows * config.num_heads / model_ways * seq_len * seq_len * (itemsize + 1)
    logits = 2 * tokens * (config.padded_vocab_size / model_ways) * 4
    return int(kept), int(logits)


def estimate_memory(*, param_bytes: int, state_bytes: int, kept: int, logits: int) -> MemoryEstimate:
    """Bytes on one device: its share of parameters (``param_bytes``), of the whole state (``state_bytes``, parameters
    included), gradients, what the backward pass keeps of one microbatch, and logits."""
    smaller_rows = "raise grad_accum_steps, lower global_batch_size or data.seq_len, or add devices to mesh.data"
    terms = (
        MemoryTerm(
            "parameters", param_bytes, "raise mesh.fsdp, expert or model, or lower model.model_dim or num_layers"
        ),
        MemoryTerm("optimiser and EMA", state_bytes - param_bytes, "raise mesh.fsdp, or use optimizer.name=adafactor"),
        MemoryTerm("gradients", param_bytes, "raise mesh.fsdp or mesh.model"),
        MemoryTerm("activations", kept, f"set model.remat_policy=full; {smaller_rows}"),
        MemoryTerm("logits", logits, f"set loss_chunk, to 512 or so; {smaller_rows}; or raise mesh.model"),
    )
    return MemoryEstimate(tuple(sorted(terms, key=lambda term: -term.num_bytes)))
