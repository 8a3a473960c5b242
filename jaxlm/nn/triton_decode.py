"""All layers of one decoding step of one row on an NVIDIA GPU, in one kernel. Not in the generate path yet: the bench
runs it beside XLA's loop (``python -m tools.bench decode_kernel``).

A step reads each weight once, so its floor is the memory's bandwidth; kernels of their own for each product lose some
microseconds each in launch, ramp and tail. Here one program on each multiprocessor runs through all layers, in five
phases a layer with a barrier after each:

1. norm, then queries, keys and values;
2. rotation, the new entry of the cache, attention over a part of the slots;
3. the parts put together, the map out of attention, the stream;
4. norm, then up and gate and the activation;
5. the map down, the stream.

After its arrival at a barrier a program asks for the first weights of the next phase, which depend on no one, and then
waits (`nn.triton_matvec`). Which decoders are covered: `models.decoder_kernel`.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array
from jaxlm.nn.triton_matvec import COLUMNS, Product, Share, Vector, halves, place

MASKED = -1e30
PHASES = 5
"""Barriers of a layer."""
_PATIENCE = 1 << 20
"""Looks at a barrier before a program gives up (half a second or more): programs that do not run at once would
otherwise wait for ever. Its results are NaN then."""


class DecodeKernel(NamedTuple):
    """What is computed, and how it is cut. Hashable: it is no part of what is traced."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float
    scale: float
    """Of scores."""
    dtype: Any
    """Of the stream, the weights and the cache."""
    programs: int = 132
    """At most the GPU's multiprocessors: all must run at once."""
    warps: int = 16
    ahead: int = 8
    """Tiles of weights, 512 bytes of a row for each warp, that are on their way while one is multiplied."""
    early: int = 8
    """Of them before a barrier."""
    slots: int = 128
    """Of the cache, that are read at once."""
    splits: int | None = None
    """Parts that the slots of a head are cut into; None = as many as there are programs for."""
    interpret: bool = False
    """Pallas's interpreter in place of a GPU, one program: slow, to check the kernel anywhere."""


class LayerWeights(NamedTuple):
    """Of all layers, stacked; 16-bit kernels two a word (:func:`pack`), gains f32 as :func:`halves`."""

    attn_norm_ld: Array
    qkv_lod: Array
    """[l, (n + 2 k) h, d]."""
    out_ldo: Array
    mlp_norm_ld: Array
    up_gate_lfd: Array
    """[l, 2 f, d]."""
    down_ldf: Array


