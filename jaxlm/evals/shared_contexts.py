"""Continuations of one context scored together: the context is read once into a KV cache, each continuation behind it.

Of a question with four choices behind five examples nearly all of the work is the prompt: read once in place of four
times. The head, too, sees the continuations' positions alone. Only decoders: their caches can be copied row by row.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jaxlm.core.types import Array, Batch, Params
from jaxlm.evals.perplexity import target_logprobs
from jaxlm.generate.decode import bucket_length, left_pad
from jaxlm.models.api import Model
from jaxlm.models.decoder_cache import repeat_rows

LEAST_CONTEXT = 16
"""Tokens of a context from which on it is worth a program of its own."""

HostBatch = dict[str, np.ndarray]
SharedFn = Callable[[HostBatch, HostBatch], np.ndarray]
"""``(contexts [b, t], continuations [b * m, s]) -> f32 [b * m, s, 2]``: log-probabilities of ``targets``, and 1 where
the target is the first choice."""


def score_behind(model: Model, params: Params, contexts: Batch, continuations: Batch) -> Array:
    """A `SharedFn` of a decoder: as many continuations behind each context, side by side.

    Both batches have ``tokens``, ``segment_ids`` (0 = padding) and ``positions``, contexts padded on the left and
    continuations, with ``targets``, on the right.
    """
    (b, t), (n, s) = contexts["tokens"].shape, continuations["tokens"].shape
    cache = model.init_cache(b, t + s)
    read = model.hidden(
        params,
        contexts["tokens"],
        positions=contexts["positions"],
        segment_ids=contexts["segment_ids"],
        kv_cache=cache,
    )
    assert read.kv_cache is not None
    state = repeat_rows(read.kv_cache, n // b)
    logprobs_ns, first_ns = target_logprobs(model, params, continuations, state=state)
    return jnp.stack([logprobs_ns, first_ns.astype(jnp.float32)], axis=-1)


def score_shared(
    shared_fn: SharedFn,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    *,
    context: int,
    slots_per_batch: int = 8192,
    predictions_per_batch: int = 1 << 14,
) -> list[list[np.ndarray]]:
    """For each context its continuations' f32 [t, 2] (`SharedFn`). Contexts and continuations hold at least one token,
    and fit into ``context`` tokens together.

    Rows of one shape go together: contexts of one length bucket, with as many continuations, whose longest is of one
    bucket. A batch holds at most so many cache slots and predictions, or one context.
    """
    found: list[list[np.ndarray]] = [[] for _ in contexts]
    shapes: dict[tuple[int, int, int], list[int]] = {}
    for i, (ids, each) in enumerate(zip(contexts, continuations, strict=True)):
        # The last token of the context is read with the continuation: what follows it is the first prediction.
        widths = bucket_length(len(ids) - 1), bucket_length(max(map(len, each)), smallest=4)
        shape = (min(context, widths[0]), min(context, widths[1]), len(each))
        shapes.setdefault(shape, []).append(i)
    for (width, length, count), places in sorted(shapes.items(), reverse=True):
        slots, predictions = count * (width + length), count * length
        most = max(1, min(slots_per_batch // slots, predictions_per_batch // predictions))
        for first in range(0, len(places), most):
            rows = places[first : first + most]
            # Few shapes: a short last batch is padded to a power of two with its first context.
            padded = rows + rows[:1] * (min(most, 1 << (len(rows) - 1).bit_length()) - len(rows))
            scores = shared_fn(
                _contexts([contexts[i] for i in padded], width),
                _continuations([contexts[i] for i in padded], [continuations[i] for i in padded], length),
            )
            for row, i in enumerate(rows):
                found[i] = [scores[row * count + j, : len(ids)] for j, ids in enumerate(continuations[i])]
    return found


def _contexts(contexts: Sequence[Sequence[int]], width: int) -> HostBatch:
    tokens, segment_ids, positions = left_pad([ids[:-1] for ids in contexts], 0, length=width)
    return {"tokens": tokens, "segment_ids": segment_ids, "positions": positions}


def _continuations(
    contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]], length: int
) -> HostBatch:
    flat = [(ids, one) for ids, each in zip(contexts, continuations, strict=True) for one in each]
    names = ("tokens", "targets", "segment_ids", "positions")
    batch: HostBatch = {name: np.zeros((len(flat), length), np.int32) for name in names}
    for row, (ids, one) in enumerate(flat):
        count = len(one)
        batch["tokens"][row, :count] = [ids[-1], *one[:-1]]
        batch["targets"][row, :count] = one
        batch["segment_ids"][row, :count] = 1
        batch["positions"][row, :count] = np.arange(len(ids) - 1, len(ids) - 1 + count)
    return batch
