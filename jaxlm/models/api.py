"""What a model is to the rest of jaxlm: a config and pure functions of plain dict parameters. No linen beyond here."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jax.sharding import PartitionSpec

from jaxlm.core.types import Array, Params, PyTree, Terms

Rules = tuple[tuple[str, PartitionSpec], ...]
"""Ordered (regex over a parameter's path, spec of its trailing dimensions): first match wins, no match is an error."""


class KVCache(NamedTuple):
    """Keys and values of the tokens seen so far, in slots. All rows write the same slots, so ragged prompts are padded
    on the LEFT with segment id 0; an empty slot has segment id 0 too and is never attended to."""

    layers: PyTree
    """``{"k", "v"}`` for each layer, nested like the parameters: [l, b, k, s, h] under ``layers/layer_j``, [b, k, s, h]
    under ``tail_i``, of one row without b; with latent attention ``{"latent", "k_rope"}``, [.., b, s, width]. Keys are
    stored rotated."""
    positions_bs: Array
    segment_ids_bs: Array
    length: Array
    """Slots written, int32 scalar. The caller sees to it that length + new tokens <= capacity."""

    @property
    def capacity(self) -> int:
        """Slots in all."""
        return self.positions_bs.shape[1]


Cache = Any
"""What a model remembers of the tokens so far: a decoder's `KVCache`, a recurrent model's state."""


class HiddenOutput(NamedTuple):
    """What ``hidden`` gives."""

    hidden_btd: Array
    """After the final norm, in the compute dtype."""
    kv_cache: Cache | None = None
    terms: Terms | None = None
    """Terms of the loss that the model adds itself (``Model.term_names``), over the tokens that are not padding."""


class HiddenFn(Protocol):
    """``hidden(params, tokens_bt, ...) -> HiddenOutput``.

    positions None = 0, 1, 2... (with a cache: onwards from its length). segment_ids None = one segment and no padding,
    the cheapest path; else 1-based with 0 for padding. kv_cache: the tokens are written to its next slots and attend
    over all of it, which serves prefill and decoding. dropout_key None = no dropout.
    """

    def __call__(
        self,
        params: Params,
        tokens_bt: Array,
        *,
        positions: Array | None = None,
        segment_ids: Array | None = None,
        kv_cache: Cache | None = None,
        dropout_key: Array | None = None,
    ) -> HiddenOutput: ...


class InitCacheFn(Protocol):
    """``init_cache(batch_size, capacity, dtype=None)``: an empty cache, in the compute dtype unless told."""

    def __call__(self, batch_size: int, capacity: int, dtype: Any = None) -> Cache: ...


class Model(NamedTuple):
    """A causal model as a bundle of pure functions."""

    config: Any
    init: Callable[[Array], Params]
    """``init(key) -> params``, a plain nested dict."""
    hidden: HiddenFn
    logits: Callable[[Params, Array], Array]
    """``logits(params, hidden [..., d]) -> f32 [..., v]``."""
    init_cache: InitCacheFn
    rules: Rules
    term_names: tuple[str, ...] = ()
    """Names of ``HiddenOutput.terms``: statistics of a router. Each is summed over tokens that are not padding."""
    token_nll: Callable[[Params, Array, Array], tuple[Array, Array] | None] = lambda *_: None
    """``token_nll(params, hidden [b, t, d], targets [b, t])``: what ``losses.tokens.token_nll`` makes of the logits,
    where the model has a shorter way to it here, that never holds them and their gradient; else None."""

    def apply_fn(self, params: Params, tokens_bt: Array, **kwargs: Any) -> Array:
        """``logits(hidden(tokens))``, f32 [b, t, v]; keywords as for ``hidden``."""
        return self.logits(params, self.hidden(params, tokens_bt, **kwargs).hidden_btd)
