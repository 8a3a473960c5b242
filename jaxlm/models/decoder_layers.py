"""The decoder's layers: one after another over the whole batch, or in the stages of a pipeline."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.core.masks import attention_mask
from jaxlm.core.types import Array, Params, PyTree
from jaxlm.models.api import KVCache
from jaxlm.models.decoder_block import DecoderBlock, Sums
from jaxlm.models.decoder_cache import remember
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.decoder_params import RULES
from jaxlm.models.stack import rematerialised, stacked_specs, unstack
from jaxlm.nn.attention import attend, static_mask
from jaxlm.nn.context_attention import attend_rows
from jaxlm.nn.rope import RopeConfig, RopeTables, rope_tables
from jaxlm.sharding.activations import ActivationLayout
from jaxlm.sharding.pipeline import Schedule, run_pipeline

Carry = tuple[Array, PyTree, Sums]
"""(the stream [b, t, d], buffers of the cache or None, sums of the loss's terms so far)."""


class Seen(NamedTuple):
    """What the layers know of their rows beside the stream."""

    positions: Array | None
    segment_ids: Array | None
    masks: dict[int | None, Array | None]
    """Window -> who sees whom."""
    ropes: dict[RopeConfig, RopeTables]
    """The rotations that layers turn by, each made once; empty without rope."""
    counted_bt: Array | None
    """Tokens that sums are over; None = all."""
    offset: Array
    """The slot of a cache that the first token is written to."""


class DecoderLayers:
    """Functions of a config and a layout."""

    def __init__(self, config: DecoderConfig, layout: ActivationLayout):
        self.config, self.layout = config, layout
        self.block = DecoderBlock(config, layout)
        self.group = len(config.window_pattern)
        self.coefs = {} if config.moe is None else config.moe.coefs
        self.attend_uncached = functools.partial(
            attend_rows, implementation=config.attention, context_attention=layout.context_attention
        )

    def no_sums(self) -> Sums:
        """Sums over nothing."""
        return {name: jnp.zeros((), jnp.float32) for name in self.coefs}

    def see(
        self,
        shape: tuple[int, int],
        positions: Array | None,
        segment_ids: Array | None,
        cache: KVCache | None = None,
        offset: Array | None = None,
    ) -> Seen:
        """For rows of ``shape`` (b, t). ``cache``: with the slots of these tokens taken, from ``offset`` on."""
        t, config = shape[1], self.config
        offset = jnp.zeros((), jnp.int32) if offset is None else offset
        index = jnp.arange(t, dtype=jnp.int32) + offset if positions is None else positions  # [t] or [b, t]
        whole_rows = positions is None and segment_ids is None and cache is None
        rows_bt = None if whole_rows else jnp.broadcast_to(index, shape)
        masks: dict[int | None, Array | None] = {}
        for window in {config.window(i) for i in range(config.num_layers)}:
            if rows_bt is None:
                masks[window] = static_mask(t, causal=True, window=window)
            elif cache is None:
                masks[window] = attention_mask(rows_bt, rows_bt, segment_ids, segment_ids, window=window)
            else:
                q_segments = jnp.ones(shape, jnp.int32) if segment_ids is None else segment_ids
                masks[window] = attention_mask(
                    rows_bt, cache.positions_bs, q_segments, cache.segment_ids_bs, window=window
                )
        ropes = {}
        if config.position == "rope":
            turned = t if positions is None and cache is None else index
            forms = {config.rope.of_window(window) for window in config.window_pattern[: config.num_layers]}
            ropes = {form: rope_tables(turned, form, config.rope_width) for form in forms}
        counted_bt = None if segment_ids is None or not self.coefs else segment_ids != 0
        return Seen(positions, segment_ids, masks, ropes, counted_bt, offset)

    def run_one(
        self,
        params: Params,
        x_btd: Array,
        layer: int | Array,
        place: int,
        buffers: PyTree,
        row: int | Array | None,
        seen: Seen,
        key: Array | None,
    ) -> tuple[Array, PyTree, Sums]:
        """One block. ``place``: which window; ``layer``: number, for dropout; ``row``: where in stacked buffers."""
        config, window = self.config, self.config.window(place)

        def fn(params: Params, x_btd: Array, layer: int | Array, buffers: PyTree, row: int | Array | None) -> Any:
            attend_fn = functools.partial(
                attend if buffers is not None else self.attend_uncached,
                q_positions=seen.positions,
                q_segment_ids=seen.segment_ids,
                mask_bts=seen.masks[window],
                window=window,
                softcap=config.attn_softcap,
                scale=config.attn_scale,
            )
            remember_fn = None if buffers is None else lambda entries: remember(buffers, entries, row, seen.offset)
            rope = seen.ropes.get(config.rope.of_window(config.pattern_window(place)))
            layer_key = None if key is None else jax.random.fold_in(key, layer)
            applied: Any = self.block.apply(
                {"params": params}, x_btd, attend_fn, remember_fn, rope, layer_key, seen.counted_bt
            )
            x_btd, stored, sums = applied
            return self.layout.between(x_btd), stored, sums

        fn = rematerialised(fn, config.remat_policy, scan=config.scan_layers)
        return fn(params, x_btd, layer, buffers, row)

    def run_groups(
        self, stacked: Params, carry: Carry, count: int, first: int | Array, seen: Seen, key: Array | None
    ) -> Carry:
        """``count`` groups of layers, one for each window of the pattern, of which ``first`` is the number of the
        first; leaves of ``stacked`` [count, ...]."""

        def run_group(carry: Carry, xs: tuple[Params, int | Array]) -> tuple[Any, None]:
            (x_btd, buffers, sums), (params, i) = carry, xs
            stored = {}
            for j in range(self.group):
                name = f"layer_{j}"
                cached = None if buffers is None else buffers[name]
                x_btd, stored[name], more = self.run_one(
                    params.get(name, {}), x_btd, i * self.group + j, j, cached, i, seen, key
                )
                sums = jax.tree.map(jnp.add, sums, more)
            return (x_btd, None if buffers is None else stored, sums), None

        if self.config.scan_layers:
            numbers = jnp.arange(count, dtype=jnp.int32)
            numbers = numbers + first if isinstance(first, Array) else numbers
            return jax.lax.scan(run_group, carry, (stacked, numbers))[0]
        for i, params in enumerate(unstack(stacked, count)):
            carry, _ = run_group(carry, (params, first + i))
        return carry

    def run_in_stages(
        self,
        stacked: Params,
        x_btd: Array,
        positions: Array | None,
        segment_ids: Array | None,
        key: Array | None,
        schedule: Schedule,
    ) -> tuple[Array, Sums]:
        """All groups, split over the stages of the mesh. A key's masks then depend on the microbatch, too."""
        shape = x_btd.shape[:2]
        if positions is not None:
            positions = jnp.broadcast_to(positions, shape)

        def stage(params: Params, x_btd: Array, rows: PyTree, first: Array, draw: Array) -> tuple[Array, Sums]:
            b, t, _ = x_btd.shape
            seen = self.see((b, t), *rows)
            own_key = None if key is None else jax.random.fold_in(key, draw)
            count = jax.tree.leaves(params)[0].shape[0]
            x_btd = self.layout.between(x_btd)
            x_btd, _, sums = self.run_groups(params, (x_btd, None, self.no_sums()), count, first, seen, own_key)
            return x_btd, sums

        return run_pipeline(stage, stacked, stacked_specs(RULES, stacked), x_btd, (positions, segment_ids), schedule)
