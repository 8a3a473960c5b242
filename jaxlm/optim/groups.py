"""What a parameter is, by its path: decay, Muon and muP go by it."""

import re
from typing import Literal

Group = Literal["embedding", "matrix", "vector"]

GROUPS: tuple[tuple[str, Group], ...] = (
    (r"(^|/)embed/", "embedding"),
    (r"(^|/)head/kernel$", "embedding"),
    (r"/kernel$", "matrix"),
    (r"(^|/)(scale|bias)$", "vector"),
)
"""What a parameter is, by its path: first match wins, no match is an error. Decay, Muon and muP are decided by it."""


def param_group(path: str) -> Group:
    """``'layers/layer_0/attn/q/kernel'`` -> ``'matrix'``. Raises ValueError for a path that no rule matches."""
    for pattern, group in GROUPS:
        if re.search(pattern, path):
            return group
    raise ValueError(f"parameter '{path}' matches no rule of optim.groups.GROUPS: add one")


Growth = Literal["both", "fan_in", "none"]

GROWTHS: tuple[tuple[str, Growth], ...] = (
    (r"/attn/(q_up|kv_up)/kernel$", "none"),  # their fan-in is the rank of a latent, which is chosen on its own
    (r"/moe/router/kernel$", "fan_in"),  # one logit for each expert, however wide the model
    (r"/kernel$", "both"),
)
"""Which sides of a matrix grow with the model's width, by its path: first match wins. Only for the group "matrix": of
all others no fan-in grows, but for a free head's, which the division of the logits stands for."""


def growth(path: str) -> Growth:
    """``'layers/layer_0/attn/q/kernel'`` -> ``'both'``; ``'embed/table'`` -> ``'none'``."""
    if param_group(path) != "matrix":
        return "none"
    return next(kind for pattern, kind in GROWTHS if re.search(pattern, path))
