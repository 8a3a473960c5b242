"""What goes on inside a Transformer on a batch: seen from outside, so that the model's own code knows nothing of it.

The forward pass is traced once more, its layers written out, while an interceptor takes down what modules are given and
give. The plain step is another program and stays as it is.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.core.masks import attention_mask
from jaxlm.core.types import Array, Batch, Params
from jaxlm.models.decoder_block import DecoderBlock
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.encoder import EncoderBlock
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.families import ModelConfig, make_model
from jaxlm.nn.latent_attention import LatentAttention
from jaxlm.nn.linear import Linear
from jaxlm.nn.mlp import MLP
from jaxlm.nn.moe import MoE
from jaxlm.nn.self_attention import SelfAttention

OBSERVED = ("decoder", "encoder")
"""Families that have layers of attention and MLP to look into."""

DEAD_BELOW = 1e-3
"""A unit of an MLP is dead on a batch where no token takes it above this share of its layer's RMS."""

_CHUNK = 128
"""Queries whose scores, and positions whose logits, exist at once."""


class Recording(NamedTuple):
    """Activations of one forward pass, each list by layer, in the compute dtype."""

    embedding: list[Array]
    """The stream before the first layer, [b, t, d]: one."""
    attention: list[Array]
    """What attention adds to the stream, [b, t, d]."""
    mlp: list[Array]
    """What the MLP or the experts add to it, [b, t, d]; empty for layers of attention alone."""
    stream: list[Array]
    """The stream after the layer, [b, t, d]."""
    units: list[Array]
    """Inner units of the MLP, [b, t, f]; none of experts."""
    queries_keys: list[tuple[Array, Array]]
    """What attention compares, [b, t, n, h] and [b, t, k, h]."""
    hidden: list[Array]
    """After the final norm, [b, t, d]: one."""


def record(config: ModelConfig, params: Params, batch: Batch) -> Recording:
    """The activations of a batch (``tokens``, ``positions`` and ``segment_ids`` where it has them), without dropout."""
    if not isinstance(config, DecoderConfig | EncoderConfig):
        raise ValueError(f"a {config.family} has no layers of attention: {' and '.join(OBSERVED)} have")
    # Scanned or recomputed layers are traced within another trace, which nothing may leave.
    model = make_model(dataclasses.replace(config, scan_layers=False, remat_policy="none"))
    found = Recording([], [], [], [], [], [], [])
    inside_moe = False

    def take_down(run: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal inside_moe
        module = context.module
        if context.method_name != "__call__":
            return run(*args, **kwargs)
        if isinstance(module, DecoderBlock | EncoderBlock):
            if not found.stream:
                found.embedding.append(args[0])
            out = run(*args, **kwargs)
            found.stream.append(out[0] if isinstance(out, tuple) else out)
            return out
        if isinstance(module, SelfAttention | LatentAttention):
            x_btd, attend, *rest = args

            def watched(q: Array, k: Array, v: Array) -> Array:
                found.queries_keys.append((q, k))
                return attend(q, k, v)

            out = run(x_btd, watched, *rest, **kwargs)
            found.attention.append(out[0])
            return out
        if isinstance(module, MoE):
            inside_moe = True
            out = run(*args, **kwargs)
            inside_moe = False
            found.mlp.append(out[0])
            return out
        if isinstance(module, Linear) and module.name == "down" and not inside_moe:
            found.units.append(args[0])
        out = run(*args, **kwargs)
        if isinstance(module, MLP) and not inside_moe:
            found.mlp.append(out)
        return out

    with nn.intercept_methods(take_down):
        hidden = model.hidden(
            params, batch["tokens"], positions=batch.get("positions"), segment_ids=batch.get("segment_ids")
        )
    found.hidden.append(hidden.hidden_btd)
    return found


def mean_abs(x: Array) -> Array:
    """Mean of |x| over all of it, f32: the size of a coordinate."""
    return jnp.mean(jnp.abs(x.astype(jnp.float32)))


def observe(config: ModelConfig, params: Params, batch: Batch) -> dict[str, Array]:
    """Figures of one forward pass over the tokens of ``batch`` that are not padding, f32; [l] by layer unless said.

    ``stream_rms``, ``stream_max``, ``attn_rms``, ``mlp_rms``: of the stream after a layer and of what is added to it;
    ``attn_logit_max``: the largest score that a query gives a key that it sees, in absolute value; ``dead_units``: the
    share of the MLP's units that are dead (`DEAD_BELOW`); ``nonfinite``: the share of entries of the stream that are
    not finite. Of the model, scalars: ``embed_rms``, ``hidden_max``, ``logit_max``, ``log_z_mean``, ``log_z_max`` (of
    the logits' log-normaliser; it drifts before bf16 training breaks).
    """
    assert isinstance(config, DecoderConfig | EncoderConfig)
    found = record(config, params, batch)
    segment_ids = batch.get("segment_ids")
    counted_bt = jnp.ones(batch["tokens"].shape, bool) if segment_ids is None else segment_ids != 0
    figures = {
        "stream_rms": _stack(found.stream, lambda x: _rms(x, counted_bt)),
        "stream_max": _stack(found.stream, lambda x: _max_abs(x, counted_bt)),
        "attn_rms": _stack(found.attention, lambda x: _rms(x, counted_bt)),
        "nonfinite": _stack(found.stream, lambda x: jnp.mean(~jnp.isfinite(x), dtype=jnp.float32)),
        "attn_logit_max": _attention_logits(config, found, batch),
    }
    if found.mlp:
        figures["mlp_rms"] = _stack(found.mlp, lambda x: _rms(x, counted_bt))
    if found.units:
        figures["dead_units"] = _stack(found.units, lambda x: _dead_share(x, counted_bt))
    figures["embed_rms"] = _rms(found.embedding[0], counted_bt)
    figures["hidden_max"] = _max_abs(found.hidden[0], counted_bt)
    return figures | _logits(config, params, found.hidden[0], counted_bt)


def _stack(layers: Sequence[Array], figure: Callable[[Array], Array]) -> Array:
    return jnp.stack([figure(x) for x in layers])


def _rms(x: Array, counted_bt: Array) -> Array:
    square_bt = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1)
    total = jnp.sum(jnp.where(counted_bt, square_bt, 0.0))
    return jnp.sqrt(total / jnp.maximum(jnp.sum(counted_bt, dtype=jnp.float32), 1.0))


