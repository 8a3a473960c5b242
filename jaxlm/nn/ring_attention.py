"""Ring attention (Liu et al. 2023): each device keeps its queries, and keys and values go round.

A device meets one block of keys after another and merges what it finds by an online softmax in f32; the backward pass
sends the keys round once more, their gradients with them. A device holds its share of a row and one block beside it,
and scores of ``CHUNK`` x ``CHUNK`` positions. Plain XLA on every platform.

Causal rows are not dealt evenly: the device of the last positions sees every block, that of the first only its own, and
all wait for the last. A step takes about twice what even shares would (half the pairs of chunks are skipped, not used).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.core.masks import attention_mask
from jaxlm.core.types import Array

CHUNK, SMALLEST_CHUNK = 1024, 64
"""Positions whose scores exist at once: the largest divisor of a device's share up to CHUNK; shares without a fair
divisor are one chunk."""

HIDDEN = -1e30
"""Log-sum-exp of a query that has seen nothing. Finite, so that nothing becomes NaN."""


class RingOptions(NamedTuple):
    """What is known when the program is made."""

    axis: str
    """The mesh axis of the ring, taken by the ``shard_map`` around."""
    ways: int
    """Devices along it."""
    causal: bool
    window: int | None
    softcap: float | None
    scale: float

    def steps(self, t: int) -> int:
        """Blocks of ``t`` positions that a query may see: under a causal window, the newest only."""
        if self.causal and self.window is not None:
            return min(self.ways, 1 + -(-(self.window - 1) // t))
        return self.ways


class _Keys(NamedTuple):
    """The block of keys and values that a device holds at the moment."""

    k_bksh: Array
    v_bksh: Array
    positions_bs: Array
    segment_ids_bs: Array | None


class _Queries(NamedTuple):
    """A chunk of queries, what they have found so far, and in the backward pass what they are given."""

    q_bkgth: Array
    positions_bt: Array
    segment_ids_bt: Array | None
    place: Array
    """Of its first query in the row."""


class _Found(NamedTuple):
    """An online softmax: maximum of the scores, sum of the weights relative to it, and of the weighted values."""

    max_bkgt: Array
    sum_bkgt: Array
    out_bkgth: Array


def ring_attention(
    q_btnh: Array,
    k_btkh: Array,
    v_btkh: Array,
    positions_bt: Array,
    segment_ids_bt: Array | None,
    *,
    options: RingOptions,
) -> Array:
    """`attention.attend` on one device's share of whole rows, [b, t, n, v's width], inside a ``shard_map``.

    Who sees whom is ``core.masks.attention_mask``; in a segment positions and places in the row go alike. A query that
    sees nothing (padding) gets zeros.
    """
    b, t, n, h = q_btnh.shape
    num_kv_heads = k_btkh.shape[2]
    q_bkgth = q_btnh.reshape(b, t, num_kv_heads, n // num_kv_heads, h).transpose(0, 2, 3, 1, 4)
    k_bksh, v_bksh = k_btkh.swapaxes(1, 2), v_btkh.swapaxes(1, 2)
    out_bkgth: Any = _ring(q_bkgth, k_bksh, v_bksh, positions_bt, segment_ids_bt, options)
    return out_bkgth.transpose(0, 3, 1, 2, 4).reshape(b, t, n, v_btkh.shape[-1])


def _chunk(t: int) -> int:
    best = next(size for size in range(min(CHUNK, t), 0, -1) if t % size == 0)
    return best if best >= SMALLEST_CHUNK else t


def _cut(x: Array, axis: int) -> Array:
    """[.., t, ..] -> [chunks, .., t / chunks, ..]."""
    t, axis = x.shape[axis], axis % x.ndim
    chunk = _chunk(t)
    return jnp.moveaxis(x.reshape(*x.shape[:axis], t // chunk, chunk, *x.shape[axis + 1 :]), axis, 0)


def _join(x: Array, axis: int) -> Array:
    """`_cut` undone."""
    axis = axis % (x.ndim - 1)
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _cut_queries(q_bkgth: Array, positions_bt: Array, segment_ids_bt: Array | None, me: Array) -> _Queries:
    t = q_bkgth.shape[3]
    segments = None if segment_ids_bt is None else _cut(segment_ids_bt, 1)
    places = me * t + jnp.arange(0, t, _chunk(t), dtype=jnp.int32)
    return _Queries(_cut(q_bkgth, 3), _cut(positions_bt, 1), segments, places)


def _cut_keys(keys: _Keys, block: Array) -> tuple[_Keys, Array]:
    """Chunks of keys, and the place of each one's first key in the row. ``block``: whose they are."""
    t = keys.k_bksh.shape[2]
    segments = None if keys.segment_ids_bs is None else _cut(keys.segment_ids_bs, 1)
    cut = _Keys(_cut(keys.k_bksh, 2), _cut(keys.v_bksh, 2), _cut(keys.positions_bs, 1), segments)
    return cut, block * t + jnp.arange(0, t, _chunk(t), dtype=jnp.int32)


