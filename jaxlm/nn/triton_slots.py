"""Attention of one new token inside a Pallas kernel for NVIDIA GPUs (:mod:`jaxlm.nn.triton_decode`): the slots of each
key head are cut into parts, one for a program, and every program puts the parts together for itself."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array
from jaxlm.nn.triton_barrier import Barriers
from jaxlm.nn.triton_matvec import Share, Vector, place

MASKED = -1e30


class Heads(NamedTuple):
    """Sizes: the cache's, and how it is read."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    capacity: int
    """Slots of the cache."""
    scale: float
    """Of scores."""
    dtype: Any
    splits: int
    """Parts that the slots of a key head are cut into."""
    slots: int
    """That are read at once."""

    @property
    def size(self) -> int:
        """Of all heads side by side."""
        return self.num_heads * self.head_dim


class AttentionRefs(NamedTuple):
    """What is read and written."""

    qkv: Any
    """f32 [(n + 2 k) h], before rotation."""
    keys: Any
    """[l k s, h]; values too."""
    values: Any
    visible: Any
    """int32 [s], 0 = a slot that is not seen."""
    parts: Any
    """f32 [splits n h]: values by their weights; ``tops`` and ``sums`` [splits n]: largest score, sum of weights."""
    tops: Any
    sums: Any
    own: Any
    """f32 [programs n h]: the parts put together, for each program."""


class Slots:
    """A part of the slots of a key head, of which this program finds the attention; the first are asked for."""

    def __init__(self, heads: Heads, refs: AttentionRefs, layer: Array, item: Array, slot: Array):
        splits, num_kv = heads.splits, heads.num_kv_heads
        self.heads, self.refs = heads, refs
        self.split, self.active = item % splits, item < num_kv * splits
        self.kv = jnp.minimum(item // splits, num_kv - 1)
        own = (slot + splits) // splits  # of slot + 1 slots
        self.low, high = self.split * own, jnp.minimum((self.split + 1) * own, slot + 1)
        self.end = jnp.where(self.active, jnp.minimum(high, slot), 0)  # the newest comes from elsewhere
        self.has_newest = self.active & (self.low <= slot) & (slot < high)
        self.base = (layer * num_kv + self.kv) * heads.capacity
        self.newest = self.base + slot
        self.first = self.read(0)

    def read(self, i: Any) -> tuple[Array, Array, Array]:
        """Keys and values [t, h] of some slots, and which are seen."""
        col_h = jnp.arange(self.heads.head_dim, dtype=jnp.int32)
        slot_t = self.low + i * self.heads.slots + jnp.arange(self.heads.slots, dtype=jnp.int32)
        inside_t = slot_t < self.end
        at, mask = (self.base + slot_t[:, None], col_h[None, :]), inside_t[:, None] & (col_h[None, :] >= 0)
        none = jnp.zeros((), self.refs.keys.dtype)
        k_th, v_th = (
            plgpu.load(ref.at[at], mask=mask, other=none, eviction_policy="evict_first")
            for ref in (self.refs.keys, self.refs.values)
        )
        seen_t = plgpu.load(self.refs.visible.at[slot_t], mask=inside_t, other=jnp.int32(0)) != 0
        return k_th, v_th, seen_t


def attend_slots(part: Slots, rope: tuple[Array, Array]) -> None:
    """The attention of one part, and the newest entry of the cache. ``rope``: cosine and sine [h] of the position."""
    heads, refs, kv = part.heads, part.refs, part.kv
    n, num_kv, h = heads.num_heads, heads.num_kv_heads, heads.head_dim
    group, (cos_h, sin_h) = n // num_kv, rope
    col_h = jnp.arange(h, dtype=jnp.int32)

    def rounded(x: Array) -> Array:
        return x.astype(heads.dtype).astype(jnp.float32)

    def rotated(first: Array) -> Array:
        x_h = plgpu.load(refs.qkv.at[first + col_h])
        other_h = plgpu.load(refs.qkv.at[first + (col_h + h // 2) % h])
        return rounded(x_h * cos_h + other_h * sin_h)

    k_h, v_h = rotated((n + kv) * h), plgpu.load(refs.qkv.at[(n + num_kv + kv) * h + col_h])
    q_gh = [rounded(rotated((kv * group + g) * h) * heads.scale) for g in range(group)]
    is_own = part.has_newest
    for ref, new_h in ((refs.keys, k_h), (refs.values, v_h)):
        plgpu.store(ref.at[part.newest, col_h], new_h.astype(ref.dtype), mask=is_own & (col_h >= 0))

    def taken(read: tuple[Array, Array, Array], state: Any) -> Any:
        k_th, v_th = (x.astype(jnp.float32) for x in read[:2])
        seen_t, out = read[2], []
        for (acc_h, top, total), q_h in zip(state, q_gh, strict=True):
            score_t = jnp.where(seen_t, jnp.sum(k_th * q_h[None, :], axis=1), MASKED)
            new_top = jnp.maximum(top, jnp.max(score_t))
            weight_t = jnp.where(seen_t, jnp.exp(score_t - new_top), 0.0)
            kept = jnp.exp(top - new_top)
            acc_h = acc_h * kept + jnp.sum(v_th * weight_t[:, None], axis=0)
            out.append((acc_h, new_top, total * kept + jnp.sum(weight_t)))
        return tuple(out)

    start = tuple(
        (jnp.where(is_own, v_h, 0.0), jnp.where(is_own, jnp.sum(q_h * k_h), MASKED), is_own.astype(jnp.float32))
        for q_h in q_gh
    )
    turns = pl.cdiv(jnp.maximum(part.end - part.low, 0), heads.slots)
    state = jax.lax.fori_loop(1, turns, lambda i, state: taken(part.read(i), state), taken(part.first, start))
    for g, (acc_h, top, total) in enumerate(state):
        at = part.split * n + kv * group + g
        plgpu.store(refs.parts.at[at * h + col_h], acc_h, mask=part.active & (col_h >= 0))
        plgpu.store(refs.tops.at[at], top, mask=part.active)
        plgpu.store(refs.sums.at[at], total, mask=part.active)


def put_together(heads: Heads, refs: AttentionRefs, share: Share, barriers: Barriers) -> Vector:
    """The attention of all heads, for this program."""
    n, h, size = heads.num_heads, heads.head_dim, heads.size
    index = jnp.arange(pl.next_power_of_2(size), dtype=jnp.int32)
    mask = index < size
    tops, totals, parts = (
        [plgpu.load(ref.at[s * step + at], mask=mask, other=other) for s in range(heads.splits)]
        for ref, step, at, other in (
            (refs.tops, n, index // h, 0.0),
            (refs.sums, n, index // h, 1.0),
            (refs.parts, size, index, 0.0),
        )
    )
    top = functools.reduce(jnp.maximum, tops)
    scales = [jnp.exp(t - top) for t in tops]
    total = sum(a * b for a, b in zip(scales, totals, strict=True))
    out: Any = sum(a * b for a, b in zip(scales, parts, strict=True))
    out = (out / total).astype(heads.dtype).astype(jnp.float32)
    start = share.program * size
    plgpu.store(refs.own.at[start + place(index, size, share.packed)], out, mask=mask)
    barriers.join_warps()
    return Vector(share, refs.own, start, size)
