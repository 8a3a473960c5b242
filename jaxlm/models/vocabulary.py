"""The way in and out of a model's vocabulary, shared by the families: a table looked up, symbols scored."""

import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxlm.core.types import BATCH_AXES, Array
from jaxlm.nn.linear import matmul
from jaxlm.sharding.constrain import constrain

HIDDEN_SPEC = P(BATCH_AXES, None, None)
"""How activations [b, t, d] lie."""


TABLE_SPEC, HEAD_SPEC = P("model", "fsdp"), P("fsdp", "model")
"""How the table [v, d] and a free head [d, v] lie (`decoder_params.RULES`). Said again where they are used: a loop over
parts of a batch then sums their gradient in shards, not whole on every device."""


def look_up(table_vd: Array, tokens_bt: Array, dtype: jnp.dtype) -> Array:
    """Rows of the table, [b, t, d]. On a mesh fsdp gathers their width; the vocabulary stays split over model, so no
    device holds the whole table."""
    table_vd = constrain(table_vd.astype(dtype), TABLE_SPEC)  # cast first, then gathered
    return jnp.take(constrain(table_vd, P("model", None)), tokens_bt, axis=0, mode="clip")


def score_symbols(
    x: Array, weights: Array, *, tied: bool, vocab_size: int | None, dtype: jnp.dtype, bias_v: Array | None = None
) -> Array:
    """``x W^T + bias`` (table [v, d], ``tied``) or ``x W + bias`` (kernel [d, v]), f32, without the padding rows."""
    weights = constrain(weights.astype(dtype), TABLE_SPEC if tied else HEAD_SPEC)
    out = matmul(x.astype(dtype), weights, transpose=tied, out_dtype=jnp.dtype("float32"))
    if bias_v is not None:
        out = out + bias_v.astype(jnp.float32)
    return out if out.shape[-1] == vocab_size else out[..., :vocab_size]
