"""Double precision for the fits alone: the rest of the process keeps its own."""

from contextlib import AbstractContextManager

import jax


def double_precision() -> AbstractContextManager[None]:
    """A context in which JAX makes 64-bit arrays. What is made inside should leave it as NumPy arrays.

    Constants of a law vary together so closely that single precision stops a search far from its minimum.
    """
    return jax.enable_x64(True)
