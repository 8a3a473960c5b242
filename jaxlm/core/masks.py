"""Who may attend to whom. One rule serves training, packed rows, ragged prompts and cached decoding."""

import functools

import jax.numpy as jnp

from jaxlm.core.types import Array


def attention_mask(
    q_positions_bt: Array,
    k_positions_bs: Array,
    q_segment_ids_bt: Array | None = None,
    k_segment_ids_bs: Array | None = None,
    *,
    causal: bool = True,
    window: int | None = None,
) -> Array:
    """True where query t may attend to key s, shape [b, t, s].

    A key is seen if it lies in the query's segment, the segment is not padding (0), it does not lie after the query
    (``causal``), and it is one of the ``window`` newest positions, the query's own included. Positions restart in each
    segment, so order is only ever compared inside one.
    """
    distance_bts = q_positions_bt[:, :, None] - k_positions_bs[:, None, :]
    conditions = [distance_bts >= 0] if causal else []
    if window is not None:
        conditions.append((distance_bts < window) & (distance_bts > -window))
    if q_segment_ids_bt is not None:
        if k_segment_ids_bs is None:
            raise ValueError("q_segment_ids_bt without k_segment_ids_bs: give both or neither")
        conditions.append(q_segment_ids_bt[:, :, None] == k_segment_ids_bs[:, None, :])
        conditions.append((k_segment_ids_bs != 0)[:, None, :])
    if not conditions:
        return jnp.ones(distance_bts.shape, bool)
    # No constant array to begin with: a scan over layers would keep it, one for each place it is used at.
    seen = functools.reduce(jnp.logical_and, conditions)
    # Positions that all rows share, [1, t], do not make the rows' segments one.
    return jnp.broadcast_to(seen, jnp.broadcast_shapes(seen.shape, distance_bts.shape))