def _max_abs(x: Array, counted_bt: Array) -> Array:
    return jnp.max(jnp.where(counted_bt, jnp.max(jnp.abs(x), axis=-1).astype(jnp.float32), 0.0))


def _dead_share(units_btf: Array, counted_bt: Array) -> Array:
    largest_f = jnp.max(jnp.where(counted_bt[..., None], jnp.abs(units_btf), 0), axis=(0, 1)).astype(jnp.float32)
    return jnp.mean(largest_f <= DEAD_BELOW * _rms(units_btf, counted_bt), dtype=jnp.float32)


def _chunks(x: Array) -> Array:
    """[b, t, ...] -> [chunks, b, t / chunks, ...]; one chunk where t does not divide."""
    b, t = x.shape[:2]
    size = _CHUNK if t % _CHUNK == 0 else t
    return jnp.moveaxis(x.reshape(b, t // size, size, *x.shape[2:]), 1, 0)


def _attention_logits(config: DecoderConfig | EncoderConfig, found: Recording, batch: Batch) -> Array:
    """The largest |score| of each layer, before any soft cap."""
    b, t = batch["tokens"].shape
    positions_bt = jnp.broadcast_to(batch.get("positions", jnp.arange(t, dtype=jnp.int32)), (b, t))
    segments_bt = batch.get("segment_ids", jnp.ones((b, t), jnp.int32))
    causal = isinstance(config, DecoderConfig)

    def largest(layer: int, q_btnh: Array, k_btkh: Array) -> Array:
        n, k = q_btnh.shape[2], k_btkh.shape[2]
        window = config.window(layer) if isinstance(config, DecoderConfig) else None
        scale = config.attn_scale if isinstance(config, DecoderConfig) else config.head_width**-0.5

        def of_chunk(xs: tuple[Array, Array, Array]) -> Array:
            q_bqnh, rows_bq, own_bq = xs
            q_bqkgh = q_bqnh.reshape(*q_bqnh.shape[:2], k, n // k, -1)
            scores = jnp.einsum("bqkgh,bskh->bkgqs", q_bqkgh, k_btkh, preferred_element_type=jnp.float32)
            mask_bqs = attention_mask(rows_bq, positions_bt, own_bq, segments_bt, causal=causal, window=window)
            mask_bqs &= (own_bq != 0)[:, :, None]
            return jnp.max(jnp.where(mask_bqs[:, None, None], jnp.abs(scale * scores), 0.0))

        return jnp.max(jax.lax.map(of_chunk, (_chunks(q_btnh), _chunks(positions_bt), _chunks(segments_bt))))

    return jnp.stack([largest(layer, q, k) for layer, (q, k) in enumerate(found.queries_keys)])


def _logits(config: ModelConfig, params: Params, hidden_btd: Array, counted_bt: Array) -> dict[str, Array]:
    model = make_model(config)

    def of_chunk(xs: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        hidden_bqd, counted_bq = xs
        logits_bqv = model.logits(params, hidden_bqd)
        log_z_bq = jnp.where(counted_bq, jax.nn.logsumexp(logits_bqv, axis=-1), 0.0)
        return _max_abs(logits_bqv, counted_bq), jnp.sum(log_z_bq), jnp.max(jnp.abs(log_z_bq))

    largest, log_z, log_z_max = jax.lax.map(of_chunk, (_chunks(hidden_btd), _chunks(counted_bt)))
    count = jnp.maximum(jnp.sum(counted_bt, dtype=jnp.float32), 1.0)
    return {"logit_max": jnp.max(largest), "log_z_mean": jnp.sum(log_z) / count, "log_z_max": jnp.max(log_z_max)}
