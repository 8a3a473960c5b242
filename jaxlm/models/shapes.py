"""What the configs of all families ask of their sizes and choices."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from jaxlm.core.dtypes import DType
from jaxlm.models.stack import RematPolicy
from jaxlm.nn.attention import IMPLEMENTATIONS
from jaxlm.nn.mlp import GATED, MlpKind
from jaxlm.nn.norms import NormKind

Position = Literal["rope", "learned", "none"]

_CHOICES = {
    "mlp": get_args(MlpKind),
    "norm": get_args(NormKind),
    "position": get_args(Position),
    "remat_policy": get_args(RematPolicy),
    "attention": IMPLEMENTATIONS,
    "param_dtype": get_args(DType),
    "compute_dtype": get_args(DType),
}


def check_choices(config: Any) -> None:
    """Raises ValueError, with the choices, where a field of a Transformer's config holds none of them."""
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"model.{name}={getattr(config, name)!r} is unknown: choose {', '.join(choices)}")


def check_positive(config: Any, names: Sequence[str]) -> None:
    """Raises ValueError where one of these sizes is below 1. None is left alone."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"model.{name}={value} must be at least 1")


def padded_vocab_size(vocab_size: int | None, multiple: int) -> int:
    """The vocabulary size rounded up to a multiple. Raises ValueError while it is None."""
    if vocab_size is None:
        raise ValueError("model.vocab_size=None is not resolved: set it to the tokenizer's vocab_size")
    return multiple * math.ceil(vocab_size / multiple)


def mlp_width(mlp_dim: int | None, kind: MlpKind, model_dim: int) -> int:
    """Inner width of an MLP: as given, or 4 d, or 8/3 d rounded up to a multiple of 8 for gated kinds; 0 for none."""
    if kind == "none":
        return 0
    if mlp_dim is not None:
        return mlp_dim
    return 8 * math.ceil(model_dim / 3) if kind in GATED else 4 * model_dim
