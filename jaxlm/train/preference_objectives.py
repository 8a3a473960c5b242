"""Objectives over ranked answers: a reward model's ranking loss, and the losses that fit a policy to pairs directly.

Batches are those of `data.preferences`: [b, k, t], k answers to each of b prompts, the best first, so that a microbatch
holds whole rankings. A prompt whose ``answer_mask`` has fewer than two answers is not counted.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array, Batch, Params, PyTree, Term, Terms
from jaxlm.losses import preference
from jaxlm.losses.tokens import chunked_token_nll, masked_sum
from jaxlm.models.api import Model
from jaxlm.models.heads import TaskModel
from jaxlm.train.objectives import model_counts
from jaxlm.train.step import Objective

Rewards = Callable[[Params, Batch, Array | None], tuple[Array, Terms]]
"""``f(params, batch, dropout_key) -> rewards``, f32 [b, k], and the terms that the model adds to the loss itself."""

PairLoss = Literal["dpo", "cdpo", "robust", "ipo", "orpo", "simpo", "kto"]
"""All but kto are of pairs; kto is of single answers that were judged (`train.kto_objective`)."""
WITH_REFERENCE: tuple[PairLoss, ...] = ("dpo", "cdpo", "robust", "ipo", "kto")
BY_MEANS: tuple[PairLoss, ...] = ("ipo", "orpo", "simpo")
"""Losses over mean log-probabilities a token, not sums."""


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """Which loss fits the policy to pairs. Fields that the loss does not have are not read."""

    loss: PairLoss = "dpo"
    beta: float = 0.1
    """dpo, cdpo, robust, ipo, kto: how dear it is to leave the reference. simpo: scale of the rewards."""
    label_noise: float = 0.1
    """cdpo, robust: share of pairs whose order is wrong."""
    margin: float = 0.5
    """simpo: gamma."""
    odds_coef: float = 0.1
    """orpo: lambda, the weight of the odds-ratio loss beside the cross-entropy of the chosen answers."""
    nll_coef: float = 0.0
    """Weight of the chosen answers' cross-entropy a token; orpo always has 1."""
    desirable_weight: float = 1.0
    """kto: weight of good answers; with few of them, raise it."""
    undesirable_weight: float = 1.0
    """kto: weight of bad answers."""

    def __post_init__(self) -> None:
        if self.loss not in get_args(PairLoss):
            raise ValueError(f"pairs.loss={self.loss!r} is none of {', '.join(get_args(PairLoss))}")
        if not self.beta > 0:
            raise ValueError(f"pairs.beta={self.beta} must be above 0")
        if not 0 <= self.label_noise < 0.5:
            raise ValueError(f"pairs.label_noise={self.label_noise} is outside 0 .. 0.5 (0.5 excluded)")
        if not self.desirable_weight > 0 or not self.undesirable_weight > 0:
            raise ValueError("pairs.desirable_weight and pairs.undesirable_weight must be above 0")
        if self.nll_coef < 0 or self.odds_coef < 0:
            raise ValueError("pairs.nll_coef and pairs.odds_coef are 0 or more")


def answer_logprobs(
    model: Model, params: Params, batch: Batch, key: Array | None = None, *, loss_chunk: int | None = None
) -> tuple[Array, Terms]:
    """Log-probability of each answer, the sum over its tokens, nats, f32 [b, k]; and the terms that the model adds to
    the loss itself. Without a ``key`` the first is what a reference precomputes as ``ref_logprobs``."""
    b, k, t = batch["tokens"].shape
    flat = {name: batch[name].reshape(b * k, t) for name in ("tokens", "targets", "segment_ids", "loss_mask")}
    hidden = model.hidden(params, flat["tokens"], segment_ids=flat["segment_ids"], dropout_key=key)
    logits_fn = functools.partial(model.logits, params)
    nll_bt, _ = chunked_token_nll(logits_fn, hidden.hidden_btd, flat["targets"], loss_chunk)
    return preference.sequence_logprobs(-nll_bt, flat["loss_mask"]).reshape(b, k), hidden.terms or {}


