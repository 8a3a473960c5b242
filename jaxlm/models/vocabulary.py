"""The way in and out of a model's vocabulary, shared by the families: a table looked up, symbols scored."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.types import STATE_AXES, Array
from jaxlm.nn.linear import matmul
from jaxlm.sharding.constrain import constrain

TABLE_SPEC, HEAD_SPEC = P("model", STATE_AXES), P(STATE_AXES, "model")
"""How the table [v, d] and a free head [d, v] lie (`decoder_params.RULES`). Said again where they are used: a loop over
parts of a batch then sums their gradient in shards, not whole on every device."""


def look_up(table_vd: Array, tokens_bt: Array, dtype: jnp.dtype) -> Array:
    """Rows of the table, [b, t, d]. On a mesh fsdp gathers their width; the vocabulary stays split over model, so no
    device holds the whole table."""
    table_vd = constrain(table_vd.astype(dtype), TABLE_SPEC)  # cast first, then gathered
    return jnp.take(constrain(table_vd, P("model", None)), tokens_bt, axis=0, mode="clip")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _scores(x: Array, weights: Array, tied: bool, dtype: jnp.dtype) -> Array:
    """``x W`` in ``dtype``. Its gradient's two products are made in the compute dtype, as all others are, and the
    weights' lies at once as the weights do."""
    return matmul(x, weights, transpose=tied, out_dtype=dtype)


def _scores_fwd(x: Array, weights: Array, tied: bool, dtype: jnp.dtype) -> tuple[Array, tuple[Array, Array]]:
    return _scores(x, weights, tied, dtype), (x, weights)


def _scores_bwd(tied: bool, dtype: jnp.dtype, kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    del dtype
    x, weights = kept
    _, pull = jax.vjp(lambda x, weights: matmul(x, weights, transpose=tied), x, weights)
    grad_x, grad_weights = pull(grad.astype(x.dtype))
    return grad_x, constrain(grad_weights, TABLE_SPEC if tied else HEAD_SPEC)


_scores.defvjp(_scores_fwd, _scores_bwd)


def score_symbols(
    x: Array,
    weights: Array,
    *,
    tied: bool,
    vocab_size: int | None,
    dtype: jnp.dtype,
    bias_v: Array | None = None,
    rounded_to: jnp.dtype | None = None,
) -> Array:
    """``x W^T + bias`` (table [v, d], ``tied``) or ``x W + bias`` (kernel [d, v]), f32, without the padding rows.
    ``rounded_to``: what the products are kept in on the way; None = f32."""
    f32 = jnp.dtype(jnp.float32)
    scores: Any = _scores(x.astype(dtype), weights.astype(dtype), tied, rounded_to or f32)
    out = scores.astype(f32)
    if bias_v is not None:
        out = out + bias_v.astype(f32)
    return out if out.shape[-1] == vocab_size else out[..., :vocab_size]
