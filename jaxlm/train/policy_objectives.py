"""Objectives over rollouts: the clipped policy loss of PPO and GRPO, and the critic's.

Batches are [b, t], an answer to a row, ``loss_mask`` = 1 where the target is a token that the policy sampled:
``old_logprobs`` (under which it was sampled), ``advantages`` (0 where masked), ``ref_logprobs`` if there is a KL loss;
for the critic ``returns`` and ``old_values``.
"""

import dataclasses
from typing import Any, Literal, get_args

import jax.numpy as jnp

from jaxlm.core.types import Array, Batch, Params, PyTree, Term, Terms
from jaxlm.losses import policy
from jaxlm.losses.tokens import masked_sum, token_nll
from jaxlm.models.api import Model
from jaxlm.models.heads import TaskModel
from jaxlm.train.objectives import model_counts
from jaxlm.train.step import Objective


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """The loss of a policy."""

    clip_eps: float = 0.2
    clip_eps_high: float | None = None
    """Upper bound of the ratio, 1 + this; None = ``clip_eps`` (DAPO: 0.28)."""
    reduction: policy.TokenReduction = "token"
    """What tokens are divided by: "sequence" for GRPO, "token" for PPO and DAPO, "constant" for Dr. GRPO."""
    max_length: int | None = None
    """"constant": the length that all answers are divided by."""
    kl_coef: float = 0.0
    """Weight of a KL loss against the reference (GRPO); PPO puts the KL into the reward instead."""
    kl_kind: Literal["k2", "k3"] = "k3"
    """Its estimator; k1 has no gradient in expectation."""
    entropy_coef: float = 0.0
    """Weight of the entropy, which is rewarded."""
    temperature: float = 1.0
    """At which the answers were sampled: the policy is ``softmax(logits / temperature)``."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"policy.temperature={self.temperature} must be above 0: a greedy policy has no gradient")
        if not 0 < self.clip_eps < 1:
            raise ValueError(f"policy.clip_eps={self.clip_eps} is outside 0 .. 1")
        if self.clip_eps_high is not None and not self.clip_eps_high > 0:
            raise ValueError(f"policy.clip_eps_high={self.clip_eps_high} must be above 0, or None")
        if self.reduction not in get_args(policy.TokenReduction) or self.kl_kind not in ("k2", "k3"):
            raise ValueError(f"policy.reduction={self.reduction!r} or policy.kl_kind={self.kl_kind!r} is unknown")
        if (self.reduction == "constant") != (self.max_length is not None):
            raise ValueError(
                f"policy.max_length={self.max_length} goes with reduction='constant': give both or neither"
            )
        if self.kl_coef < 0 or self.entropy_coef < 0:
            raise ValueError("policy.kl_coef and policy.entropy_coef are 0 or more")


def at_temperature(logits: Array, temperature: float) -> Array:
    """``logits / temperature``; at 1 the logits themselves."""
    return logits if temperature == 1 else logits.astype(jnp.float32) / temperature


def policy_objective(model: Model, config: PolicyConfig) -> Objective:
    """The clipped policy loss, with a KL loss and an entropy bonus where they have a weight.

    Watched at weight 0: ``entropy`` and ``clip_fraction`` by token, ``old_kl`` = mean of k3 against the parameters that
    sampled: how far the policy has moved since.
    """

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen
        mask_bt = batch["loss_mask"]
        hidden = model.hidden(
            params,
            batch["tokens"],
            positions=batch.get("positions"),
            segment_ids=batch.get("segment_ids"),
            dropout_key=key,
        )
        logits_btv = at_temperature(model.logits(params, hidden.hidden_btd), config.temperature)
        # 0 where nothing is counted, as the other log-probabilities are: an exponential of their difference must not
        # overflow there, for a gradient of 0 times infinity is no 0.
        logprobs_bt = -token_nll(logits_btv, batch["targets"])[0] * mask_bt
        old_bt = batch["old_logprobs"] * mask_bt
        loss = policy.ppo_policy_loss(
            logprobs_bt,
            old_bt,
            batch["advantages"],
            clip_eps=config.clip_eps,
            clip_eps_high=config.clip_eps_high,
        )

        def by_token(values_bt: Array, weight: float) -> Term:
            return Term(masked_sum(values_bt, mask_bt), jnp.sum(mask_bt), weight)

        out = {
            "policy": policy.reduced_term(loss.loss_bt, mask_bt, config.reduction, max_length=config.max_length),
            "entropy": by_token(policy.token_entropy(logits_btv), -config.entropy_coef),
            "clip_fraction": by_token(loss.clipped_bt, 0.0),
            "old_kl": by_token(policy.kl_estimate(old_bt, logprobs_bt, "k3"), 0.0),
        }
        if config.kl_coef:
            kl_bt = policy.kl_estimate(logprobs_bt, batch["ref_logprobs"] * mask_bt, config.kl_kind)
            out["kl"] = policy.reduced_term(
                kl_bt, mask_bt, config.reduction, max_length=config.max_length, weight=config.kl_coef
            )
        return out | (hidden.terms or {}), carry

    def counts(batch: Batch) -> dict[str, Array]:
        mask_bt = batch["loss_mask"]
        reduced = policy.reduced_count(mask_bt, config.reduction, max_length=config.max_length)
        out = {"policy": reduced} | dict.fromkeys(("entropy", "clip_fraction", "old_kl"), jnp.sum(mask_bt))
        out |= {"kl": reduced} if config.kl_coef else {}
        return out | model_counts(model.term_names, batch)

    return Objective(terms, counts)


def critic_objective(task: TaskModel, *, clip_eps: float | None = 0.2) -> Objective:
    """The clipped value loss by token. ``task``: a model with a head of kind "tag" and one output; its number at a
    position is the value of the state in which the target there is chosen."""

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen
        outputs, own = task.read_batch(params, batch, key)
        values_bt = outputs[..., 0]
        loss_bt = policy.ppo_value_loss(values_bt, batch["old_values"], batch["returns"], clip_eps=clip_eps)
        return {"value": Term(masked_sum(loss_bt, batch["loss_mask"]), jnp.sum(batch["loss_mask"]))} | own, carry

    def counts(batch: Batch) -> dict[str, Array]:
        return {"value": jnp.sum(batch["loss_mask"])} | model_counts(task.term_names, batch)

    return Objective(terms, counts)


CRITIC = "critic"
"""Where the critic's parameters stand among the policy's."""


def actor_critic_objective(policy: Objective, critic: Objective, *, value_coef: float) -> Objective:
    """Both losses over one batch. ``params``: the policy's, and the critic's under `CRITIC`. What the critic's model
    adds to the loss itself is named ``critic_...``."""

    def of_critic(found: dict[str, Any]) -> dict[str, Any]:
        return {name if name == "value" else f"critic_{name}": one for name, one in found.items()}

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        actor, judge = split_critic(params)
        out, _ = policy.terms(actor, frozen, None, batch, key)
        found = of_critic(critic.terms(judge, frozen, None, batch, key)[0])
        return out | found | {"value": found["value"]._replace(weight=value_coef)}, carry

    return Objective(terms, lambda batch: policy.counts(batch) | of_critic(critic.counts(batch)))


def split_critic(params: Params) -> tuple[Params, Params]:
    """The policy's parameters and the critic's; empty where there is none."""
    return {name: part for name, part in params.items() if name != CRITIC}, params.get(CRITIC, {})
