"""The decoder: embeddings, a stack of blocks (scanned or written out over the same parameters), a norm and a head.

x = embed(tokens);  x += attn(norm(x));  x += mlp(norm(x));  logits = head(norm(x))
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.core.axes import free_axes
from jaxlm.core.dtypes import as_dtype
from jaxlm.core.errors import UserError
from jaxlm.core.types import Array, Params, Term
from jaxlm.losses.triton_tokens import HeadKernel, head_nll
from jaxlm.models.api import HiddenOutput, KVCache, Model
from jaxlm.models.decoder_block import block_norm
from jaxlm.models.decoder_cache import advance, init_cache
from jaxlm.models.decoder_config import DecoderConfig, resolve_kernels
from jaxlm.models.decoder_layers import DecoderLayers
from jaxlm.models.decoder_params import RULES, init_params
from jaxlm.models.vocabulary import look_up, score_symbols
from jaxlm.nn.dropout import dropout
from jaxlm.nn.kernels import uses_triton
from jaxlm.nn.latent_attention import MlaConfig
from jaxlm.nn.moe import MoeConfig
from jaxlm.nn.neftune import neftune
from jaxlm.nn.rope import RopeConfig
from jaxlm.sharding.activations import DEFAULT_LAYOUT, ActivationLayout
from jaxlm.sharding.pipeline import choose_schedule

__all__ = ["RULES", "DecoderConfig", "MlaConfig", "MoeConfig", "RopeConfig", "make_decoder", "resolve_kernels"]


def make_decoder(
    config: DecoderConfig, layout: ActivationLayout = DEFAULT_LAYOUT, *, neftune_alpha: float = 0.0
) -> Model:
    """A decoder as pure functions; ``layout`` is that of the mesh it will run on. ``neftune_alpha``: noise on the
    embeddings (`nn.neftune`) wherever there is a dropout key. Raises ValueError while ``vocab_size`` is None."""
    compute_dtype = as_dtype(config.compute_dtype)
    group, groups = len(config.window_pattern), config.num_groups
    layers, final_norm = DecoderLayers(config, layout), block_norm(config)
    coefs = layers.coefs

    def embed_tokens(
        params: Params, tokens_bt: Array, positions: Array, segment_ids: Array | None, dropout_key: Array | None
    ) -> Array:
        x_btd = look_up(params["embed"]["table"], tokens_bt, compute_dtype)
        if neftune_alpha and dropout_key is not None:
            segments_bt = jnp.ones_like(tokens_bt) if segment_ids is None else segment_ids
            noise_key = jax.random.fold_in(dropout_key, config.num_layers + 1)
            x_btd = neftune(x_btd, segments_bt, noise_key, alpha=neftune_alpha)
        if config.embed_scale:  # rounded to the compute dtype, as Gemma was trained
            x_btd = x_btd * jnp.asarray(math.sqrt(config.base_dim or config.model_dim), compute_dtype)
        if config.position == "learned":
            rows = params["embed"]["positions"].astype(compute_dtype)
            x_btd = x_btd + jnp.take(rows, positions, axis=0, mode="clip")
        if config.dropout > 0 and dropout_key is not None:
            x_btd = dropout(x_btd, config.dropout, jax.random.fold_in(dropout_key, config.num_layers))
        return layout.between(x_btd)

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
        offset = jnp.zeros((), jnp.int32) if kv_cache is None else kv_cache.length
        index = jnp.arange(t, dtype=jnp.int32) + offset if positions is None else positions  # [t] or [b, t]
        new_cache = None if kv_cache is None else advance(kv_cache, index, segment_ids, b, t)
        seen = layers.see((b, t), positions, segment_ids, new_cache, offset)
        x_btd = embed_tokens(params, tokens_bt, index, segment_ids, dropout_key)
        buffers = None if kv_cache is None else dict(kv_cache.layers)
        sums = layers.no_sums()
        if groups:
            schedule = choose_schedule(layout.pipeline, b, free_axes()) if kv_cache is None else None
            if schedule is not None:
                x_btd, sums = layers.run_in_stages(params["layers"], x_btd, positions, segment_ids, key, schedule)
            else:
                stored = None if buffers is None else buffers["layers"]
                x_btd, stored, sums = layers.run_groups(params["layers"], (x_btd, stored, sums), groups, 0, seen, key)
                if buffers is not None:
                    buffers["layers"] = stored
        for i in range(config.num_tail_layers):
            name = f"tail_{i}"
            cached = None if buffers is None else buffers[name]
            x_btd, stored, more = layers.run_one(params[name], x_btd, group * groups + i, i, cached, None, seen, key)
            sums = jax.tree.map(jnp.add, sums, more)
            if buffers is not None:
                buffers[name] = stored
        normed_btd: Any = final_norm.apply({"params": params.get("final_norm", {})}, x_btd)
        x_btd = layout.gathered(normed_btd)
        if new_cache is not None:
            new_cache = new_cache._replace(layers=buffers)
        if not coefs:
            return HiddenOutput(x_btd, new_cache)
        counted_bt = seen.counted_bt
        count = jnp.asarray(b * t, jnp.float32) if counted_bt is None else jnp.sum(counted_bt, dtype=jnp.float32)
        terms = {name: Term(sums[name] / config.num_layers, count, coef) for name, coef in coefs.items()}
        return HiddenOutput(x_btd, new_cache, terms)

    def head_inputs(params: Params, hidden_btd: Array) -> tuple[Array, Array]:
        if config.width is not None:
            hidden_btd = hidden_btd * jnp.asarray(1.0 / config.width, hidden_btd.dtype)
        return hidden_btd, params["embed"]["table"] if config.tie_embeddings else params["head"]["kernel"]

    def token_nll(params: Params, hidden_btd: Array, targets_bt: Array) -> tuple[Array, Array] | None:
        if config.logit_softcap is not None or not uses_triton(config.kernels):
            return None
        hidden_btd, weights = head_inputs(params, hidden_btd)
        out: Any = head_nll(
            hidden_btd.reshape(-1, hidden_btd.shape[-1]).astype(compute_dtype),
            (weights if config.tie_embeddings else weights.T).astype(compute_dtype),
            targets_bt.reshape(-1),
            HeadKernel(config.vocab_size, as_dtype(config.logits_dtype), config.kernels == "triton_interpret"),
        )
        nll_n, log_z_n = out
        return nll_n.reshape(targets_bt.shape), log_z_n.reshape(targets_bt.shape)

    def logits(params: Params, hidden_btd: Array) -> Array:
        """Unnormalised log-probabilities of the next token, f32 [..., v], for hidden states [..., d]."""
        hidden_btd, weights = head_inputs(params, hidden_btd)
        out = score_symbols(
            hidden_btd,
            weights,
            tied=config.tie_embeddings,
            vocab_size=config.vocab_size,
            dtype=compute_dtype,
            rounded_to=as_dtype(config.logits_dtype),
        )
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
        token_nll,
    )