def _meet(queries: _Queries, place: Array, options: RingOptions) -> Array:
    """Whether any query of a chunk may see any key of the chunk that begins at ``place``."""
    chunk = queries.q_bkgth.shape[3]
    after, meet = queries.place - place, jnp.asarray(True)
    if options.causal:
        meet &= after > -chunk
    if options.window is not None:
        meet &= (after < options.window + chunk - 1) & (after > -options.window - chunk + 1)
    return meet


def _scores(queries: _Queries, keys: _Keys, options: RingOptions) -> tuple[Array, Array]:
    """Scores after the soft cap, f32 [b, k, g, t, s], and 1.0 where a query sees a key, which broadcasts over them.

    Multiplied with, not selected by: the broadcast constant of a selection depends on no layer, and a scan over layers
    would keep one for every pair of chunks.
    """
    q_bkgth = queries.q_bkgth * options.scale
    scores = jnp.einsum("bkgth,bksh->bkgts", q_bkgth, keys.k_bksh, preferred_element_type=jnp.float32)
    if options.softcap is not None:
        scores = options.softcap * jnp.tanh(scores / options.softcap)
    mask_bts = attention_mask(
        queries.positions_bt,
        keys.positions_bs,
        queries.segment_ids_bt,
        keys.segment_ids_bs,
        causal=options.causal,
        window=options.window,
    )
    return scores, mask_bts[:, None, None].astype(jnp.float32)


def _merge(found: _Found, queries: _Queries, keys: _Keys, options: RingOptions) -> _Found:
    """What a chunk of queries has found once it has seen one more chunk of keys."""
    scores, seen = _scores(queries, keys, options)
    scores = scores * seen + (1.0 - seen) * HIDDEN
    highest = jnp.maximum(found.max_bkgt, jnp.max(scores, axis=-1))
    weights = jnp.exp(scores - highest[..., None]) * seen
    kept = jnp.exp(found.max_bkgt - highest)
    dtype = keys.v_bksh.dtype
    more = jnp.einsum("bkgts,bksh->bkgth", weights.astype(dtype), keys.v_bksh, preferred_element_type=jnp.float32)
    return _Found(highest, kept * found.sum_bkgt + jnp.sum(weights, axis=-1), kept[..., None] * found.out_bkgth + more)


def _look(found: _Found, queries: _Queries, keys: _Keys, block: Array, options: RingOptions) -> _Found:
    """`_merge` of all a device's queries with the block of keys that it holds, chunk by chunk."""
    cut, places = _cut_keys(keys, block)

    def of_queries(xs: tuple[_Found, _Queries]) -> _Found:
        found, chunk = xs

        def of_keys(found: _Found, ys: tuple[_Keys, Array]) -> tuple[_Found, None]:
            keys, place = ys
            see = functools.partial(_merge, queries=chunk, keys=keys, options=options)
            return jax.lax.cond(_meet(chunk, place, options), see, lambda found: found, found), None

        return jax.lax.scan(of_keys, found, (cut, places))[0]

    return jax.lax.map(of_queries, (found, queries))


