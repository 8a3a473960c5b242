"""Names of dtypes as they stand in configs."""

from typing import Literal

import jax.numpy as jnp

DType = Literal["float32", "bfloat16", "float16"]

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


def as_dtype(name: DType) -> jnp.dtype:
    """``'bfloat16'`` -> ``jnp.dtype('bfloat16')``."""
    return jnp.dtype(_DTYPES[name])
