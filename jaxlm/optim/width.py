"""Rates that do not move with width: muP (Yang et al. 2022, Tensor Programs V, table 8) as a table of parameters.

Measured against a base width, ``m = model_dim / base_dim``. What grows with a hidden matrix's fan-in is taken out of
its rate and its start; embeddings, head, gains and biases keep theirs, and logits are divided by m (`models.mup`).
"""

import optax

from jaxlm.core.tree import map_with_paths
from jaxlm.core.types import PyTree
from jaxlm.optim.groups import growth, param_group


def rate_multiplier(path: str, width: float) -> float:
    """What the rate of a parameter is multiplied with in a model ``width`` times as wide as the base: 1 / width where
    the fan-in grows (Adam, Lion and other optimisers whose step does not depend on the gradient's size)."""
    return 1.0 if growth(path) == "none" else 1.0 / width


def scale_by_width(width: float) -> optax.GradientTransformation:
    """Multiplies each parameter's step by `rate_multiplier`. It goes before decay is added: decay stays rate times
    decay for every parameter, whatever the width."""

    def update(updates: PyTree) -> PyTree:
        return map_with_paths(lambda path, update: update * rate_multiplier(path, width), updates)

    return optax.stateless(lambda updates, params: update(updates))


def start_multiplier(path: str, width: float, *, fixed_std: bool) -> float:
    """What the deviation of a parameter at the start is multiplied with.

    ``fixed_std``: the standard start has one deviation for all widths, else 1/sqrt(fan in). Hidden matrices then start
    with 1/sqrt(fan in), a router with 1/fan in, embeddings and head as at the base width.
    """
    kind = growth(path)
    if kind == "none":
        fan_in_is_width = param_group(path) == "embedding"  # as the standard start reads it, the table's too
        return width**0.5 if fan_in_is_width and not fixed_std else 1.0
    start = width**-0.5 if fixed_std else 1.0
    return start * width**-0.5 if kind == "fan_in" else start