def _pass_on(tree: Any, options: RingOptions, by: int = 1) -> Any:
    """What each device holds goes to the ``by``-th after it."""
    pairs = [(i, (i + by) % options.ways) for i in range(options.ways)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, options.axis, pairs), tree)


def _attend_round(q_bkgth: Array, keys: _Keys, options: RingOptions) -> tuple[Array, Array]:
    """Output in f32 [b, k, g, t, v's width], and the log-sum-exp of each query's scores [b, k, g, t]."""
    me = jax.lax.axis_index(options.axis)
    queries = _cut_queries(q_bkgth, keys.positions_bs, keys.segment_ids_bs, me)
    shape = queries.q_bkgth.shape[:-1]
    width = keys.v_bksh.shape[-1]
    found = _Found(
        jnp.full(shape, HIDDEN, jnp.float32), jnp.zeros(shape, jnp.float32), jnp.zeros((*shape, width), jnp.float32)
    )

    def step(carry: tuple[_Found, _Keys], number: Array) -> tuple[tuple[_Found, _Keys], None]:
        found, keys = carry
        coming = _pass_on(keys, options)  # under way while these are looked at
        return (_look(found, queries, keys, (me - number) % options.ways, options), coming), None

    last = options.steps(q_bkgth.shape[3]) - 1
    (found, keys), _ = jax.lax.scan(step, (found, keys), jnp.arange(last, dtype=jnp.int32))
    found = _look(found, queries, keys, (me - last) % options.ways, options)
    some = jnp.where(found.sum_bkgt > 0, found.sum_bkgt, 1.0)
    out = _join(found.out_bkgth / some[..., None], 3)
    return out, _join(found.max_bkgt + jnp.log(some), 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _ring(
    q_bkgth: Array,
    k_bksh: Array,
    v_bksh: Array,
    positions_bt: Array,
    segment_ids_bt: Array | None,
    options: RingOptions,
) -> Array:
    return _attend_round(q_bkgth, _Keys(k_bksh, v_bksh, positions_bt, segment_ids_bt), options)[0].astype(q_bkgth.dtype)


def _ring_fwd(
    q_bkgth: Array,
    k_bksh: Array,
    v_bksh: Array,
    positions_bt: Array,
    segment_ids_bt: Array | None,
    options: RingOptions,
) -> tuple[Array, tuple[Array, _Keys, Array, Array]]:
    # Who sees whom is the same in all layers: a scan over them would work out all masks beforehand, and keep them.
    q_bkgth, positions_bt, segment_ids_bt = jax.lax.optimization_barrier((q_bkgth, positions_bt, segment_ids_bt))
    keys = _Keys(k_bksh, v_bksh, positions_bt, segment_ids_bt)
    out, log_sum = _attend_round(q_bkgth, keys, options)
    out = out.astype(q_bkgth.dtype)
    return out, (q_bkgth, keys, out, log_sum)


class _Given(NamedTuple):
    """What the backward pass knows of a chunk of queries (Dao 2023, FlashAttention-2, algorithm 2)."""

    grad_bkgth: Array
    """Gradient of the output."""
    log_sum_bkgt: Array
    rest_bkgt: Array
    """Sum over the width of output times its gradient, f32."""


KeyGrads = tuple[Array, Array]
"""Gradients of keys and values, f32."""


def _gradients(queries: _Queries, given: _Given, keys: _Keys, options: RingOptions) -> tuple[Array, KeyGrads]:
    """What one chunk of queries and one of keys add to each other's gradients, f32."""
    scores, seen = _scores(queries, keys, options)
    hidden = (1.0 - seen) * HIDDEN  # before the exponential, which could overflow where nothing is seen
    weights = jnp.exp(scores * seen + hidden - given.log_sum_bkgt[..., None]) * seen
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    dtype = keys.v_bksh.dtype
    grad_v = product("bkgts,bkgth->bksh", weights.astype(dtype), given.grad_bkgth)
    grad_weights = product("bkgth,bksh->bkgts", given.grad_bkgth, keys.v_bksh)
    grad_scores = weights * (grad_weights - given.rest_bkgt[..., None])
    if options.softcap is not None:
        grad_scores = grad_scores * (1.0 - jnp.square(scores / options.softcap))
    grad_scores = (grad_scores * options.scale).astype(dtype)
    grad_q = product("bkgts,bksh->bkgth", grad_scores, keys.k_bksh)
    grad_k = product("bkgts,bkgth->bksh", grad_scores, queries.q_bkgth)
    return grad_q, (grad_k, grad_v)


def _look_back(
    grad_q: Array,
    key_grads: KeyGrads,
    queries: _Queries,
    given: _Given,
    keys: _Keys,
    block: Array,
    options: RingOptions,
) -> tuple[Array, KeyGrads]:
    """`_gradients` of all a device's queries and the block of keys that it holds, added to what was there."""
    cut, places = _cut_keys(keys, block)
    key_grads = (_cut(key_grads[0], 2), _cut(key_grads[1], 2))

    def of_queries(key_grads: KeyGrads, xs: tuple[Array, _Queries, _Given]) -> tuple[KeyGrads, Array]:
        grad_q, chunk, given = xs

        def of_keys(grad_q: Array, ys: tuple[_Keys, Array, KeyGrads]) -> tuple[Array, KeyGrads]:
            keys, place, key_grads = ys

            def add(sums: tuple[Array, KeyGrads]) -> tuple[Array, KeyGrads]:
                return jax.tree.map(jnp.add, sums, _gradients(chunk, given, keys, options))

            return jax.lax.cond(_meet(chunk, place, options), add, lambda sums: sums, (grad_q, key_grads))

        grad_q, key_grads = jax.lax.scan(of_keys, grad_q, (cut, places, key_grads))
        return key_grads, grad_q

    key_grads, grad_q = jax.lax.scan(of_queries, key_grads, (grad_q, queries, given))
    return grad_q, (_join(key_grads[0], 2), _join(key_grads[1], 2))


def _ring_bwd(
    options: RingOptions, kept: tuple[Array, _Keys, Array, Array], grad_bkgth: Array
) -> tuple[Array, Array, Array, None, None]:
    q_bkgth, keys, out_bkgth, log_sum = kept
    me = jax.lax.axis_index(options.axis)
    queries = _cut_queries(q_bkgth, keys.positions_bs, keys.segment_ids_bs, me)
    rest = jnp.sum(out_bkgth.astype(jnp.float32) * grad_bkgth.astype(jnp.float32), axis=-1)
    given = _Given(_cut(grad_bkgth, 3), _cut(log_sum, 3), _cut(rest, 3))
    grad_q = jnp.zeros(queries.q_bkgth.shape, jnp.float32)
    key_grads = (jnp.zeros(keys.k_bksh.shape, jnp.float32), jnp.zeros(keys.v_bksh.shape, jnp.float32))
    look = functools.partial(_look_back, queries=queries, given=given, options=options)

    def step(carry: tuple[Array, KeyGrads, _Keys], number: Array) -> tuple[tuple[Array, KeyGrads, _Keys], None]:
        grad_q, key_grads, keys = carry
        coming = _pass_on(keys, options)
        grad_q, key_grads = look(grad_q, key_grads, keys=keys, block=(me - number) % options.ways)
        return (grad_q, _pass_on(key_grads, options), coming), None

    last = options.steps(q_bkgth.shape[3]) - 1
    carry, _ = jax.lax.scan(step, (grad_q, key_grads, keys), jnp.arange(last, dtype=jnp.int32))
    grad_q, key_grads, held = carry
    grad_q, key_grads = look(grad_q, key_grads, keys=held, block=(me - last) % options.ways)
    grad_k, grad_v = _pass_on(key_grads, options, by=-last)  # home, to whom the keys belong
    dtype = q_bkgth.dtype  # that of keys and values too
    return _join(grad_q, 3).astype(dtype), grad_k.astype(dtype), grad_v.astype(dtype), None, None


_ring.defvjp(_ring_fwd, _ring_bwd)
