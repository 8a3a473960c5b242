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


def activation_bytes(config: DecoderConfig, *, rows: int, seq_len: int, model_ways: int = 1) -> tuple[int, int]:
    """(kept between forward and backward, logits) in bytes, for one device's rows of one microbatch.

    Kept for each layer: with full remat its input alone; with ``dots`` its matmul outputs; with none these, what norms
    and activations save, and the attention weights (the xla form keeps them; cuDNN and splash do not).
    The logits are held twice in f32: themselves and their gradient.
    """
    itemsize = as_dtype(config.compute_dtype).itemsize
    tokens = rows * seq_len
    heads = config.num_heads * config.head_width
    kv_heads = config.kv_heads * config.head_width
    gated = 2 if config.mlp in ("swiglu", "geglu") else 1
    residual = 2 * config.model_dim
    dots = heads + 2 * kv_heads + config.model_dim + gated * config.mlp_width + config.model_dim
    extra = heads + config.mlp_width * (1 + gated) + 2 * config.model_dim
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
        MemoryTerm("parameters", param_bytes, "raise mesh.fsdp or mesh.model, or lower model.model_dim or num_layers"),
        MemoryTerm("optimiser and EMA", state_bytes - param_bytes, "raise mesh.fsdp, or use optimizer.name=adafactor"),
        MemoryTerm("gradients", param_bytes, "raise mesh.fsdp or mesh.model"),
        MemoryTerm("activations", kept, f"set model.remat_policy=full; {smaller_rows}"),
        MemoryTerm("logits", logits, f"{smaller_rows}; or raise mesh.model"),
    )
    return MemoryEstimate(tuple(sorted(terms, key=lambda term: -term.num_bytes)))