def pair_objective(model: Model, config: PairConfig, *, loss_chunk: int | None = None) -> Objective:
    """The mean of a pair loss over pairs (each prompt's first two answers), and the chosen answers' cross-entropy where
    it has a weight. Losses against a reference read ``ref_logprobs`` [b, k] from the batch.

    ``accuracy``, ``reward_margin`` and ``chosen_reward`` are only watched: how often, and by how many nats, the
    implicit reward of the chosen answer is the higher one, and that reward itself. It often falls, the other faster.

    Raises ValueError for kto, whose answers are no pairs.
    """
    if config.loss == "kto":
        raise ValueError("pairs.loss='kto' is of single answers: use kto_objective")

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen
        logprobs_bk, own = answer_logprobs(model, params, batch, key, loss_chunk=loss_chunk)
        lengths_bk = jnp.maximum(jnp.sum(batch["loss_mask"], axis=-1), 1.0)
        ref_bk = batch["ref_logprobs"] if config.loss in WITH_REFERENCE else jnp.zeros_like(logprobs_bk)
        scale_bk = lengths_bk if config.loss in BY_MEANS else jnp.ones_like(lengths_bk)
        own_bk, ref_bk = logprobs_bk / scale_bk, ref_bk / scale_bk
        mask_b = _pair_mask(batch)
        count = jnp.sum(mask_b)
        loss_b = _pair_losses(config, own_bk, ref_bk)
        rewards_bk = config.beta * jax.lax.stop_gradient(own_bk - ref_bk)
        margin_b = rewards_bk[:, 0] - rewards_bk[:, 1]
        chosen_tokens_b = jnp.sum(batch["loss_mask"][:, 0], axis=-1)
        out = {
            config.loss: Term(masked_sum(loss_b, mask_b), count, config.odds_coef if config.loss == "orpo" else 1.0),
            "accuracy": Term(masked_sum((margin_b > 0).astype(jnp.float32), mask_b), count, 0.0),
            "reward_margin": Term(masked_sum(margin_b, mask_b), count, 0.0),
            "chosen_reward": Term(masked_sum(rewards_bk[:, 0], mask_b), count, 0.0),
        }
        if nll_weight:
            out["nll"] = Term(masked_sum(-logprobs_bk[:, 0], mask_b), jnp.sum(chosen_tokens_b * mask_b), nll_weight)
        return out | own, carry

    def counts(batch: Batch) -> dict[str, Array]:
        mask_b = _pair_mask(batch)
        names: list[str] = [config.loss, "accuracy", "reward_margin", "chosen_reward"]
        out = dict.fromkeys(names, jnp.sum(mask_b))
        if nll_weight:
            out["nll"] = jnp.sum(jnp.sum(batch["loss_mask"][:, 0], axis=-1) * mask_b)
        return out | model_counts(model.term_names, batch)

    nll_weight = 1.0 if config.loss == "orpo" else config.nll_coef
    return Objective(terms, counts)


def reward_objective(
    rewards: Rewards, *, ties: bool = False, centre_coef: float = 0.0, term_names: Sequence[str] = ()
) -> Objective:
    """A reward model's loss: Plackett-Luce over each ranking (of two, Bradley-Terry), or with ``ties`` the mean over
    pairs of different rank, of rewards less the answers' ``margins`` (of a pair: Llama 2's margin); and
    ``centre_coef`` times the squared sum of the best and the worst reward, which holds the rewards' level near 0.

    ``rewards``: `answer_rewards` or `likelihood_rewards` of a model with a head of kind "regress" and pooling "last";
    ``term_names``: that model's own terms.
    ``accuracy`` is only watched: the share of pairs of different rank whose rewards are in the right order.
    """

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen
        rewards_bk, own = rewards(params, batch, key)
        mask_bk, ranks_bk, mask_b = batch["answer_mask"], batch["ranks"], _pair_mask(batch)
        lowered_bk = rewards_bk - batch["margins"]
        if ties:
            loss_b = preference.all_pairs_loss(lowered_bk, ranks_bk, mask_bk)
        elif rewards_bk.shape[1] == 2:
            loss_b = preference.bradley_terry_loss(lowered_bk[:, 0], lowered_bk[:, 1])
        else:
            loss_b = preference.plackett_luce_loss(lowered_bk, mask_bk)
        count = jnp.sum(mask_b)
        better_bij = (ranks_bk[:, :, None] < ranks_bk[:, None, :]) & (mask_bk[:, :, None] * mask_bk[:, None, :] > 0)
        right_bij = better_bij & (rewards_bk[:, :, None] > rewards_bk[:, None, :])
        out = {
            "ranking": Term(masked_sum(loss_b, mask_b), count),
            "accuracy": Term(jnp.sum(right_bij, dtype=jnp.float32), jnp.sum(better_bij, dtype=jnp.float32), 0.0),
        }
        if centre_coef:
            last_b1 = jnp.maximum(jnp.sum(mask_bk, axis=1, keepdims=True) - 1, 0).astype(jnp.int32)
            worst_b = jnp.take_along_axis(rewards_bk, last_b1, axis=1)[:, 0]
            penalty_b = preference.reward_centre_penalty(rewards_bk[:, 0], worst_b)
            out["centre"] = Term(masked_sum(penalty_b, mask_b), count, centre_coef)
        return out | own, carry

    def counts(batch: Batch) -> dict[str, Array]:
        count = jnp.sum(_pair_mask(batch))
        pairs = jnp.sum(preference.num_pairs(batch["ranks"], batch["answer_mask"]))
        out = {"ranking": count, "accuracy": pairs} | model_counts(term_names, _whole_rows(batch))
        return out | {"centre": count} if centre_coef else out

    return Objective(terms, counts)


