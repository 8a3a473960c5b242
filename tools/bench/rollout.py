"""GRPO on the bench: what a rollout and its step cost, and how much of it is drawing."""

import functools
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.core.keys import Purpose, fold_key, purpose_key
from jaxlm.generate.decode import left_pad
from jaxlm.generate.rollout import rollout_keys, sample_answers, training_rows
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.models.decoder_inference import inference_config, inference_params
from jaxlm.models.families import for_platform, make_model
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.train.policy_objectives import PolicyConfig, policy_objective
from jaxlm.train.rollouts import AdvantageConfig, KlConfig, learn_from, make_score_rows
from jaxlm.train.step import make_train_step
from tools.bench.measuring import Row, fresh_state, random_tokens, spread, timed
from tools.bench.models import GPT2, SMALL, on_cpu


class Case(NamedTuple):
    """Groups of answers to random prompts, none of which ends before the limit."""

    name: str
    model: DecoderConfig
    prompts: int
    group: int
    prompt: int
    new: int
    parts: int = 1
    """In which rows are read and learnt from, one after the other."""

    @property
    def label(self) -> str:
        """Name of its row in the table."""
        return f"rollout {self.name} grpo {self.prompts} x {self.group} answers, {self.prompt} + {self.new} tokens"


CPU_CASES = (Case("0.8M", SMALL, 16, 8, 16, 32),)
GPU_CASES = (Case("gpt2-124M bf16", GPT2, 32, 8, 128, 256, parts=8),)


def time_rollout(case: Case, repeats: int) -> Row:
    """One row: the time of a whole round (draw, read by policy and reference, judge, one step), its parts, and the
    tokens drawn in a second of drawing and of the round."""
    rows, opt = case.prompts * case.group, OptimizerConfig()
    config = case.model
    model, tx, state = fresh_state(config, opt)
    written = make_model(for_platform(inference_config(config), jax.default_backend()))
    ref_params = jax.jit(make_decoder(config).init)(fold_key(1, Purpose.INIT))
    lay_out = jax.jit(functools.partial(inference_params, config))
    options = {"max_new_tokens": case.new, "temperature": 1.0, "stop_ids": (), "pad_id": 0, "num_answers": case.group}
    names = ("tokens", "segment_ids", "positions")
    prompts = random_tokens(config.padded_vocab_size, case.prompts * case.prompt).reshape(case.prompts, -1)
    asked: dict[str, Any] = dict(zip(names, left_pad(prompts.tolist(), 0), strict=True))
    given: dict[str, Any] = {name: array.repeat(case.group, axis=0) for name, array in asked.items()}
    score = make_score_rows(model, None, temperature=1.0, num_parts=case.parts)

    @jax.jit
    def draw(params: Any, number: Any) -> Any:
        return sample_answers(written, params, asked, rollout_keys(0, number, jnp.arange(rows)), **options)

    @jax.jit
    def read(params: Any, answers: Any) -> Any:
        taken = score(params, None, ref_params, training_rows(given, answers, pad_id=0))
        worth = jnp.sin(jnp.sum(answers.tokens_bn, axis=1).astype(jnp.float32))
        return learn_from(
            taken,
            worth,
            ~answers.stopped_b,
            jnp.float32(0.05),
            algorithm="grpo",
            group_size=case.group,
            config=AdvantageConfig(),
            kl=KlConfig(),
        )[0]

    objective = policy_objective(model, PolicyConfig(reduction="sequence", kl_coef=0.05))
    step = jax.jit(
        make_train_step(objective, tx, schedule=opt.schedule_fn(1000), grad_accum_steps=case.parts), donate_argnums=0
    )
    key = purpose_key(0, Purpose.DROPOUT)
    parts: dict[str, list[float]] = {"draw": [], "read": [], "learn": []}
    for number in range(repeats + 1):  # the first compiles
        times = [time.perf_counter()]
        answers = jax.block_until_ready(draw(lay_out(state.params), number))
        times.append(time.perf_counter())
        taken = jax.block_until_ready(read(state.params, answers))
        times.append(time.perf_counter())
        state, _ = step(state, None, taken, key)
        jax.block_until_ready(state.step)
        times.append(time.perf_counter())
        if number:
            for name, began, ended in zip(parts, times[:-1], times[1:], strict=True):
                parts[name].append(ended - began)
    rounds = [float(sum(each)) for each in zip(*parts.values(), strict=True)]
    seconds, tokens = spread(rounds), rows * case.new
    draw_seconds = statistics.median(parts["draw"])
    return timed(
        case.label,
        seconds,
        tokens_per_second=tokens / seconds[0],
        drawn_tokens_per_second=tokens / draw_seconds,
        rollout_share=(draw_seconds + statistics.median(parts["read"])) / seconds[0],
        **{f"{name}_ms": 1e3 * statistics.median(values) for name, values in parts.items()},
    )


def bench_rollout(repeats: int) -> Iterator[Row]:
    """GRPO's rounds over random prompts."""
    for case in CPU_CASES if on_cpu() else GPU_CASES:
        yield time_rollout(case, min(repeats, 10))
