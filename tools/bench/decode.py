"""Decoding, prefill apart: milliseconds a step, and how near it comes to reading memory once."""

import functools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.keys import Purpose, fold_key
from jaxlm.core.tree import count_bytes, count_params
from jaxlm.generate.decode import decode, left_pad, prefill
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.models.decoder_inference import Weights, inference_config, inference_params
from jaxlm.models.families import for_platform, make_model
from jaxlm.plan.decoding import decode_step_bytes, memory_bandwidth
from tools.bench.measuring import Row, measured_bandwidth, random_tokens, spread, timed
from tools.bench.models import LLAMA, MIDDLE, SMALL, on_cpu


class Case(NamedTuple):
    """Prompts completed greedily."""

    name: str
    model: DecoderConfig
    rows: int
    prompt: int
    new: int
    weights: Weights = "trained"

    @property
    def label(self) -> str:
        """Name of its row in the table."""
        kept = "" if self.weights == "trained" else f" {self.weights}"
        return f"decode {self.name}{kept} batch {self.rows}, {self.prompt} + {self.new} tokens"


CPU_CASES = (
    *(Case("0.8M", SMALL, rows, 32, 32) for rows in (1, 64)),
    *(Case("110M f32", MIDDLE, 1, 64, 33, weights) for weights in ("trained", "int8")),
)
GPU_CASES = tuple(
    Case("llama-1.3B bf16", LLAMA, rows, 512, 257, weights) for rows in (1, 64) for weights in ("trained", "int8")
)


@functools.cache
def _bandwidth() -> float:
    return measured_bandwidth(2**28 if on_cpu() else 2**33)


def time_decode(case: Case, repeats: int) -> Row:
    """One row. ``bandwidth_fraction``: bytes that a step must read (parameters once, the cache as far as it is filled)
    over what this machine's memory was measured to read in that time; ``peak_fraction``: over its data sheet."""
    config = case.model
    written = inference_config(config)
    model = make_model(for_platform(written, jax.default_backend()))
    make = jax.jit(lambda key: inference_params(config, make_decoder(config).init(key), weights=case.weights))
    params = make(fold_key(0, Purpose.INIT))
    greedy = SamplingConfig(temperature=0.0)
    key = fold_key(0, Purpose.SAMPLE)
    start = jax.jit(functools.partial(prefill, model, max_new_tokens=case.new, sampling=greedy, key=key))
    go_on = jax.jit(functools.partial(decode, model, sampling=greedy), donate_argnames="state")
    prompts = random_tokens(config.padded_vocab_size, case.rows * case.prompt).reshape(case.rows, -1)
    inputs = left_pad(prompts.tolist(), 0)
    prefills, steps = [], []
    state: Any = None
    for _ in range(repeats + 1):  # the first compiles
        began = time.perf_counter()
        state = jax.block_until_ready(start(params, *inputs))
        read = time.perf_counter()
        state = jax.block_until_ready(go_on(params, state=state, until=case.new))
        steps.append((time.perf_counter() - read) / (case.new - 1))
        prefills.append(read - began)
    seconds = spread(steps[1:])
    itemsize = as_dtype(config.compute_dtype).itemsize
    filled = case.prompt + case.new / 2
    read_bytes = decode_step_bytes(written, params, rows=case.rows, cached_tokens=filled, itemsize=itemsize)
    bandwidth, peak = _bandwidth(), memory_bandwidth(jax.devices()[0].device_kind)
    return timed(
        case.label,
        seconds,
        tokens_per_second=case.rows / seconds[0],
        prefill_ms=1e3 * statistics.median(prefills[1:]),
        bytes_per_step=read_bytes,
        measured_bandwidth=bandwidth,
        bandwidth_fraction=read_bytes / bandwidth / seconds[0],
        peak_fraction=None if peak is None else read_bytes / peak / seconds[0],
        num_params=count_params(jax.eval_shape(make_decoder(config).init, jax.random.key(0))),
        param_bytes=count_bytes(params),
        compile_seconds=prefills[0] + steps[0],
    )


def bench_decode(repeats: int, cases: Sequence[Case] | None = None) -> Iterator[Row]:
    """Greedy completion of batches of prompts, step by step."""
    if cases is None:
        cases = CPU_CASES if on_cpu() else GPU_CASES
    for case in cases:
        yield time_decode(case, min(repeats, 10))
