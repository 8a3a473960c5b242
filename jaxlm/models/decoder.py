"""The decoder: embeddings, a stack of blocks (scanned or written out over the same parameters), a norm and a head.

x = embed(tokens);  x += attn(norm(x));  x += mlp(norm(x));  logits = head(norm(x))
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.errors import UserError
from jaxlm.core.masks import attention_mask
from jaxlm.core.types import Array, Params, PyTree
from jaxlm.models.api import KVCache, Model, Rules
from jaxlm.models.decoder_block import DecoderBlock, block_norm
from jaxlm.models.decoder_config import DecoderConfig, resolve_attention
from jaxlm.nn.attention import attend, static_mask
from jaxlm.nn.dropout import dropout
from jaxlm.nn.linear import matmul, normal_init
from jaxlm.nn.rope import RopeConfig, rope_tables
from jaxlm.sharding.constrain import constrain

__all__ = ["RULES", "DecoderConfig", "RopeConfig", "make_decoder", "resolve_attention"]

RULES: Rules = (
    (r"^embed/table$", P("model", "fsdp")),
    (r"^embed/positions$", P(None, "fsdp")),
    (r"/attn/(q|k|v)/kernel$", P("fsdp", "model")),
    (r"/attn/(q|k|v)/bias$", P("model")),
    (r"/attn/(q_norm|k_norm)/scale$", P()),
    (r"/attn/o/kernel$", P("model", "fsdp")),
    (r"/attn/o/bias$", P()),
    (r"/mlp/(gate|up)/kernel$", P("fsdp", "model")),
    (r"/mlp/(gate|up)/bias$", P("model")),
    (r"/mlp/down/kernel$", P("model", "fsdp")),
    (r"/mlp/down/bias$", P()),
    (r"/(attn_norm|mlp_norm)/(scale|bias)$", P()),
    (r"^final_norm/(scale|bias)$", P()),
    (r"^head/kernel$", P("fsdp", "model")),
)
"""How each parameter lies on the mesh (its trailing dimensions; a leading axis of stacked layers stays whole)."""

HIDDEN_SPEC = P(("data", "fsdp"), None, None)


def _unstack(tree: PyTree, count: int) -> list[PyTree]:
    """[l, ...] leaves -> l trees. ``lax.split``, as its gradient is one concatenation and not l padded sums."""
    leaves, treedef = jax.tree.flatten(tree)
    parts = [[jnp.squeeze(part, 0) for part in jax.lax.split(leaf, [1] * count, axis=0)] for leaf in leaves]
    return [jax.tree.unflatten(treedef, [part[i] for part in parts]) for i in range(count)]


def _write(buffer: Array, new_btkh: Array, layer: int | Array | None, slot: Array) -> tuple[Array, Array]:
    """Write new keys (or values) into a cache buffer; returns it and this layer's whole [b, s, k, h].

    The stacked buffer is updated in place at [layer, :, slot:slot + t], rather than cut up and stacked again.
    """
    new = new_btkh.astype(buffer.dtype)
    zero = jnp.zeros((), jnp.int32)
    if layer is None:
        buffer = jax.lax.dynamic_update_slice(buffer, new, (zero, slot, zero, zero))
        return buffer, buffer
    layer = jnp.asarray(layer, jnp.int32)
    buffer = jax.lax.dynamic_update_slice(buffer, new[None], (layer, zero, slot, zero, zero))
    return buffer, jax.lax.dynamic_index_in_dim(buffer, layer, 0, keepdims=False)


def make_decoder(config: DecoderConfig) -> Model:
    """A decoder as pure functions. Raises ValueError while ``vocab_size`` is None."""
    padded_vocab_size = config.padded_vocab_size
    compute_dtype, param_dtype = as_dtype(config.compute_dtype), as_dtype(config.param_dtype)
    group, groups = len(config.window_pattern), config.num_groups
    block = DecoderBlock(config)
    final_norm = block_norm(config)

    def init_block(key: Array) -> Params:
        x = jnp.zeros((1, 1, config.model_dim), compute_dtype)
        rope = rope_tables(1, config.rope, config.head_width) if config.position == "rope" else None
        return dict(block.init(key, x, lambda q, k, v: (q, None), rope, None)["params"])

    def init(key: Array) -> Params:
        """Fresh parameters; a layer's depend on the key and its number alone."""
        embed_key, position_key, head_key, layers_key = jax.random.split(key, 4)
        std = 1.0 / math.sqrt(config.model_dim) if config.init_std is None else config.init_std
        shape = (padded_vocab_size, config.model_dim)
        embed = {"table": normal_init(std)(embed_key, shape, param_dtype)}
        if config.position == "learned":
            shape = (config.max_seq_len, config.model_dim)
            embed["positions"] = normal_init(std)(position_key, shape, param_dtype)
        params: Params = {"embed": embed}
        layer_keys = jax.vmap(lambda i: jax.random.fold_in(layers_key, i))(jnp.arange(config.num_layers))
        if groups:
            stacked = {f"layer_{j}": jax.vmap(init_block)(layer_keys[j : group * groups : group]) for j in range(group)}
            params["layers"] = stacked
        for i in range(config.num_tail_layers):
            params[f"tail_{i}"] = init_block(layer_keys[group * groups + i])
        norm_params = final_norm.init(key, jnp.zeros((1, config.model_dim), compute_dtype)).get("params", {})
        if norm_params:
            params["final_norm"] = norm_params
        if not config.tie_embeddings:
            head_std = 0.0 if config.zero_init_head else std
            shape = (config.model_dim, padded_vocab_size)
            params["head"] = {"kernel": normal_init(head_std)(head_key, shape, param_dtype)}
        return params

    def embed_tokens(params: Params, tokens_bt: Array, positions: Array, key: Array | None) -> Array:
        # fsdp gathers the rows' width; the vocabulary stays split over model, so no device holds the whole table.
        table = constrain(params["embed"]["table"].astype(compute_dtype), P("model", None))
        x_btd = jnp.take(table, tokens_bt, axis=0, mode="clip")
        if config.embed_scale:
            x_btd = x_btd * math.sqrt(config.model_dim)
        if config.position == "learned":
            rows = params["embed"]["positions"].astype(compute_dtype)
            x_btd = x_btd + jnp.take(rows, positions, axis=0, mode="clip")
        if key is not None:
            x_btd = dropout(x_btd, config.dropout, jax.random.fold_in(key, config.num_layers))
        return constrain(x_btd, HIDDEN_SPEC)

    def hidden(
        params: Params,
        tokens_bt: Array,
        *,
        positions: Array | None = None,
        segment_ids: Array | None = None,
        kv_cache: KVCache | None = None,
        dropout_key: Array | None = None,
    ) -> tuple[Array, KVCache | None]:
        """Hidden states after the final norm, [b, t, d] in the compute dtype. See ``models.api.HiddenFn``."""
        b, t = tokens_bt.shape
        if t > config.max_seq_len and config.position == "learned":
            raise UserError(f"{t} tokens exceed model.max_seq_len={config.max_seq_len} learned positions: cut the text")
        key = dropout_key if config.dropout > 0 else None
        whole_rows = positions is None and segment_ids is None and kv_cache is None
        offset = jnp.zeros((), jnp.int32) if kv_cache is None else kv_cache.length
        index = jnp.arange(t, dtype=jnp.int32) + offset if positions is None else positions  # [t] or [b, t]
        new_cache = None if kv_cache is None else _advance(kv_cache, index, segment_ids, b, t)

        masks: dict[int | None, Array | None] = {}
        for window in {config.window(i) for i in range(config.num_layers)}:
            if whole_rows:
                masks[window] = static_mask(t, causal=True, window=window)
            elif new_cache is None:
                rows = jnp.broadcast_to(index, (b, t))
                masks[window] = attention_mask(rows, rows, segment_ids, segment_ids, window=window)
            else:
                rows = jnp.broadcast_to(index, (b, t))
                q_segments = jnp.ones((b, t), jnp.int32) if segment_ids is None else segment_ids
                masks[window] = attention_mask(
                    rows, new_cache.positions_bs, q_segments, new_cache.segment_ids_bs, window=window
                )
        static = positions is None and kv_cache is None
        rope = (
            rope_tables(t if static else index, config.rope, config.head_width) if config.position == "rope" else None
        )

        def run_block(
            layer_params: Params, x_btd: Array, layer: int | Array, place: int, buffers: PyTree, row: int | Array | None
        ) -> tuple[Array, PyTree]:
            """One block. ``place``: which window; ``layer``: number, for dropout; ``row``: where in stacked buffers."""
            window = config.window(place)

            def attend_fn(q: Array, k: Array, v: Array) -> tuple[Array, PyTree]:
                stored, implementation = None, config.attention
                if buffers is not None:
                    k_buffer, k = _write(buffers["k"], k, row, offset)
                    v_buffer, v = _write(buffers["v"], v, row, offset)
                    k, v = k.astype(q.dtype), v.astype(q.dtype)
                    stored, implementation = {"k": k_buffer, "v": v_buffer}, "xla"
                out = attend(
                    q,
                    k,
                    v,
                    q_positions=positions,
                    q_segment_ids=segment_ids,
                    mask_bts=masks[window],
                    window=window,
                    softcap=config.attn_softcap,
                    implementation=implementation,
                )
                return out, stored

            layer_key = None if key is None else jax.random.fold_in(key, layer)
            x_btd, stored = block.apply({"params": layer_params}, x_btd, attend_fn, rope, layer_key)
            return constrain(x_btd, HIDDEN_SPEC), stored

        def checkpointed(*args: Any) -> tuple[Array, PyTree]:
            layer_params, x_btd, layer, place, buffers, row = args
            if config.remat_policy == "none":
                return run_block(*args)
            policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if config.remat_policy == "dots" else None
            # Inside scan nothing can be merged with the forward pass, so the barrier against it is not needed.
            fn = jax.checkpoint(
                lambda p, x, i, c, r: run_block(p, x, i, place, c, r),
                policy=policy,
                prevent_cse=not config.scan_layers,
            )
            return fn(layer_params, x_btd, layer, buffers, row)

        def run_group(carry: tuple[Array, PyTree], xs: tuple[Params, int | Array]) -> tuple[tuple[Array, PyTree], None]:
            x_btd, buffers = carry
            group_params, i = xs
            stored = {}
            for j in range(group):
                name = f"layer_{j}"
                cached = None if buffers is None else buffers[name]
                x_btd, stored[name] = checkpointed(group_params.get(name, {}), x_btd, i * group + j, j, cached, i)
            return (x_btd, None if buffers is None else stored), None

        x_btd = embed_tokens(params, tokens_bt, index, key)
        layers = None if kv_cache is None else dict(kv_cache.layers)
        if groups:
            carry = (x_btd, None if layers is None else layers["layers"])
            if config.scan_layers:
                carry, _ = jax.lax.scan(run_group, carry, (params["layers"], jnp.arange(groups, dtype=jnp.int32)))
            else:
                for i, group_params in enumerate(_unstack(params["layers"], groups)):
                    carry, _ = run_group(carry, (group_params, i))
            x_btd = carry[0]
            if layers is not None:
                layers["layers"] = carry[1]
        for i in range(config.num_tail_layers):
            name = f"tail_{i}"
            cached = None if layers is None else layers[name]
            x_btd, stored = checkpointed(params[name], x_btd, group * groups + i, i, cached, None)
            if layers is not None:
                layers[name] = stored
        x_btd: Any = final_norm.apply({"params": params.get("final_norm", {})}, x_btd)
        if new_cache is not None:
            new_cache = new_cache._replace(layers=layers)
        return x_btd, new_cache

    def logits(params: Params, hidden_btd: Array) -> Array:
        """Unnormalised log-probabilities of the next token, f32 [..., v], for hidden states [..., d]."""
        x = hidden_btd.astype(compute_dtype)
        if config.tie_embeddings:
            out = matmul(x, params["embed"]["table"].astype(compute_dtype), transpose=True, out_dtype=jnp.float32)
        else:
            out = matmul(x, params["head"]["kernel"].astype(compute_dtype), out_dtype=jnp.float32)
        if padded_vocab_size != config.vocab_size:
            out = out[..., : config.vocab_size]
        if config.logit_softcap is not None:
            out = config.logit_softcap * jnp.tanh(out / config.logit_softcap)
        return out

    def init_cache(batch_size: int, capacity: int, dtype: Any = None) -> KVCache:
        """An empty cache of ``capacity`` slots for ``batch_size`` rows."""
        dtype = compute_dtype if dtype is None else jnp.dtype(dtype)
        shape = (batch_size, capacity, config.kv_heads, config.head_width)

        def pair(*lead: int) -> dict[str, Array]:
            return {"k": jnp.zeros((*lead, *shape), dtype), "v": jnp.zeros((*lead, *shape), dtype)}

        layers: dict[str, Any] = {"layers": {f"layer_{j}": pair(groups) for j in range(group)}} if groups else {}
        layers |= {f"tail_{i}": pair() for i in range(config.num_tail_layers)}
        slots = jnp.zeros((batch_size, capacity), jnp.int32)
        return KVCache(layers, slots, slots, jnp.zeros((), jnp.int32))

    return Model(config, init, hidden, logits, init_cache, RULES)


def _advance(cache: KVCache, index: Array, segment_ids: Array | None, b: int, t: int) -> KVCache:
    """The cache with the positions and segments of t new slots."""
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
