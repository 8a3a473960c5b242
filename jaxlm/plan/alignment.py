"""What each stage from text to an aligned model costs, in FLOPs and accelerator seconds: counted, nothing is run."""

import dataclasses
from typing import Any, NamedTuple

from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.families import make_model
from jaxlm.plan.decoding import decode_step_bytes, memory_bandwidth
from jaxlm.plan.flops import forward_flops_per_token, peak_flops, train_flops_per_token
from jaxlm.plan.params import param_shapes


class AlignmentSizes(NamedTuple):
    """How much each stage reads."""

    pretrain_tokens: float = 15e12
    pretrain_seq_len: int = 8192
    sft_tokens: float = 2 * 27_540 * 4096 / 4
    """Two passes over the examples, about four to a row."""
    seq_len: int = 4096
    reward_pairs: float = 2.9e6
    prompt_tokens: int = 108
    answer_tokens: int = 217
    rollouts: int = 400
    answers: int = 512
    """In a rollout."""
    decoded_together: int = 64
    """Answers that share one reading of the weights."""


LLAMA_70B = AlignmentSizes()
"""Llama 3's 15 T tokens (Grattafiori et al. 2024) and the tuning of Llama 2 70B (Touvron et al. 2023, sections 3.1 to
3.3 and table 6): 27,540 examples twice, 2.9 M comparisons of 108 + 217 tokens, 400 PPO iterations of 512 answers. How
many examples share a row of 4,096 is our guess."""

PASSES = {"ppo": 4, "grpo": 2, "dr_grpo": 2, "rloo": 2}
"""Times that an answer is read, not trained on, in a rollout: by the policy and the reference, and for ppo by the
critic and a reward model. Drawing it is one more."""


def rl_flops(train_flops: float, *, algorithm: str, passes_trained: int) -> float:
    """All FLOPs of reinforcement learning from those of its train steps: a step of a model is three forward passes,
    and ``passes_trained`` times each answer is trained on (epochs), by the policy and for ppo by the critic."""
    models = 2 if algorithm == "ppo" else 1
    forward = train_flops / (3 * models * passes_trained)
    return train_flops + forward * (1 + PASSES[algorithm])


def plan_alignment(
    model: DecoderConfig, sizes: AlignmentSizes, *, peak_flops: float, bandwidth: float, utilisation: float
) -> list[dict[str, Any]]:
    """Stage, FLOPs and accelerator seconds of each stage of `AlignmentSizes`.

    Training and reading run at ``utilisation`` of ``peak_flops``; drawing answers takes what reading the bf16 weights
    and half of the KV cache takes at ``bandwidth``, bytes a second, which is its floor.
    """
    short = sizes.prompt_tokens + sizes.answer_tokens
    per_answer = train_flops_per_token(model, short) * short
    answers = float(sizes.rollouts * sizes.answers)
    reading = forward_flops_per_token(model, short) * short * answers
    drawn_bytes = decode_step_bytes(
        model,
        param_shapes(make_model(model)),
        rows=sizes.decoded_together,
        cached_tokens=sizes.prompt_tokens + sizes.answer_tokens / 2,
        itemsize=2,
    )
    steps = answers / sizes.decoded_together * sizes.answer_tokens
    flops = {
        "pretraining": train_flops_per_token(model, sizes.pretrain_seq_len) * sizes.pretrain_tokens,
        "SFT": train_flops_per_token(model, sizes.seq_len) * sizes.sft_tokens,
        "reward model": 2 * sizes.reward_pairs * per_answer,
        "PPO": 2 * answers * per_answer + reading * (1 + PASSES["ppo"]),
    }
    rate = peak_flops * utilisation
    seconds = {name: count / rate for name, count in flops.items()}
    seconds["PPO"] = (flops["PPO"] - reading) / rate + steps * drawn_bytes / bandwidth
    return [{"stage": name, "flops": count, "seconds": seconds[name]} for name, count in flops.items()]


def plan_on_chip(model: DecoderConfig, sizes: AlignmentSizes, *, chip: str, utilisation: float) -> list[dict[str, Any]]:
    """`plan_alignment` on a kind of accelerator, weights in bf16. Raises ValueError for a kind that is not known."""
    peak, bandwidth = peak_flops(chip), memory_bandwidth(chip)
    if peak is None or bandwidth is None:
        raise ValueError(f"the peak and bandwidth of {chip!r} are not known")
    model = dataclasses.replace(model, param_dtype="bfloat16")
    return plan_alignment(model, sizes, peak_flops=peak, bandwidth=bandwidth, utilisation=utilisation)


def describe_plan(name: str, sizes: AlignmentSizes, *, chip: str, utilisation: float) -> str:
    """What the figures of `plan_on_chip` stand on, in a line."""
    return (
        f"{name} on {chip} at {utilisation:.0%} of the bf16 peak, answers drawn {sizes.decoded_together} at a time at "
        f"the memory's bandwidth; {sizes.pretrain_tokens:.3g} tokens of pretraining, {sizes.sft_tokens:.3g} of SFT, "
        f"{sizes.reward_pairs:.3g} comparisons, {sizes.rollouts} rollouts of {sizes.answers} answers of "
        f"{sizes.prompt_tokens} + {sizes.answer_tokens} tokens"
    )
