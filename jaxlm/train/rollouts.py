"""From answers and their rewards to what the policy learns from: log-probabilities, KL, advantages, returns, figures.

Rows are those of `generate.rollout.training_rows`, the answers to one prompt side by side: answer j to prompt i is row
``i * group_size + j``.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxlm.core.fields import ADDED
from jaxlm.core.types import Array, Batch, Params
from jaxlm.losses import advantages as estimators
from jaxlm.losses.policy import adaptive_kl_coef, kl_estimate, token_entropy
from jaxlm.losses.tokens import token_nll
from jaxlm.models.api import Model
from jaxlm.models.heads import TaskModel
from jaxlm.train.policy_objectives import at_temperature
from jaxlm.train.step import join_microbatches, split_microbatches

Algorithm = Literal["ppo", "grpo", "dr_grpo", "rloo"]
WITH_CRITIC: tuple[Algorithm, ...] = ("ppo",)
"""Those whose baseline is learnt; the others' is the mean of a prompt's other answers."""

Truncated = Literal["keep", "mask", "penalise"]


@dataclasses.dataclass(frozen=True)
class AdvantageConfig:
    """What a token was worth."""

    gamma: float = 1.0
    """Discount a token (ppo)."""
    gae_lambda: float = 0.95
    """ppo: 1 = the whole return, 0 = one step and the critic's word."""
    whiten: bool = True
    """ppo: advantages of a rollout to mean 0 and variance 1."""
    whiten_rewards: bool = False
    """ppo: rewards by token to variance 1, their mean kept."""
    std_eps: float = dataclasses.field(default=1e-4, metadata=ADDED)
    """grpo: is added to the std of a group's rewards. Near 0, answers that are all wrong are driven apart by whatever
    else is rewarded, as hard as right and wrong ones; at a fifth of what a right answer earns, hardly."""
    reward_clip: float | None = None
    """Scores are held within +- this; None = as they are."""
    truncated: Truncated = "keep"
    """Answers without an end: "mask" leaves them out of the loss and of their group, "penalise" takes
    ``truncation_penalty`` off their score."""
    truncation_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"advantages.{name}={getattr(self, name)} is outside 0 .. 1")
        if not self.std_eps > 0:
            raise ValueError(f"advantages.std_eps={self.std_eps} must be above 0")
        if self.truncated not in get_args(Truncated):
            raise ValueError(f"advantages.truncated={self.truncated!r} is none of {', '.join(get_args(Truncated))}")
        if self.reward_clip is not None and not self.reward_clip > 0:
            raise ValueError(f"advantages.reward_clip={self.reward_clip} must be above 0, or None")


@dataclasses.dataclass(frozen=True)
class KlConfig:
    """What it costs to leave the reference."""

    coef: float = 0.05
    """Weight of the KL, in rewards or in the loss; 0 = the KL is only watched."""
    place: Literal["reward", "loss"] | None = None
    """reward: ``- coef * KL`` at each token (ppo), or over the answer before the group's mean is taken off. loss: a
    term of the loss. None = as the algorithm was published: loss for grpo and dr_grpo, reward for ppo and rloo."""
    estimator: Literal["k2", "k3"] = "k3"
    """Of the term of the loss. In rewards it is k1, log p / p_ref."""
    target: float | None = None
    """In rewards: the coefficient follows the KL an answer (nats), that it come to this (Ziegler et al. 2019); None =
    it stays."""
    gain: float = 0.1
    """How fast it follows: at most by 0.2 times this a rollout."""

    def __post_init__(self) -> None:
        if not self.coef >= 0:
            raise ValueError(f"kl.coef={self.coef} is negative: give 0 or more")
        if self.place not in (None, "reward", "loss"):
            raise ValueError(f"kl.place={self.place!r} is neither 'reward' nor 'loss' nor None")
        if self.estimator not in ("k2", "k3"):
            raise ValueError(f"kl.estimator={self.estimator!r} is neither 'k2' nor 'k3'")
        if self.target is not None and not (self.target > 0 and self.coef > 0):
            raise ValueError(f"kl.target={self.target} and kl.coef={self.coef}: both must be above 0 to adapt")

    def in_reward(self, algorithm: Algorithm) -> bool:
        """Whether the KL is taken off rewards; else it is a term of the loss."""
        return algorithm in ("ppo", "rloo") if self.place is None else self.place == "reward"


ScoreFn = Callable[[Params, Params | None, Params, Batch], Batch]


def make_score_rows(model: Model, critic: TaskModel | None, *, temperature: float, num_parts: int = 1) -> ScoreFn:
    """``score(params, critic_params, ref_params, rows) -> rows`` with ``old_logprobs``, ``ref_logprobs`` and
    ``entropy`` of the targets, [b, t], and with a critic ``old_values``: what the trainer's forward makes of a rollout.

    ``num_parts``: rows are read in so many parts, one after the other, for their logits are large.
    """

    def logprobs(params: Params, part: Batch) -> tuple[Array, Array]:
        hidden_btd = model.hidden(params, part["tokens"], segment_ids=part["segment_ids"]).hidden_btd
        logits_btv = at_temperature(model.logits(params, hidden_btd), temperature)
        return -token_nll(logits_btv, part["targets"])[0] * part["loss_mask"], token_entropy(logits_btv)

    def score(params: Params, critic_params: Params | None, ref_params: Params, rows: Batch) -> Batch:
        def of_part(part: Batch) -> Batch:
            own_bt, entropy_bt = logprobs(params, part)
            found = {"old_logprobs": own_bt, "ref_logprobs": logprobs(ref_params, part)[0], "entropy": entropy_bt}
            if critic is not None:
                assert critic_params is not None
                found["old_values"] = critic.outputs(critic_params, part)[..., 0]
            return found

        read = {name: rows[name] for name in ("tokens", "targets", "segment_ids", "loss_mask")}
        if num_parts == 1:
            return rows | of_part(read)
        return rows | join_microbatches(jax.lax.map(of_part, split_microbatches(read, num_parts)))

    return score


