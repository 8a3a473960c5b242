"""Array and batch types, and the dimension key.

A suffix of a name is its shape, one letter a dimension, and the einsum over it reads the same letters::

    b batch           t query position   s key position   d model width   f MLP width
    n query heads     k KV heads         g queries per KV head            h head width
    v vocabulary      l layers           e experts
"""

from typing import Any, NamedTuple

import jax

STAGE_AXIS = "stage"
"""The mesh axis over which layers are split; outside of the layers, rows are."""

BATCH_AXES = (STAGE_AXIS, "data", "fsdp", "expert")
"""The mesh axes over which the rows of a batch are split, in this order."""

CONTEXT_AXIS = "context"
"""The mesh axis over which the positions of each row are split."""

STATE_AXES = ("fsdp", CONTEXT_AXIS)
"""The mesh axes over which parameters and optimiser state are split and gathered where they are used. Devices along
them work on other tokens, be it of other rows or of other positions."""

Array = jax.Array
PyTree = Any
Params = dict[str, Any]
Batch = dict[str, Array]
"""A training batch. Keys (all shaped [b, t]): ``tokens``, ``targets``, ``loss_mask`` (1 = counted), and, where rows
hold several documents, ``segment_ids`` (1-based, 0 = padding) and ``positions`` (restarting at 0 in each segment)."""


class Term(NamedTuple):
    """One term of a loss, as a sum and what it is summed over; divided once, by the global count."""

    total: Array
    """Summed over the batch, nats unless said otherwise."""
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]  (tuple.count is never wanted here)
    """What it is summed over: tokens, sequences, pairs."""
    weight: float = 1.0


Terms = dict[str, Term]
