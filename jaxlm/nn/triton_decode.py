"""Greedy decoding of one row on an NVIDIA GPU, all tokens in one kernel.

A token reads each weight once, so its floor is the memory's bandwidth; kernels of their own for each product lose some
microseconds each in launch, ramp and tail. Here one program on each multiprocessor runs through all layers and all
tokens. A token is the row of the table, then five phases a layer, then norm, head and the choice of the most likely
token, with a barrier after each:

1. norm, then queries, keys and values;
2. rotation, the new entry of the cache, attention over a part of the slots (`nn.triton_slots`);
3. the parts put together, the map out of attention, the stream;
4. norm, then up and gate and the activation;
5. the map down, the stream.

After its arrival at a barrier a program asks for the first weights of the next phase, which depend on no one, and then
waits (`nn.triton_matvec`). Which decoders are covered: `models.decoder_kernel`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array
from jaxlm.nn.triton_barrier import PATIENCE, Barriers
from jaxlm.nn.triton_ends import Best, begin_head, best_of_head, embed
from jaxlm.nn.triton_matvec import COLUMNS, Product, Share, Vector, place
from jaxlm.nn.triton_slots import MASKED, AttentionRefs, Heads, Slots, attend_slots, put_together

PHASES = 5
"""Barriers of a layer."""
_ENDS = 2
"""Barriers of a token beside those of its layers: behind the table, and behind the head."""


class DecodeKernel(NamedTuple):
    """What is computed, and how it is cut. Hashable: it is no part of what is traced."""

    vocab_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float
    scale: float
    """Of scores."""
    dtype: Any
    """Of the stream, the weights and the cache."""
    logits_dtype: Any = jnp.float32
    """What logits are rounded to."""
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


class KernelWeights(NamedTuple):
    """16-bit kernels two a word (`triton_matvec.pack`), gains f32 as `triton_matvec.halves`; layers stacked."""

    attn_norm_ld: Array
    qkv_lod: Array
    """[l, (n + 2 k) h, d]."""
    out_ldo: Array
    mlp_norm_ld: Array
    up_gate_lfd: Array
    """[l, 2 f, d]."""
    down_ldf: Array
    final_norm_d: Array
    table_vd: Array
    head_vd: Array | None
    """None: the table serves."""


class Row(NamedTuple):
    """Where decoding stands, and what it needs from outside."""

    token: Array
    """The newest, which is not in the cache yet; int32, as all counts here."""
    slot: Array
    """Of the cache, where it will be."""
    num_tokens: Array
    """To draw, at most as many as ``rope_t2h`` has rows."""
    stop_s: Array
    """Tokens that end it, -1 for none; a power of two of them."""
    visible_s: Array
    """Slots that are seen, those to be written included: 1, else 0."""
    rope_t2h: Array
    """f32: cosine and sine of the position of each token from ``token`` on (`nn.rope`)."""


class Decoded(NamedTuple):
    """``tokens`` and ``logprobs`` [t] (f32, nats) hold ``num_drawn`` of them, the stop token included."""

    tokens: Array
    logprobs: Array
    num_drawn: Array
    cache: tuple[Array, Array]
    """Keys and values [l, k, s, h]."""


def decode_greedily(kernel: DecodeKernel, weights: KernelWeights, cache: tuple[Array, Array], row: Row) -> Decoded:
    """Up to ``row.num_tokens`` tokens, each the most likely (the lowest id on a tie). Log-probabilities are NaN if
    programs did not run at once."""
    _refuse(kernel, cache)
    k_cache, _ = cache
    layers, num_kv, capacity, h = k_cache.shape
    packed = 2 if jnp.dtype(kernel.dtype).itemsize == 2 else 1
    d, n = weights.final_norm_d.shape[-1], kernel.num_heads
    programs = 1 if kernel.interpret else kernel.programs
    splits = max(1, programs // num_kv) if kernel.splits is None else kernel.splits
    f, qkv_width = weights.up_gate_lfd.shape[1] // 2, weights.qkv_lod.shape[1]
    most, ahead = row.rope_t2h.shape[0], kernel.ahead
    heads = Heads(n, num_kv, h, capacity, kernel.scale, kernel.dtype, splits, kernel.slots)
    f32, i32 = jnp.float32, jnp.int32

    written = {
        "x": (f32, d),  # the stream, as `halves`
        "keys": (k_cache.dtype, layers * num_kv * capacity, h),
        "values": (k_cache.dtype, layers * num_kv * capacity, h),
        "arrivals": (i32, 32),
        "tokens": (i32, most),
        "logprobs": (f32, most),
        "drawn": (i32, 32),
        "mid": (f32, d),  # the stream between attention and MLP
        "qkv": (f32, qkv_width),
        "parts": (f32, splits * n * h),
        "tops": (f32, splits * n),
        "sums": (f32, splits * n),
        "own": (f32, programs * n * h),
        "inner": (f32, f),
        "best_top": (f32, programs),
        "best_token": (i32, programs),
        "best_total": (f32, programs),
    }

    def rounded(x: Array) -> Array:
        return x.astype(kernel.dtype).astype(f32)

    def program(*refs: Any) -> None:
        ref = dict(zip([*given, *written], refs, strict=True))  # what is aliased comes twice: the output's is used
        p = pl.program_id(0)
        zero = p * 0
        share = Share(
            p,
            programs,
            jnp.arange(kernel.warps, dtype=i32)[:, None],
            jnp.arange(COLUMNS, dtype=i32)[None, :],
            packed,
            kernel.interpret,
        )
        barriers = Barriers(ref["arrivals"], zero, programs, 32 * kernel.warps, interpret=kernel.interpret)
        attention_refs = AttentionRefs(
            *(ref[name] for name in ("qkv", "keys", "values", "visible", "parts", "tops", "sums", "own"))
        )

        def to_stream(source: str, target: str, failed: Array) -> Any:
            def use(row_r: Array, mask_r: Array, sums: list[Array]) -> None:
                at_r = place(row_r, d, packed)
                old_r = plgpu.load(ref[source].at[at_r], mask=mask_r, other=0.0)
                new_r = rounded(old_r + rounded(sums[0]))
                plgpu.store(ref[target].at[at_r], jnp.where(failed, math.nan, new_r), mask=mask_r)

            return use

        def to_qkv(row_r: Array, mask_r: Array, sums: list[Array]) -> None:
            plgpu.store(ref["qkv"].at[row_r], rounded(sums[0]), mask=mask_r)

        def to_inner(row_r: Array, mask_r: Array, sums: list[Array]) -> None:
            up_r, gate_r = (rounded(s) for s in sums)
            inner_r = rounded(gate_r / (1.0 + jnp.exp(-gate_r))) * up_r
            plgpu.store(ref["inner"].at[place(row_r, f, packed)], rounded(inner_r), mask=mask_r)

        def normalised(source: str, gain: str, layer: Any) -> Vector:
            return Vector(share, ref[source], 0, d, eps=kernel.eps, gain=(ref[gain], layer * d))

        def layer_step(layer: Array, slot: Array, rope: tuple[Array, Array], barrier: Array, patience: Array) -> Array:
            def product(name: str, outputs: int, kernels: int = 1) -> Product:
                out = Product(share, ref[name], layer, outputs, ahead=ahead, kernels=kernels)
                out.ask(kernel.early)
                return out

            qkv = product("qkv_w", qkv_width)
            patience = barriers.wait(barrier, patience)
            qkv.run(normalised("x", "attn_norm", layer), to_qkv)
            barriers.arrive()
            items = range(pl.cdiv(num_kv * splits, programs))
            parts = [Slots(heads, attention_refs, layer, p + i * programs, slot) for i in items]
            patience = barriers.wait(barrier + 1, patience)
            for part in parts:
                attend_slots(part, rope)
            barriers.arrive()
            out = product("out_w", d)
            patience = barriers.wait(barrier + 2, patience)
            out.run(put_together(heads, attention_refs, share, barriers), to_stream("x", "mid", patience == 0))
            barriers.arrive()
            up_gate = product("up_gate_w", f, 2)
            patience = barriers.wait(barrier + 3, patience)
            up_gate.run(normalised("mid", "mlp_norm", layer), to_inner)
            barriers.arrive()
            down = product("down_w", d)
            patience = barriers.wait(barrier + 4, patience)
            down.run(Vector(share, ref["inner"], 0, f), to_stream("mid", "x", patience == 0))
            barriers.arrive()
            return patience

        def choose(barrier: Array, patience: Array) -> tuple[Best, Array]:
            """The same for every program: each gathers what all found."""
            head, best_refs = ref["head"], [ref[f"best_{name}"] for name in Best._fields]
            asked = begin_head(share, head, kernel.vocab_size, ahead=ahead, early=kernel.early)
            patience = barriers.wait(barrier, patience)
            best = best_of_head(
                share,
                head,
                kernel.vocab_size,
                asked,
                lambda: normalised("x", "final_norm", zero),
                ahead=ahead,
                rounded_to=kernel.logits_dtype,
            )
            for target, value in zip(best_refs, best, strict=True):
                plgpu.store(target.at[p], value)
            barriers.arrive()
            patience = barriers.wait(barrier + 1, patience)
            index = jnp.arange(pl.next_power_of_2(programs), dtype=i32)
            there = index < programs
            none = (MASKED, jnp.int32(0), 0.0)
            found = [plgpu.load(r.at[index], mask=there, other=o) for r, o in zip(best_refs, none, strict=True)]
            return Best(*found).joined(), patience

        def draw(step: Array, token: Array, patience: Array) -> tuple[Array, Array, Array]:
            """The next token, the patience left, 1 if the token ends the row."""
            barrier = step * (layers * PHASES + _ENDS) + 1
            slot = plgpu.load(ref["slot"].at[zero]) + step
            col_h = jnp.arange(h, dtype=i32)
            rope = tuple(plgpu.load(ref["rope"].at[step * (2 * h) + i * h + col_h]) for i in range(2))
            embed(share, ref["table"], token, ref["x"], d)
            barriers.arrive()
            patience = jax.lax.fori_loop(
                0,
                layers,
                lambda layer, left: layer_step(layer, slot, rope, barrier + layer * PHASES, left),  # pyright: ignore[reportArgumentType]
                patience,
            )
            best, patience = choose(barrier + layers * PHASES, patience)
            # Whatever was found where programs did not run at once: a row of the table.
            token = jnp.clip(best.token, 0, kernel.vocab_size - 1)
            first = p == 0
            plgpu.store(ref["tokens"].at[step], token, mask=first)
            logprob = jnp.where(patience == 0, math.nan, -jnp.log(best.total))
            plgpu.store(ref["logprobs"].at[step], logprob, mask=first)
            stops = plgpu.load(ref["stop"].at[jnp.arange(row.stop_s.size, dtype=i32)])
            return token, patience, jnp.max((stops == token).astype(i32))

        count = plgpu.load(ref["count"].at[zero])

        def draw_or_rest(step: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
            # A while loop would say it better, but Pallas's interpreter has none around a read of one number.
            token, patience, ended, drawn = state
            goes_on = (step < count) & (ended == 0)
            drawn_now = jax.lax.cond(goes_on, draw, lambda step, *rest: (*rest, ended), step, token, patience)
            return (*drawn_now, drawn + goes_on.astype(i32))

        start = (plgpu.load(ref["token"].at[zero]), jnp.int32(PATIENCE), zero, zero)
        *_, drawn = jax.lax.fori_loop(0, most, draw_or_rest, start)
        plgpu.store(ref["drawn"].at[zero], drawn, mask=p == 0)

    def lines(array: Array) -> Array:
        return array.reshape(-1, array.shape[-1])

    given: dict[str, Array] = {
        "attn_norm": weights.attn_norm_ld.reshape(-1),
        "mlp_norm": weights.mlp_norm_ld.reshape(-1),
        "final_norm": weights.final_norm_d,
        "qkv_w": lines(weights.qkv_lod),
        "out_w": lines(weights.out_ldo),
        "up_gate_w": lines(weights.up_gate_lfd),
        "down_w": lines(weights.down_ldf),
        "table": weights.table_vd,
        "head": weights.table_vd if weights.head_vd is None else weights.head_vd,
        "token": row.token.reshape(1),
        "slot": row.slot.reshape(1),
        "count": row.num_tokens.reshape(1),
        "stop": row.stop_s,
        "visible": row.visible_s,
        "rope": row.rope_t2h.reshape(-1),
        "keys": lines(cache[0]),
        "values": lines(cache[1]),
        "arrivals": jnp.zeros((32,), i32),
    }
    inputs, outputs = list(given), list(written)
    out = pl.pallas_call(
        program,
        grid=(programs,),
        out_shape=[jax.ShapeDtypeStruct(dims, dtype) for dtype, *dims in written.values()],
        input_output_aliases={inputs.index(name): outputs.index(name) for name in ("keys", "values", "arrivals")},
        compiler_params=plgpu.CompilerParams(num_warps=kernel.warps, num_stages=1),
        interpret=kernel.interpret,
        name="decode_greedily",
    )(*given.values())
    named = dict(zip(outputs, out, strict=True))
    new_cache = named["keys"].reshape(k_cache.shape), named["values"].reshape(k_cache.shape)
    return Decoded(named["tokens"], named["logprobs"], named["drawn"][0], new_cache)


def _refuse(kernel: DecodeKernel, cache: tuple[Array, Array]) -> None:
    """What would be computed wrongly, or not compile."""
    dtype, h = jnp.dtype(kernel.dtype), kernel.head_dim
    if dtype not in (jnp.bfloat16, jnp.float32):
        raise ValueError(f"dtype={dtype} is not one that the decoding kernel reads: use bfloat16 or float32")
    if h & (h - 1):
        raise ValueError(f"head_dim={h} is not a power of two, as the decoding kernel needs it: take XLA's loop")
    for name, array in zip("kv", cache, strict=True):
        if array.ndim != 4 or (array.shape[1], array.shape[3]) != (kernel.num_kv_heads, h) or array.dtype != dtype:
            want = f"[layers, {kernel.num_kv_heads}, slots, {h}] {dtype}"
            raise ValueError(f"cache {name!r} is {array.shape} {array.dtype}: the decoding kernel wants {want}")
