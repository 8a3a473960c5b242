"""The decoder's KV cache: how it is made, and how new tokens are written into it."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.errors import UserError
from jaxlm.core.types import Array
from jaxlm.models.api import KVCache
from jaxlm.models.decoder_config import DecoderConfig


def init_cache(config: DecoderConfig, batch_size: int, capacity: int, dtype: Any = None) -> KVCache:
    """An empty cache of ``capacity`` slots for ``batch_size`` rows, in the compute dtype unless told."""
    dtype = as_dtype(config.compute_dtype) if dtype is None else jnp.dtype(dtype)

    def entries(*lead: int) -> dict[str, Array]:
        shapes = config.cache_shapes.items()
        kept = {
            name: jax.eval_shape(_fold, jax.ShapeDtypeStruct((batch_size, capacity, *s), dtype)) for name, s in shapes
        }
        return {name: jnp.zeros((*lead, *entry.shape), dtype) for name, entry in kept.items()}

    group, groups = len(config.window_pattern), config.num_groups
    layers: dict[str, Any] = {"layers": {f"layer_{j}": entries(groups) for j in range(group)}} if groups else {}
    layers |= {f"tail_{i}": entries() for i in range(config.num_tail_layers)}
    slots = jnp.zeros((batch_size, capacity), jnp.int32)
    return KVCache(layers, slots, slots, jnp.zeros((), jnp.int32))


def advance(cache: KVCache, index: Array, segment_ids: Array | None, b: int, t: int) -> KVCache:
    """The cache with the positions and segments of t new slots; their layers are still to be written."""
    if t > cache.capacity:
        raise UserError(f"{t} tokens exceed the cache's capacity of {cache.capacity}: make it larger or cut the prompt")
    start = (jnp.zeros((), jnp.int32), cache.length)
    segments = jnp.ones((b, t), jnp.int32) if segment_ids is None else segment_ids.astype(jnp.int32)
    rows = jnp.broadcast_to(index, (b, t)).astype(jnp.int32)
    return cache._replace(
        positions_bs=jax.lax.dynamic_update_slice(cache.positions_bs, rows, start),
        segment_ids_bs=jax.lax.dynamic_update_slice(cache.segment_ids_bs, segments, start),
        length=cache.length + t,
    )


def remember(
    buffers: dict[str, Array], entries: dict[str, Array], layer: int | Array | None, slot: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Write a layer's new entries [b, t, ...]; returns all of the layer's [b, s, ...], in their dtype, and the buffers.

    ``layer`` None: the buffers are this layer's own. Else they are stacked, and updated in place at
    [layer, ..., slot:slot + t, :] rather than cut up and stacked again.
    """
    zero = jnp.zeros((), jnp.int32)
    lead = () if layer is None else (jnp.asarray(layer, jnp.int32),)
    seen, stored = {}, {}
    for name, new in entries.items():
        buffer, update = buffers[name], _fold(new)
        start = (*lead, *(zero,) * (update.ndim - 2), slot, zero)
        update = update.astype(buffer.dtype)
        buffer = jax.lax.dynamic_update_slice(buffer, update[None] if lead else update, start)
        own = jax.lax.dynamic_index_in_dim(buffer, lead[0], 0, keepdims=False) if lead else buffer
        seen[name], stored[name] = _unfold(own, new).astype(new.dtype), buffer
    return seen, stored


def repeat_rows(cache: Any, times: int) -> Any:
    """Each row ``times`` over, side by side: prompts that were read once, for several answers to each. ``cache``: a
    `KVCache`, or a recurrent state, whose arrays are [b, ...]."""
    if times == 1:
        return cache
    if not isinstance(cache, KVCache):
        return jax.tree.map(lambda entry: jnp.repeat(entry, times, axis=0), cache)
    one_row = cache.positions_bs.shape[0] == 1

    def repeat(name: str, entry: Array, axis: int) -> Array:
        if one_row and name in ("k", "v"):  # `_fold` left their b out
            entry = jnp.expand_dims(entry, axis)
        return jnp.repeat(entry, times, axis=axis)

    def of_layer(layer: dict[str, Array], axis: int) -> dict[str, Array]:
        return {name: repeat(name, entry, axis) for name, entry in layer.items()}

    layers: dict[str, Any] = {name: of_layer(part, 0) for name, part in cache.layers.items() if name != "layers"}
    if "layers" in cache.layers:  # stacked: [l, b, ...]
        layers["layers"] = {name: of_layer(layer, 1) for name, layer in cache.layers["layers"].items()}
    return cache._replace(
        layers=layers,
        positions_bs=jnp.repeat(cache.positions_bs, times, axis=0),
        segment_ids_bs=jnp.repeat(cache.segment_ids_bs, times, axis=0),
    )


def _fold(x: Array) -> Array:
    """[b, t, k, h] as it is kept, [b, k, t, h]: heads stand before slots, as attention's products read them; the other
    way round each step would copy the whole cache. [b, t, width] stays.

    Of one row the axis b is left out: with it XLA:CPU copies the values four times at each step, as it updates them in
    one shape and reads them in another.
    """
    if x.ndim == 3:
        return x
    x = x.swapaxes(1, 2)
    return x[0] if x.shape[0] == 1 else x


def _unfold(kept: Array, new: Array) -> Array:
    """All entries of a layer, [b, s, k, h] or [b, s, width], for new ones [b, t, ...]."""
    if new.ndim == 3:
        return kept
    return (kept[None] if new.shape[0] == 1 else kept).swapaxes(1, 2)
