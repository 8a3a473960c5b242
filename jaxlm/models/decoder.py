"""The decoder: embeddings, a stack of blocks (scanned or written out over the same parameters), a norm and a head.

x = embed(tokens);  x += attn(norm(x));  x += mlp(norm(x));  logits = head(norm(x))
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.errors import UserError
from jaxlm.core.masks import attention_mask
from jaxlm.core.types import Array, Params, PyTree, Term
from jaxlm.models.api import HiddenOutput, KVCache, Model
from jaxlm.models.decoder_block import DecoderBlock, Sums, block_norm
from jaxlm.models.decoder_cache import advance, init_cache, remember
from jaxlm.models.decoder_config import DecoderConfig, resolve_attention
from jaxlm.models.decoder_params import RULES, init_params
from jaxlm.models.stack import rematerialised, unstack
from jaxlm.models.vocabulary import look_up, score_symbols
from jaxlm.nn.attention import attend, static_mask
from jaxlm.nn.context_attention import attend_rows
from jaxlm.nn.dropout import dropout
from jaxlm.nn.latent_attention import MlaConfig
from jaxlm.nn.moe import MoeConfig
from jaxlm.nn.rope import RopeConfig, RopeTables, rope_tables
from jaxlm.sharding.activations import DEFAULT_LAYOUT, ActivationLayout

__all__ = ["RULES", "DecoderConfig", "MlaConfig", "MoeConfig", "RopeConfig", "make_decoder", "resolve_attention"]


def make_decoder(config: DecoderConfig, layout: ActivationLayout = DEFAULT_LAYOUT) -> Model:
    """A decoder as pure functions; ``layout`` is that of the mesh it will run on. Raises ValueError while
    ``vocab_size`` is None."""
    compute_dtype = as_dtype(config.compute_dtype)
    group, groups = len(config.window_pattern), config.num_groups
    block = DecoderBlock(config, layout)
    final_norm = block_norm(config)
    coefs = {} if config.moe is None else config.moe.coefs
    attend_uncached = functools.partial(
        attend_rows, implementation=config.attention, context_attention=layout.context_attention
    )

    def embed_tokens(params: Params, tokens_bt: Array, positions: Array, key: Array | None) -> Array:
        x_btd = look_up(params["embed"]["table"], tokens_bt, compute_dtype)
        if config.embed_scale:  # rounded to the compute dtype, as Gemma was trained
            x_btd = x_btd * jnp.asarray(math.sqrt(config.base_dim or config.model_dim), compute_dtype)
        if config.position == "learned":
            rows = params["embed"]["positions"].astype(compute_dtype)
            x_btd = x_btd + jnp.take(rows, positions, axis=0, mode="clip")
        if key is not None:
            x_btd = dropout(x_btd, config.dropout, jax.random.fold_in(key, config.num_layers))
        return layout.between(x_btd)

    def make_masks(
        t: int, rows_bt: Array | None, segment_ids: Array | None, cache: KVCache | None
    ) -> dict[int | None, Array | None]:
        """Window -> mask. ``rows_bt``: positions of the queries; None = whole rows of one segment."""
        masks: dict[int | None, Array | None] = {}
        for window in {config.window(i) for i in range(config.num_layers)}:
            if rows_bt is None:
                masks[window] = static_mask(t, causal=True, window=window)
            elif cache is None:
                masks[window] = attention_mask(rows_bt, rows_bt, segment_ids, segment_ids, window=window)
            else:
                q_segments = jnp.ones(rows_bt.shape, jnp.int32) if segment_ids is None else segment_ids
                masks[window] = attention_mask(
                    rows_bt, cache.positions_bs, q_segments, cache.segment_ids_bs, window=window
                )
        return masks

    def make_ropes(positions: Array | int) -> dict[RopeConfig, RopeTables]:
        """The rotations that layers turn by, each made once; empty without rope."""
        if config.position != "rope":
            return {}
        forms = {config.rope.of_window(window) for window in config.window_pattern[: config.num_layers]}
        return {form: rope_tables(positions, form, config.rope_width) for form in forms}

    def hidden(
        params: Params,
        tokens_bt: Array,
        *,
        positions: Array | None = None,
        segment_ids: Array | None = None,
        kv_cache: KVCache | None = None,
        dropout_key: Array | None = None,
    ) -> HiddenOutput:
        """Hidden states after the final norm. See ``models.api.HiddenFn``."""
        b, t = tokens_bt.shape
        if t > config.max_seq_len and config.position == "learned":
            raise UserError(f"{t} tokens exceed model.max_seq_len={config.max_seq_len} learned positions: cut the text")
        key = dropout_key if config.dropout > 0 else None
        whole_rows = positions is None and segment_ids is None and kv_cache is None
        offset = jnp.zeros((), jnp.int32) if kv_cache is None else kv_cache.length
        index = jnp.arange(t, dtype=jnp.int32) + offset if positions is None else positions  # [t] or [b, t]
        new_cache = None if kv_cache is None else advance(kv_cache, index, segment_ids, b, t)
        masks = make_masks(t, None if whole_rows else jnp.broadcast_to(index, (b, t)), segment_ids, new_cache)
        ropes = make_ropes(t if positions is None and kv_cache is None else index)
        counted_bt = None if segment_ids is None or not coefs else segment_ids != 0

        def run_block(
            layer_params: Params, x_btd: Array, layer: int | Array, place: int, buffers: PyTree, row: int | Array | None
        ) -> tuple[Array, PyTree, Sums]:
            """One block. ``place``: which window; ``layer``: number, for dropout; ``row``: where in stacked buffers."""
            window = config.window(place)
            attend_fn = functools.partial(
                attend if buffers is not None else attend_uncached,
                q_positions=positions,
                q_segment_ids=segment_ids,
                mask_bts=masks[window],
                window=window,
                softcap=config.attn_softcap,
                scale=config.attn_scale,
            )
            remember_fn = None if buffers is None else lambda entries: remember(buffers, entries, row, offset)
            rope = ropes.get(config.rope.of_window(config.pattern_window(place)))
            layer_key = None if key is None else jax.random.fold_in(key, layer)
            applied: Any = block.apply(
                {"params": layer_params}, x_btd, attend_fn, remember_fn, rope, layer_key, counted_bt
            )
            x_btd, stored, sums = applied
            return layout.between(x_btd), stored, sums

        def checkpointed(*args: Any) -> tuple[Array, PyTree, Sums]:
            layer_params, x_btd, layer, place, buffers, row = args

            def fn(params: Params, x_btd: Array, layer: int | Array, buffers: PyTree, row: int | Array | None) -> Any:
                return run_block(params, x_btd, layer, place, buffers, row)

            fn = rematerialised(fn, config.remat_policy, scan=config.scan_layers)
            return fn(layer_params, x_btd, layer, buffers, row)

        def run_group(carry: tuple[Array, PyTree, Sums], xs: tuple[Params, int | Array]) -> tuple[Any, None]:
            x_btd, buffers, sums = carry
            group_params, i = xs
            stored = {}
            for j in range(group):
                name = f"layer_{j}"
                cached = None if buffers is None else buffers[name]
                x_btd, stored[name], more = checkpointed(group_params.get(name, {}), x_btd, i * group + j, j, cached, i)
                sums = jax.tree.map(jnp.add, sums, more)
            return (x_btd, None if buffers is None else stored, sums), None

        x_btd = embed_tokens(params, tokens_bt, index, key)
        layers = None if kv_cache is None else dict(kv_cache.layers)
        sums: Sums = {name: jnp.zeros((), jnp.float32) for name in coefs}
        if groups:
            carry = (x_btd, None if layers is None else layers["layers"], sums)
            if config.scan_layers:
                carry, _ = jax.lax.scan(run_group, carry, (params["layers"], jnp.arange(groups, dtype=jnp.int32)))
            else:
                for i, group_params in enumerate(unstack(params["layers"], groups)):
                    carry, _ = run_group(carry, (group_params, i))
            x_btd, sums = carry[0], carry[2]
            if layers is not None:
                layers["layers"] = carry[1]
        for i in range(config.num_tail_layers):
            name = f"tail_{i}"
            cached = None if layers is None else layers[name]
            x_btd, stored, more = checkpointed(params[name], x_btd, group * groups + i, i, cached, None)
            sums = jax.tree.map(jnp.add, sums, more)
            if layers is not None:
                layers[name] = stored
        normed_btd: Any = final_norm.apply({"params": params.get("final_norm", {})}, x_btd)
        x_btd = layout.gathered(normed_btd)
        if new_cache is not None:
            new_cache = new_cache._replace(layers=layers)
        if not coefs:
            return HiddenOutput(x_btd, new_cache)
        count = jnp.asarray(b * t, jnp.float32) if counted_bt is None else jnp.sum(counted_bt, dtype=jnp.float32)
        terms = {name: Term(sums[name] / config.num_layers, count, coef) for name, coef in coefs.items()}
        return HiddenOutput(x_btd, new_cache, terms)

    def logits(params: Params, hidden_btd: Array) -> Array:
        """Unnormalised log-probabilities of the next token, f32 [..., v], for hidden states [..., d]."""
        tied = config.tie_embeddings
        if config.width is not None:
            hidden_btd = hidden_btd * jnp.asarray(1.0 / config.width, hidden_btd.dtype)
        weights = params["embed"]["table"] if tied else params["head"]["kernel"]
        out = score_symbols(hidden_btd, weights, tied=tied, vocab_size=config.vocab_size, dtype=compute_dtype)
        if config.logit_softcap is not None:
            out = config.logit_softcap * jnp.tanh(out / config.logit_softcap)
        return out

    return Model(
        config,
        functools.partial(init_params, config),
        hidden,
        logits,
        functools.partial(init_cache, config),
        RULES,
        tuple(coefs),
    )
