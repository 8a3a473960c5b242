"""Parameters of a model without its own start: nothing is compiled for them, and no gain or bias stands at 0 or 1."""

import jax
import numpy as np

from jaxlm.core.tree import map_with_paths
from jaxlm.core.types import Params
from jaxlm.models.api import Model
from jaxlm.models.heads import TaskModel


def drawn_params(model: Model | TaskModel, seed: int = 0) -> Params:
    """Kernels and tables of unit gain, gains near 1, biases near 0: what a law must hold for, trained or not."""
    rng = np.random.default_rng(seed)
    unit = 0.0 if getattr(getattr(model, "config", None), "norm_offset", False) else 1.0

    def draw(path: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape)
        if path.endswith("scale"):
            drawn = unit + 0.1 * noise
        elif path.endswith("bias"):
            drawn = 0.1 * noise
        else:
            drawn = noise * leaf.shape[-2 if path.endswith("kernel") else -1] ** -0.5
        return drawn.astype(leaf.dtype)

    return jax.device_put(map_with_paths(draw, jax.eval_shape(model.init, jax.random.key(0))))
