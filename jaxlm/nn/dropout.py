"""Dropout as a function of its key."""

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zero each element with probability ``rate`` and scale the rest by 1 / (1 - rate); x itself without a key.

    (Srivastava et al. 2014.) The mask depends on the key and the shape alone, so scan, remat and meshes keep it.
    """
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
