"""A decoder that reads vectors of numbers in place of tokens, and says a number behind each (Garg et al. 2022)."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array, Params
from jaxlm.models.decoder import DecoderConfig, make_decoder


class NumberReader(NamedTuple):
    """Pure functions."""

    init: Callable[[Array], Params]
    """``init(key) -> params``; ``embed/table`` is the map [f, d] from a position's f numbers into the stream."""
    outputs: Callable[[Params, Array], Array]
    """``outputs(params, inputs f32 [b, t, f]) -> f32 [b, t]``."""


def make_number_reader(config: DecoderConfig, num_features: int) -> NumberReader:
    """The config's layers between two linear maps; its vocabulary is left aside.

    Norms take a vector's length away: give it a constant among its numbers where the length is to count.
    """
    model = make_decoder(dataclasses.replace(config, vocab_size=1, vocab_multiple=1, tie_embeddings=False))

    def init(key: Array) -> Params:
        params = model.init(key)
        table_fd = jax.random.normal(jax.random.fold_in(key, 1), (num_features, config.model_dim))
        return params | {"embed": params["embed"] | {"table": table_fd * num_features**-0.5}}

    def outputs(params: Params, inputs_btf: Array) -> Array:
        b, t, _ = inputs_btf.shape
        # Each position is a token of its own, and what it reads the row of a table that is made for this batch.
        table_vd = (inputs_btf @ params["embed"]["table"]).reshape(b * t, -1)
        tokens_bt = jnp.arange(b * t, dtype=jnp.int32).reshape(b, t)
        return model.apply_fn(params | {"embed": params["embed"] | {"table": table_vd}}, tokens_bt)[..., 0]

    return NumberReader(init, outputs)