def answer_rewards(task: TaskModel, params: Params, batch: Batch, key: Array | None = None) -> tuple[Array, Terms]:
    """The reward of each answer, f32 [b, k]: the head's number at the last token; and the model's own terms."""
    b, k, _ = batch["tokens"].shape
    outputs, own = task.read_batch(params, _whole_rows(batch), key)
    return outputs.reshape(b, k), own


def likelihood_rewards(
    model: Model,
    task: TaskModel,
    coef: float,
    scale: float | None,
    params: Params,
    batch: Batch,
    key: Array | None = None,
    *,
    loss_chunk: int | None = None,
) -> tuple[Array, Terms]:
    """The reward of each answer, f32 [b, k]: the number of the task's head at the last token, and ``coef`` times the
    answer's log-probability by the model itself, nats; and the model's own terms. ``params``: of both.

    With a ``scale`` s in place of log p its bounded form ``s (p^(1/s) - 1)``, which tends to log p as s grows and is
    never below -s: an answer that is wrong is no worse for being unlikelier still.
    """
    b, k, t = batch["tokens"].shape
    body_key, head_key = (None, None) if key is None else tuple(jax.random.split(key))
    rows = _whole_rows(batch)
    options = {"segment_ids": rows["segment_ids"], "dropout_key": body_key}
    hidden = model.hidden(params, rows["tokens"], **options)
    hidden_btd = hidden.hidden_btd
    values = task.read(params, hidden_btd, rows["segment_ids"], head_key)
    targets, mask = (batch[name].reshape(b * k, t) for name in ("targets", "loss_mask"))
    nll, _ = chunked_token_nll(functools.partial(model.logits, params), hidden_btd[:, :-1], targets, loss_chunk)
    logprobs = preference.sequence_logprobs(-nll, mask)
    likelihoods = logprobs if scale is None else scale * jnp.expm1(logprobs / scale)
    return (values + coef * likelihoods).reshape(b, k), hidden.terms or {}


def _whole_rows(batch: Batch) -> Batch:
    """Each answer behind its prompt, its end too: ``tokens`` and ``segment_ids`` [b k, t + 1]."""
    b, k, t = batch["tokens"].shape
    # The last token of a row is the last target: the end of the answer is read too.
    flat = {name: batch[name].reshape(b * k, t) for name in ("tokens", "targets", "segment_ids")}
    pad = jnp.zeros((b * k, 1), jnp.int32)
    read = jnp.concatenate([flat["segment_ids"], pad], axis=1)
    is_end = (read == 0) & (jnp.concatenate([pad + 1, flat["segment_ids"]], axis=1) > 0)
    tokens = jnp.concatenate([flat["tokens"], pad], axis=1)
    last = jnp.concatenate([pad, flat["targets"]], axis=1)
    return {"tokens": jnp.where(is_end, last, tokens), "segment_ids": jnp.where(is_end, 1, read)}


def _pair_mask(batch: Batch) -> Array:
    """1.0 for prompts with two answers or more, [b]."""
    return (jnp.sum(batch["answer_mask"], axis=1) >= 2).astype(jnp.float32)


def _pair_losses(config: PairConfig, own_bk: Array, ref_bk: Array) -> Array:
    """The loss of each prompt's first two answers, [b]."""
    ratio_b, ref_ratio_b = own_bk[:, 0] - own_bk[:, 1], ref_bk[:, 0] - ref_bk[:, 1]
    if config.loss == "orpo":
        return preference.orpo_loss(own_bk[:, 0], own_bk[:, 1])
    if config.loss == "simpo":
        return preference.simpo_loss(own_bk[:, 0], own_bk[:, 1], beta=config.beta, margin=config.margin)
    if config.loss == "dpo":
        return preference.dpo_loss(ratio_b, ref_ratio_b, beta=config.beta)
    if config.loss == "ipo":
        return preference.ipo_loss(ratio_b, ref_ratio_b, beta=config.beta)
    fn = preference.cdpo_loss if config.loss == "cdpo" else preference.robust_dpo_loss
    return fn(ratio_b, ref_ratio_b, beta=config.beta, label_noise=config.label_noise)