def learn_from(
    rows: Batch,
    scores_b: Array,
    truncated_b: Array,
    kl_coef: Array,
    *,
    algorithm: Algorithm,
    group_size: int,
    config: AdvantageConfig,
    kl: KlConfig,
) -> tuple[Batch, Array, dict[str, Array]]:
    """The rows that minibatches are taken from, the next KL coefficient, and the figures of the rollout.

    Args:
      rows: of `make_score_rows`.
      scores_b: the reward of each answer, its components summed.
      truncated_b: True where the answer has no end.
      kl_coef: f32 scalar.
    """
    mask_bt, kept_b, cut_b = rows["loss_mask"], jnp.ones_like(scores_b), truncated_b.astype(jnp.float32)
    kl_bt = kl_estimate(rows["old_logprobs"], rows["ref_logprobs"], "k1") * mask_bt
    learnt_b = scores_b
    if config.reward_clip is not None:
        learnt_b = jnp.clip(learnt_b, -config.reward_clip, config.reward_clip)
    if config.truncated == "penalise":
        learnt_b = learnt_b - config.truncation_penalty * cut_b
    if config.truncated == "mask":
        kept_b = 1.0 - cut_b
    kept_bt = mask_bt * kept_b[:, None]
    penalty = kl_coef if kl.in_reward(algorithm) else jnp.zeros_like(kl_coef)
    out = {name: rows[name] for name in ("tokens", "targets", "segment_ids", "old_logprobs", "ref_logprobs")}
    figures: dict[str, Array] = {}
    if algorithm == "ppo":
        rewards_bt = estimators.token_rewards(learnt_b, kl_bt, mask_bt, kl_coef=penalty)
        if config.whiten_rewards:
            rewards_bt = estimators.whiten(rewards_bt, mask_bt, shift_mean=False)
        advantages_bt, returns_bt = estimators.gae(
            rewards_bt, rows["old_values"], mask_bt, gamma=config.gamma, gae_lambda=config.gae_lambda
        )
        figures["explained_variance"] = estimators.explained_variance(rows["old_values"], returns_bt, kept_bt)
        figures["value"] = estimators.masked_moments(rows["old_values"], kept_bt)[0]
        figures["return"] = estimators.masked_moments(returns_bt, kept_bt)[0]
        if config.whiten:
            advantages_bt = estimators.whiten(advantages_bt, kept_bt)
        out |= {"returns": returns_bt, "old_values": rows["old_values"]}
    else:
        of_group = {
            "grpo": functools.partial(estimators.grpo_advantages, eps=config.std_eps),
            "dr_grpo": estimators.dr_grpo_advantages,
            "rloo": estimators.rloo_advantages,
        }[algorithm]
        learnt_b = learnt_b - penalty * jnp.sum(kl_bt, axis=1)
        learnt_pg, kept_pg = learnt_b.reshape(-1, group_size), kept_b.reshape(-1, group_size)
        advantages_pg = of_group(learnt_pg, kept_pg)
        # Where all answers are worth the same, nothing is learnt from the prompt.
        figures["idle_groups"] = jnp.mean(jnp.all(jnp.abs(advantages_pg) < 1e-6, axis=1).astype(jnp.float32))
        advantages_bt = advantages_pg.reshape(-1, 1) * kept_bt
    out |= {"loss_mask": kept_bt, "advantages": advantages_bt * kept_bt}
    figures |= rollout_figures(rows, scores_b, truncated_b) | {"kl_coef": kl_coef}
    next_coef = kl_coef
    if kl.target is not None and kl.in_reward(algorithm):
        next_coef = adaptive_kl_coef(kl_coef, figures["kl"], target=kl.target, gain=kl.gain)
    return out, next_coef, figures


def rollout_figures(rows: Batch, scores_b: Array, truncated_b: Array) -> dict[str, Array]:
    """What a rollout says of the policy, f32 scalars.

    ``kl``: nats an answer, against the reference; ``entropy`` and ``kl_per_token``: nats a token; ``length``: tokens;
    ``gap_mean`` and ``gap_max``: how far the sampler's log-probability of a token is from the trainer's, and
    ``sampler_kl``: the KL that comes of it, nats a token (k3).
    """
    mask_bt = rows["loss_mask"]
    kl_bt = kl_estimate(rows["old_logprobs"], rows["ref_logprobs"], "k1") * mask_bt
    gap_bt = jnp.abs(rows["old_logprobs"] - rows["sampler_logprobs"]) * mask_bt
    tokens = jnp.maximum(jnp.sum(mask_bt), 1.0)
    sampler_kl_bt = kl_estimate(rows["sampler_logprobs"], rows["old_logprobs"], "k3") * mask_bt
    return {
        "reward": jnp.mean(scores_b),
        "reward_std": jnp.std(scores_b),
        "kl": jnp.mean(jnp.sum(kl_bt, axis=1)),
        "kl_per_token": jnp.sum(kl_bt) / tokens,
        "entropy": jnp.sum(rows["entropy"] * mask_bt) / tokens,
        "length": jnp.mean(jnp.sum(mask_bt, axis=1)),
        "truncated": jnp.mean(truncated_b.astype(jnp.float32)),
        "gap_mean": jnp.sum(gap_bt) / tokens,
        "gap_max": jnp.max(gap_bt),
        "sampler_kl": jnp.sum(sampler_kl_bt) / tokens,
    }
