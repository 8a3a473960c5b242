"""Greedy decoding of one row by one kernel (`nn.triton_decode`), in the place of `generate.decode.decode`."""

import jax.numpy as jnp

from jaxlm.core.types import Array
from jaxlm.generate.decode import DecodeState
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.decoder_kernel import stack_cache, unstack_cache
from jaxlm.nn.rope import rope_tables
from jaxlm.nn.triton_decode import DecodeKernel, KernelWeights, Row, decode_greedily


def covers(state: DecodeState, sampling: SamplingConfig) -> bool:
    """Whether :func:`decode_row` serves: one row, greedily, nothing kept but tokens and log-probabilities."""
    plain = state.seen_bv is None and state.generated.tempered_logprobs_bn is None
    return plain and sampling.temperature == 0 and state.token_b.shape[0] == 1


def decode_row(
    kernel: DecodeKernel,
    config: DecoderConfig,
    weights: KernelWeights,
    state: DecodeState,
    *,
    until: int | Array,
    stop_ids: tuple[int, ...] = (),
) -> DecodeState:
    """What ``decode`` gives where :func:`covers` says so, to the order of sums. ``config``: that of
    ``inference_config``."""
    out, cache, first = state.generated, state.kv_cache, state.num_sampled
    most = out.tokens_bn.shape[1]
    left = jnp.maximum(jnp.minimum(until, most) - first, 0)
    slot_s = jnp.arange(cache.capacity, dtype=jnp.int32)
    to_come_s = slot_s >= cache.length
    stops = [*stop_ids, *[-1] * ((1 << len(stop_ids).bit_length()) - len(stop_ids))]
    positions_t = state.position_b + jnp.arange(most, dtype=jnp.int32)
    row = Row(
        token=state.token_b[0],
        slot=cache.length,
        num_tokens=jnp.where(state.done_b[0], 0, left).astype(jnp.int32),
        stop_s=jnp.asarray(stops, jnp.int32),
        visible_s=(to_come_s | (cache.segment_ids_bs[0] > 0)).astype(jnp.int32),
        rope_t2h=jnp.stack(rope_tables(positions_t, config.rope, config.head_width), axis=1),
    )
    decoded = decode_greedily(kernel, weights, stack_cache(config, cache.layers), row)
    count = decoded.num_drawn
    last = decoded.tokens[jnp.maximum(count - 1, 0)]
    stopped = (count > 0) & jnp.any(row.stop_s == last)
    i_n = jnp.arange(most, dtype=jnp.int32)
    is_new_n = (i_n >= first) & (i_n < first + count)
    is_new_s = to_come_s & (slot_s < cache.length + count)

    def written(new_n: Array, old_bn: Array) -> Array:
        return jnp.where(is_new_n, jnp.roll(new_n, first), old_bn)

    return state._replace(
        num_sampled=first + count,
        kv_cache=cache._replace(
            layers=unstack_cache(decoded.cache),
            positions_bs=jnp.where(is_new_s, state.position_b + slot_s - cache.length, cache.positions_bs),
            segment_ids_bs=jnp.where(is_new_s, 1, cache.segment_ids_bs),
            length=cache.length + count,
        ),
        token_b=jnp.where(count > 0, last, state.token_b),
        position_b=state.position_b + count,
        done_b=state.done_b | stopped,
        generated=out._replace(
            tokens_bn=written(decoded.tokens, out.tokens_bn),
            logprobs_bn=written(decoded.logprobs, out.logprobs_bn),
            lengths_b=out.lengths_b + count,
            stopped_b=out.stopped_b | stopped,
        ),
    )
