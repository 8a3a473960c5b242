"""NEFTune: uniform noise on the embeddings while a model is tuned to instructions."""

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array


def neftune_scale(segment_ids_bt: Array, model_dim: int, *, alpha: float) -> Array:
    """Half-width of the noise of each token, ``alpha / sqrt(L d)``, L the tokens of its segment, f32 [b, t] (Jain et
    al. 2023, eq. 1). 0 at padding. Packed rows have a scale for each conversation, as if it stood alone."""
    same_bts = segment_ids_bt[:, :, None] == segment_ids_bt[:, None, :]
    length_bt = jnp.sum(same_bts, axis=-1, dtype=jnp.float32)
    return jnp.where(segment_ids_bt > 0, alpha * jax.lax.rsqrt(length_bt * model_dim), 0.0)


def neftune(embeddings_btd: Array, segment_ids_bt: Array, key: Array, *, alpha: float) -> Array:
    """The embeddings with noise drawn from U(-1, 1) times `neftune_scale`; the noise's expected norm over a sequence is
    ``alpha / sqrt(3)`` whatever its length. For training alone."""
    scale_bt = neftune_scale(segment_ids_bt, embeddings_btd.shape[-1], alpha=alpha)
    noise_btd = jax.random.uniform(key, embeddings_btd.shape, jnp.float32, -1.0, 1.0)
    return embeddings_btd + (noise_btd * scale_bt[..., None]).astype(embeddings_btd.dtype)