def decode_layers(
    kernel: DecodeKernel,
    x_d: Array,
    weights: LayerWeights,
    cache: tuple[Array, Array],
    slot: Array,
    visible_s: Array,
    rope_2h: Array,
) -> tuple[Array, tuple[Array, Array]]:
    """The stream after all layers and the caches [l, k, s, h] of keys and values with ``slot`` written.

    ``visible_s``: int32, slots that are seen; ``rope_2h``: f32, cosine and sine of the position (`nn.rope`).
    """
    _refuse(kernel, x_d, cache)
    k_cache, _ = cache
    layers, num_kv, capacity, h = k_cache.shape
    d, n = x_d.shape[0], kernel.num_heads
    group, programs = n // num_kv, 1 if kernel.interpret else kernel.programs
    splits = max(1, programs // num_kv) if kernel.splits is None else kernel.splits
    f = weights.up_gate_lfd.shape[1] // 2
    qkv_width = weights.qkv_lod.shape[1]
    packed = 2 if jnp.dtype(kernel.dtype).itemsize == 2 else 1
    f32, i32 = jnp.float32, jnp.int32
    flat = [
        w.reshape(-1, w.shape[-1]) for w in (weights.qkv_lod, weights.out_ldo, weights.up_gate_lfd, weights.down_ldf)
    ]

    def shape(dtype: Any, *dims: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype)

    out_shape = (
        shape(f32, d),  # the stream, as `halves`
        shape(k_cache.dtype, *k_cache.shape),
        shape(k_cache.dtype, *k_cache.shape),
        shape(jnp.int32, 32),  # arrivals at barriers
        shape(f32, d),  # the stream between attention and MLP
        shape(f32, qkv_width),
        shape(f32, splits * n * h),  # attention in parts: values, largest score, sum of weights
        shape(f32, splits * n),
        shape(f32, splits * n),
        shape(f32, programs * n * h),  # their sum, for each program
        shape(f32, f),
    )

    def program(*refs: Any) -> None:
        attn_norm_ref, mlp_norm_ref, qkv_w, out_w, up_gate_w, down_w, slot_ref, visible_ref, rope_ref = refs[:9]
        x_ref, k_ref, v_ref, count_ref, mid_ref, qkv_ref, part_ref, top_ref, sum_ref, own_ref, inner_ref = refs[13:]
        p = pl.program_id(0)
        zero = p * 0
        slot = plgpu.load(slot_ref.at[zero])
        col_h = jnp.arange(h, dtype=i32)
        cos_h, sin_h = plgpu.load(rope_ref.at[col_h]), plgpu.load(rope_ref.at[h + col_h])
        share = Share(
            p,
            programs,
            jnp.arange(kernel.warps, dtype=i32)[:, None],
            jnp.arange(COLUMNS, dtype=i32)[None, :],
            packed,
            kernel.interpret,
        )

        def rounded(x: Array) -> Array:
            return x.astype(kernel.dtype).astype(f32)

        def arrive() -> None:
            if not kernel.interpret:
                plgpu.debug_barrier()
            plgpu.atomic_add(count_ref, (zero,), jnp.int32(1))

        def look() -> Array:
            # A plain read is no fence, and need not be one: an arrival empties this multiprocessor's first cache, and
            # until the wait is over nothing is read that another program may still write.
            return plgpu.load(count_ref.at[zero], volatile=True)

        def wait(barrier: Array, patience: Array) -> Array:
            """Until all have arrived ``barrier`` times; the patience left for the next."""
            if kernel.interpret:  # a single program waits for no one
                return patience
            target = barrier * programs

            def go_on(state: tuple[Array, Array]) -> Array:
                return (state[0] < target) & (state[1] > 0)

            def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
                return look(), state[1] - 1

            seen, _ = jax.lax.while_loop(go_on, again, (look(), patience))
            plgpu.debug_barrier()
            return jnp.where(seen < target, 0, jnp.int32(_PATIENCE))

        class Slots:
            """A part of the slots of a key head, of which this program finds the attention."""

            def __init__(self, layer: Array, item: Array):
                self.split, self.active = item % splits, item < num_kv * splits
                self.kv = jnp.minimum(item // splits, num_kv - 1)
                own = (slot + splits) // splits  # of slot + 1 slots
                self.low, high = self.split * own, jnp.minimum((self.split + 1) * own, slot + 1)
                self.end = jnp.where(self.active, jnp.minimum(high, slot), 0)  # the newest comes from elsewhere
                self.has_newest = self.active & (self.low <= slot) & (slot < high)
                self.base = (layer * num_kv + self.kv) * capacity
                self.first = self.read(0)

            def read(self, i: Any) -> tuple[Array, Array, Array]:
                """Keys and values [t, h] of some slots, and which are seen."""
                slot_t = self.low + i * kernel.slots + jnp.arange(kernel.slots, dtype=i32)
                inside_t = slot_t < self.end
                at, mask = (self.base + slot_t[:, None], col_h[None, :]), inside_t[:, None] & (col_h[None, :] >= 0)
                none = jnp.zeros((), k_ref.dtype)
                k_th, v_th = (
                    plgpu.load(ref.at[at], mask=mask, other=none, eviction_policy="evict_first")
                    for ref in (k_ref, v_ref)
                )
                seen_t = plgpu.load(visible_ref.at[slot_t], mask=inside_t, other=jnp.int32(0)) != 0
                return k_th, v_th, seen_t

        def attention(part: Slots) -> None:
            kv, split = part.kv, part.split

            def rotated(first: Array) -> Array:
                x_h = plgpu.load(qkv_ref.at[first + col_h])
                other_h = plgpu.load(qkv_ref.at[first + (col_h + h // 2) % h])
                return rounded(x_h * cos_h + other_h * sin_h)

            k_h, v_h = rotated((n + kv) * h), plgpu.load(qkv_ref.at[(n + num_kv + kv) * h + col_h])
            q_gh = [rounded(rotated((kv * group + g) * h) * kernel.scale) for g in range(group)]
            is_own, newest = part.has_newest, part.base + slot
            plgpu.store(k_ref.at[newest, col_h], k_h.astype(k_ref.dtype), mask=is_own & (col_h >= 0))
            plgpu.store(v_ref.at[newest, col_h], v_h.astype(v_ref.dtype), mask=is_own & (col_h >= 0))

            def taken(read: tuple[Array, Array, Array], state: Any) -> Any:
                k_th, v_th = (x.astype(f32) for x in read[:2])
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
                (
                    jnp.where(is_own, v_h, 0.0),
                    jnp.where(is_own, jnp.sum(q_h * k_h), MASKED),
                    is_own.astype(f32),
                )
                for q_h in q_gh
            )
            turns = pl.cdiv(jnp.maximum(part.end - part.low, 0), kernel.slots)
            state = jax.lax.fori_loop(1, turns, lambda i, state: taken(part.read(i), state), taken(part.first, start))
            for g, (acc_h, top, total) in enumerate(state):
                head = kv * group + g
                plgpu.store(part_ref.at[split * (n * h) + head * h + col_h], acc_h, mask=part.active & (col_h >= 0))
                plgpu.store(top_ref.at[split * n + head], top, mask=part.active)
                plgpu.store(sum_ref.at[split * n + head], total, mask=part.active)

        def put_together() -> Vector:
            index = jnp.arange(pl.next_power_of_2(n * h), dtype=i32)
            mask = index < n * h
            tops, totals, parts = (
                [plgpu.load(ref.at[s * step + at], mask=mask, other=other) for s in range(splits)]
                for ref, step, at, other in (
                    (top_ref, n, index // h, 0.0),
                    (sum_ref, n, index // h, 1.0),
                    (part_ref, n * h, index, 0.0),
                )
            )
            top = functools.reduce(jnp.maximum, tops)
            scales = [jnp.exp(t - top) for t in tops]
            total = sum(a * b for a, b in zip(scales, totals, strict=True))
            out: Any = sum(a * b for a, b in zip(scales, parts, strict=True))
            start = p * (n * h)
            plgpu.store(own_ref.at[start + place(index, n * h, packed)], rounded(out / total), mask=mask)
            if not kernel.interpret:
                plgpu.debug_barrier()
            return Vector(share, own_ref, start, n * h)

        def to_stream(source_ref: Any, target_ref: Any, failed: Array) -> Any:
            def use(row_r: Array, mask_r: Array, sums: list[Array]) -> None:
                at_r = place(row_r, d, packed)
                old_r = plgpu.load(source_ref.at[at_r], mask=mask_r, other=0.0)
                new_r = rounded(old_r + rounded(sums[0]))
                plgpu.store(target_ref.at[at_r], jnp.where(failed, math.nan, new_r), mask=mask_r)

            return use

        def to_qkv(row_r: Array, mask_r: Array, sums: list[Array]) -> None:
            plgpu.store(qkv_ref.at[row_r], rounded(sums[0]), mask=mask_r)

        def to_inner(row_r: Array, mask_r: Array, sums: list[Array]) -> None:
            up_r, gate_r = (rounded(s) for s in sums)
            inner_r = rounded(gate_r / (1.0 + jnp.exp(-gate_r))) * up_r
            plgpu.store(inner_ref.at[place(row_r, f, packed)], rounded(inner_r), mask=mask_r)

        def normalised(ref: Any, gain_ref: Any, layer: Array) -> Vector:
            return Vector(share, ref, 0, d, eps=kernel.eps, gain=(gain_ref, layer * d))

        def layer_step(layer: Array, patience: Array) -> Array:
            barrier = layer * PHASES

            def product(ref: Any, outputs: int, kernels: int = 1) -> Product:
                out = Product(share, ref, layer, outputs, ahead=kernel.ahead, kernels=kernels)
                out.ask(kernel.early)
                return out

            qkv = product(qkv_w, qkv_width)
            patience = wait(barrier, patience)
            qkv.run(normalised(x_ref, attn_norm_ref, layer), to_qkv)
            arrive()
            parts = [Slots(layer, p + i * programs) for i in range(pl.cdiv(num_kv * splits, programs))]
            patience = wait(barrier + 1, patience)
            for part in parts:
                attention(part)
            arrive()
            out = product(out_w, d)
            patience = wait(barrier + 2, patience)
            out.run(put_together(), to_stream(x_ref, mid_ref, patience == 0))
            arrive()
            up_gate = product(up_gate_w, f, 2)
            patience = wait(barrier + 3, patience)
            up_gate.run(normalised(mid_ref, mlp_norm_ref, layer), to_inner)
            arrive()
            down = product(down_w, d)
            patience = wait(barrier + 4, patience)
            down.run(Vector(share, inner_ref, 0, f), to_stream(mid_ref, x_ref, patience == 0))
            arrive()
            return patience

        jax.lax.fori_loop(0, layers, layer_step, jnp.int32(_PATIENCE))

    flat_cache = [c.reshape(-1, h) for c in cache]
    count = jnp.zeros((32,), jnp.int32)
    inputs = [
        weights.attn_norm_ld.reshape(-1),
        weights.mlp_norm_ld.reshape(-1),
        *flat,
        slot.reshape(1),
        visible_s,
        rope_2h.reshape(-1),
        halves(x_d.astype(f32), packed),
        *flat_cache,
        count,
    ]
    out_shape = (out_shape[0], *(shape(c.dtype, *c.shape) for c in flat_cache), *out_shape[3:])
    x_d, k_cache, v_cache, *_ = pl.pallas_call(
        program,
        grid=(programs,),
        out_shape=out_shape,
        input_output_aliases={9: 0, 10: 1, 11: 2, 12: 3},
        compiler_params=plgpu.CompilerParams(num_warps=kernel.warps, num_stages=1),
        interpret=kernel.interpret,
        name="decode_layers",
    )(*inputs)
    x_d = x_d.reshape(packed, d // packed).T.reshape(d).astype(kernel.dtype)
    return x_d, (k_cache.reshape(cache[0].shape), v_cache.reshape(cache[1].shape))


def _refuse(kernel: DecodeKernel, x_d: Array, cache: tuple[Array, Array]) -> None:
    """What would be computed wrongly, or not compile."""
    dtype, h = jnp.dtype(kernel.dtype), kernel.head_dim
    if dtype not in (jnp.bfloat16, jnp.float32):
        raise ValueError(f"dtype={dtype} is not one that the decoding kernel reads: use bfloat16 or float32")
    if x_d.ndim != 1:
        raise ValueError(f"x of shape {x_d.shape} is not one row [d]: the decoding kernel has one, take XLA's loop")
    if h & (h - 1):
        raise ValueError(f"head_dim={h} is not a power of two, as the decoding kernel needs it: take XLA's loop")
    for name, array in zip("kv", cache, strict=True):
        if array.ndim != 4 or (array.shape[1], array.shape[3]) != (kernel.num_kv_heads, h) or array.dtype != dtype:
            want = f"[layers, {kernel.num_kv_heads}, slots, {h}] {dtype}"
            raise ValueError(f"cache {name!r} is {array.shape} {array.dtype}: the decoding kernel wants {want}")
