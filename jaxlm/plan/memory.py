"""Bytes that one device must hold to train: the state exactly, the rest by `plan.activations`."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxlm.core.types import PyTree
from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.activations import StepBytes

HEADROOM = 0.9
"""Of a device's memory, how much a run is planned to fill: the memory model errs by up to a tenth."""


class MemoryTerm(NamedTuple):
    """One row of the estimate."""

    name: str
    num_bytes: int
    lower: str
    """What to change in the config to make it smaller."""


class MemoryEstimate(NamedTuple):
    """Bytes a device at the peak, largest term first."""

    terms: tuple[MemoryTerm, ...]

    @property
    def total(self) -> int:
        """The most that is held at once."""
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


def kv_cache_bytes_per_token(config: DecoderConfig, itemsize: int = 2) -> int:
    """Bytes of the KV cache for one token of one row, over all layers. Layers with a window keep every token too."""
    return config.num_layers * sum(math.prod(shape) for shape in config.cache_shapes.values()) * itemsize


def estimate_memory(
    *, param_bytes: int, state_bytes: int, step: StepBytes, accumulates: bool = False
) -> MemoryEstimate:
    """Bytes on one device: its share of parameters (``param_bytes``, also those of their gradients), of the whole
    state (``state_bytes``, parameters included), and what a microbatch holds when it holds most: while the loss is
    worked out, or while one layer's backward pass works. ``accumulates``: gradients of several
    microbatches are summed, in arrays of their own."""
    smaller_rows = "raise grad_accum_steps, lower global_batch_size or data.seq_len, or add devices to mesh.data"
    always = (
        MemoryTerm(
            "parameters", param_bytes, "raise mesh.fsdp, expert or model, or lower model.model_dim or num_layers"
        ),
        MemoryTerm("optimiser and EMA", state_bytes - param_bytes, "raise mesh.fsdp, or use optimizer.name=adafactor"),
        MemoryTerm("gradient sums", param_bytes if accumulates else 0, "raise mesh.fsdp or mesh.model"),
        MemoryTerm("activations", step.kept, f"set model.remat_policy=full; {smaller_rows}"),
        MemoryTerm("a stage's layers", step.stage, "raise mesh.stage, mesh.model or mesh.expert"),
    )
    backward = (
        MemoryTerm("gradients", param_bytes, "raise mesh.fsdp or mesh.model"),
        MemoryTerm("a layer at work", step.layer, f"{smaller_rows}; or raise mesh.model"),
        MemoryTerm(
            "a stage at work", step.stage_kept, f"set model.remat_policy=full; {smaller_rows}; or raise mesh.stage"
        ),
        MemoryTerm("gathered weights", step.weights, "raise mesh.model or mesh.expert"),
    )
    loss = (MemoryTerm("logits", step.logits, f"set loss_chunk, to 512 or so; {smaller_rows}; or raise mesh.model"),)
    held = always + max(backward, loss, key=lambda terms: sum(term.num_bytes for term in terms))
    return MemoryEstimate(tuple(sorted((term for term in held if term.num_bytes), key=lambda term: -term.num_bytes)))
