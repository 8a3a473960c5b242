"""Greedy decoding of one row: XLA's loop beside one kernel (`nn.triton_decode`)."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.keys import Purpose, fold_key
from jaxlm.generate.decode import decode, left_pad, prefill
from jaxlm.generate.decode_row import decode_row
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.decoder import make_decoder
from jaxlm.models.decoder_inference import inference_config, inference_params
from jaxlm.models.decoder_kernel import decode_kernel, kernel_weights
from jaxlm.models.families import for_platform, make_model
from jaxlm.plan.decoding import decode_step_bytes
from tools.bench.measuring import Row, measured_bandwidth, random_tokens, spread, timed
from tools.bench.models import LLAMA, on_cpu

TINY = dataclasses.replace(
    LLAMA, num_layers=1, model_dim=64, num_heads=2, num_kv_heads=1, mlp_dim=96, vocab_size=64, max_seq_len=32
)
"""For Pallas's interpreter, on a CPU."""


def bench_decode_kernel(repeats: int) -> Iterator[Row]:
    """A row for each loop. ``same_tokens``: how many are equal before the first that is not; ``logprob_gap``: the
    largest between log-probabilities of those, or of the first. Weights are random and in bfloat16: near ties are
    common, and rounding decides them."""
    tiny = on_cpu()
    if not tiny and jax.default_backend() != "gpu":
        return
    config, prompt, new = (TINY, 8, 4) if tiny else (LLAMA, 512, 257)
    bandwidth = measured_bandwidth(2**20 if tiny else 2**33)  # first: nothing else runs, or compiles, by now
    written = inference_config(config)
    model = make_model(for_platform(written, jax.default_backend()))
    params = jax.jit(lambda key: inference_params(config, make_decoder(config).init(key)))(fold_key(0, Purpose.INIT))
    greedy = SamplingConfig(temperature=0.0)
    key = fold_key(0, Purpose.SAMPLE)
    start = jax.jit(functools.partial(prefill, model, max_new_tokens=new, sampling=greedy, key=key))
    inputs = left_pad([random_tokens(config.padded_vocab_size, prompt).tolist()], 0)
    read_bytes = decode_step_bytes(
        written, params, rows=1, cached_tokens=prompt + new / 2, itemsize=as_dtype(config.compute_dtype).itemsize
    )

    def row(name: str, prepared: Callable[[], Any], loop: Callable[[Any], Any]) -> tuple[Any, Row]:
        times: list[float] = []
        out: Any = None
        for _ in range(min(repeats, 10) + 1):  # the first compiles
            given = jax.block_until_ready(prepared())
            began = time.perf_counter()
            out = jax.block_until_ready(loop(given))
            times.append((time.perf_counter() - began) / (new - 1))
        seconds = spread(times[1:])
        label = f"decode_kernel {'tiny' if tiny else 'llama-1.3B bf16'} {name}, {prompt} + {new} tokens"
        figures = {"bytes_per_step": read_bytes, "measured_bandwidth": bandwidth}
        fraction = read_bytes / bandwidth / seconds[0]
        return out, timed(label, seconds, **figures, bandwidth_fraction=fraction, compile_seconds=times[0])

    go_on = jax.jit(functools.partial(decode, model, sampling=greedy), donate_argnames="state")

    def prepared() -> Any:
        return start(params, *inputs)

    state, theirs = row("XLA", prepared, lambda state: go_on(params, state=state, until=new))
    yield theirs
    # Fewer multiprocessors than programs would hang: all must run at once.
    cut = {"warps": 1, "slots": 16} if tiny else {"programs": getattr(jax.devices()[0], "core_count", 132)}
    kernel = decode_kernel(config, interpret=tiny, **cut)
    weights = jax.jit(functools.partial(kernel_weights, written))(params)
    in_one = jax.jit(functools.partial(decode_row, kernel, written), donate_argnames="state")
    mine, ours = row("one kernel", prepared, lambda state: in_one(weights, state=state, until=new))
    tokens, logprobs = (getattr(mine.generated, name)[0, 1:] for name in ("tokens_bn", "logprobs_bn"))
    same = tokens == state.generated.tokens_bn[0, 1:]
    until = new - 1 if bool(jnp.all(same)) else int(jnp.argmin(same))
    gap = jnp.abs(logprobs - state.generated.logprobs_bn[0, 1:])[: max(until, 1)]
    yield {**ours, "same_tokens": until, "of": new - 1, "logprob_gap": float(jnp.max(gap))}
