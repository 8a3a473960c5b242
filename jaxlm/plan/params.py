"""Parameter counts from shapes alone; nothing is allocated."""

import math
from typing import NamedTuple

import jax

from jaxlm.core.tree import flatten_with_paths
from jaxlm.models.api import Model
from jaxlm.models.decoder import DecoderConfig, make_decoder


class ParamCounts(NamedTuple):
    """Counts of parameters (elements, not bytes)."""

    total: int
    embedding: int
    """Tables that are looked up: tokens and learned positions. A tied table is here, and in ``matmul`` too."""
    matmul: int
    """What each token is multiplied with: N of 6ND."""


def param_shapes(model: Model) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameter tree as ShapeDtypeStructs."""
    return jax.eval_shape(model.init, jax.random.key(0))


def count_decoder_params(config: DecoderConfig) -> ParamCounts:
    """Counts of a decoder, exactly those of its parameter tree."""
    leaves = flatten_with_paths(param_shapes(make_decoder(config)))
    sizes = {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    total = sum(sizes.values())
    embedding = sum(size for path, size in sizes.items() if path.startswith("embed/"))
    matmul = total - embedding
    if config.tie_embeddings:
        matmul += sizes["embed/table"]
    return ParamCounts(total, embedding, matmul)
