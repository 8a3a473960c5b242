"""What each head of a decoder looks at: the symbol before, or what stood behind the symbol at hand (induction)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.core.masks import attention_mask
from jaxlm.core.types import Array, Params
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.observe import record
from jaxlm.nn.attention import MASKED


class HeadScores(NamedTuple):
    """Shares of each head's attention, f32 [l, n], 0 to 1."""

    previous_token: Array
    """To the token before, mean over all tokens but the first."""
    prefix_matching: Array
    """To the tokens behind earlier occurrences of the token at hand, mean over the tokens that have one (Olsson et al.
    2022): 1 for a head that does nothing but induction."""


def attention_weights(config: DecoderConfig, params: Params, tokens_bt: Array) -> list[Array]:
    """How much each token looks at each, by layer f32 [b, n, t, s]. Rows hold one whole sequence each."""
    positions_1t = jnp.arange(tokens_bt.shape[1], dtype=jnp.int32)[None]
    weights = []
    for layer, (q_btnh, k_bskh) in enumerate(record(config, params, {"tokens": tokens_bt}).queries_keys):
        k_bsnh = jnp.repeat(k_bskh, q_btnh.shape[2] // k_bskh.shape[2], axis=2)
        scores_bnts = config.attn_scale * jnp.einsum(
            "btnh,bsnh->bnts", q_btnh, k_bsnh, preferred_element_type=jnp.float32
        )
        if config.attn_softcap is not None:
            scores_bnts = config.attn_softcap * jnp.tanh(scores_bnts / config.attn_softcap)
        seen_1ts = attention_mask(positions_1t, positions_1t, window=config.window(layer))
        weights.append(jax.nn.softmax(jnp.where(seen_1ts[:, None], scores_bnts, MASKED), axis=-1))
    return weights


def head_scores(config: DecoderConfig, params: Params, tokens_bt: Array) -> HeadScores:
    """Of all heads on rows of tokens."""
    same_bts = tokens_bt[:, :, None] == tokens_bt[:, None, :]
    before_ts = jnp.tri(tokens_bt.shape[1], k=-1, dtype=bool)
    # Where token s is the one at hand, earlier, s + 1 is what an induction head looks at.
    behind_bts = jnp.pad((same_bts & before_ts)[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    matched_bt = jnp.any(behind_bts, axis=-1)
    num_matched = jnp.maximum(jnp.sum(matched_bt, dtype=jnp.float32), 1.0)
    previous, matching = [], []
    for weights_bnts in attention_weights(config, params, tokens_bt):
        previous.append(jnp.mean(jnp.diagonal(weights_bnts, offset=-1, axis1=2, axis2=3), axis=(0, 2)))
        on_behind_bnt = jnp.sum(jnp.where(behind_bts[:, None], weights_bnts, 0.0), axis=-1)
        matching.append(jnp.sum(on_behind_bnt, axis=(0, 2)) / num_matched)
    return HeadScores(jnp.stack(previous), jnp.stack(matching))
