"""Scoring tasks by likelihood: items a second, item by item, in batches of whole texts, and with contexts read once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlm.core.keys import Purpose, fold_key
from jaxlm.evals.continuations import Continuation, score_continuations
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.models.presets import gpt2
from jaxlm.run.programs import Programs, programs
from tools.bench.measuring import Row, measure, random_tokens, timed
from tools.bench.models import on_cpu

Requests = list[tuple[list[int], int]]


ONE_BY_ONE = "item by item"


class Case(NamedTuple):
    """Items of one shape: a context, and choices behind it."""

    name: str
    context: int
    """Tokens on average; lengths vary by a quarter."""
    choices: int
    tokens: int
    """Of a choice."""
    cpu_items: int
    gpu_items: int


CASES = (
    Case("cloze (a passage, its last word)", 80, 1, 2, 16, 2048),
    Case("pairs (two sentences)", 1, 2, 12, 32, 4096),
    Case("four letters behind a question", 120, 4, 1, 6, 1024),
    Case("four letters behind five examples", 600, 4, 1, 2, 512),
)


def make_requests(case: Case, count: int, vocab_size: int) -> Requests:
    """``choices`` requests an item, side by side."""
    rng = np.random.default_rng(0)
    requests: Requests = []
    for item in range(count):
        length = 1 if case.context == 1 else int(case.context * rng.uniform(0.75, 1.25))
        context = random_tokens(vocab_size, length + item)[item:].tolist()
        for _ in range(case.choices):
            requests.append((context + rng.integers(0, vocab_size, case.tokens).tolist(), length))
    return requests


def scorers(
    config: DecoderConfig, program: Programs, params: Any
) -> dict[str, Callable[[Requests], list[Continuation]]]:
    """The three ways."""
    assert program.behind is not None
    assert config.vocab_size is not None
    prepared, behind = program.prepare(params), program.behind
    how: dict[str, Any] = {"context": config.max_seq_len, "tokens_per_batch": (1 << 25) // config.vocab_size}

    def whole(tokens_bt: np.ndarray, targets_bt: np.ndarray) -> np.ndarray:
        return np.asarray(program.first_choices(params, tokens_bt, targets_bt))

    def shared(*batches: Any) -> np.ndarray:
        return np.asarray(behind(prepared, *batches))

    return {
        ONE_BY_ONE: lambda asked: [score_continuations(whole, [one], **how)[0] for one in asked],
        "batched": lambda asked: score_continuations(whole, asked, **how),
        "contexts read once": lambda asked: score_continuations(whole, asked, shared_fn=shared, **how),
    }


def bench_likelihood(repeats: int) -> Iterator[Row]:
    """GPT-2's 124M preset with random weights, in f32 on a CPU and bfloat16 elsewhere."""
    config = gpt2() if on_cpu() else dataclasses.replace(gpt2(), compute_dtype="bfloat16")
    vocab_size = config.vocab_size
    assert vocab_size is not None
    params = jax.jit(make_decoder(config).init)(fold_key(0, Purpose.INIT))
    ways = scorers(config, programs(config), params)
    for case in CASES:
        asked = make_requests(case, case.cpu_items if on_cpu() else case.gpu_items, vocab_size)
        first: np.ndarray | None = None
        for way, score in ways.items():
            # One by one is slow, and a call is as another: a small part of them.
            few = max(4, len(asked) // case.choices // 64) * case.choices if way == ONE_BY_ONE else len(asked)
            part = asked[:few]
            said = np.concatenate([one.logprobs for one in score(part)])
            first = said if first is None else first
            seconds = measure(functools.partial(score, part), repeats=min(repeats, 2 if on_cpu() else 5))
            yield timed(
                f"likelihood gpt2-124M {case.name}, {way}",
                seconds,
                items_per_second=len(part) / case.choices / seconds[0],
                largest_difference=float(np.abs(said[: len(first)] - first).max()),
            )
