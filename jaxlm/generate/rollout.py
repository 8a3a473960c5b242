"""Answers as a policy is trained on them: several to each prompt, with the probability that each token was drawn by.

Prompts are padded on the left to be answered (`generate.decode`), and the rows that come of them on the right, as
training reads them: both by shapes that are fixed beforehand, so that one program serves all rollouts.
"""

import jax
import jax.numpy as jnp

from jaxlm.core.keys import Purpose, fold_key
from jaxlm.core.types import Array, Batch, Params
from jaxlm.generate.decode import Generated, generate_tokens
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.api import Model


def rollout_keys(seed: int, rollout: int | Array, row_b: Array, purpose: Purpose = Purpose.ROLLOUT) -> Array:
    """A key for each answer, [b]: a function of (seed, purpose, rollout's number, answer's number in it)."""
    return jax.vmap(lambda row: fold_key(seed, purpose, rollout, row))(row_b)


def sample_answers(
    model: Model,
    params: Params,
    prompts: Batch,
    key_b: Array,
    *,
    max_new_tokens: int,
    temperature: float,
    stop_ids: tuple[int, ...],
    pad_id: int,
    num_answers: int = 1,
) -> Generated:
    """``num_answers`` to each row of ``prompts`` (``tokens``, ``segment_ids``, ``positions`` [p, t], `left_pad`), side
    by side, drawn by a key each from the whole of ``softmax(logits / temperature)``. Both of `Generated`'s
    log-probabilities come with the tokens."""
    return generate_tokens(
        model,
        params,
        prompts["tokens"],
        prompts["segment_ids"],
        prompts["positions"],
        max_new_tokens=max_new_tokens,
        sampling=SamplingConfig(temperature=temperature),
        key=key_b,
        stop_ids=stop_ids,
        pad_id=pad_id,
        tempered=True,
        num_answers=num_answers,
    )


def training_rows(prompts: Batch, answers: Generated, *, pad_id: int) -> Batch:
    """Prompt and answer side by side, padded on the right, [b, p + n - 1].

    ``tokens`` and ``targets`` (the next token), ``segment_ids`` (1, 0 = padding) int32; ``loss_mask`` f32, 1 where the
    target was drawn by the policy, its end symbol included; ``sampler_logprobs`` f32 of those targets, at the sampling
    temperature.
    """
    assert answers.tempered_logprobs_bn is not None
    num_prompt, num_new = prompts["tokens"].shape[1], answers.tokens_bn.shape[1]
    width = num_prompt + num_new
    prompt_b = jnp.sum(prompts["segment_ids"], axis=1)
    end_b1 = (prompt_b + answers.lengths_b)[:, None]
    place_t = jnp.arange(width)[None, :]
    # Rows are turned to the left by the padding before their prompt.
    from_bt = (place_t + (num_prompt - prompt_b)[:, None]) % width

    def turned(prompt_bp: Array, answer_bn: Array) -> Array:
        return jnp.take_along_axis(jnp.concatenate([prompt_bp, answer_bn], axis=1), from_bt, axis=1)

    there_bt = place_t < end_b1
    tokens_bt = jnp.where(there_bt, turned(prompts["tokens"], answers.tokens_bn), pad_id)
    drawn_bt = there_bt & (place_t >= prompt_b[:, None])
    no_logprobs_bp = jnp.zeros(prompts["tokens"].shape, jnp.float32)
    logprobs_bt = jnp.where(drawn_bt, turned(no_logprobs_bp, answers.tempered_logprobs_bn), 0.0)
    return {
        # The last token of a row is a target alone.
        "tokens": jnp.where(place_t[:, 1:] < end_b1, tokens_bt[:, :-1], pad_id),
        "targets": tokens_bt[:, 1:],
        "segment_ids": (place_t[:, 1:] < end_b1).astype(jnp.int32),
        "loss_mask": drawn_bt[:, 1:].astype(jnp.float32),
        "sampler_logprobs": logprobs_bt[:, 1:],
    }
