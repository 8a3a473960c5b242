"""The config of reinforcement learning: which policy, which prompts, which rewards, how answers become steps."""

import dataclasses
from dataclasses import field
from typing import get_args

from jaxlm.core.fields import ADDED
from jaxlm.core.seeds import check_seed
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.losses.policy import TokenReduction
from jaxlm.models.families import ModelConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.sharding.mesh import MeshConfig
from jaxlm.train.collapse import CollapseConfig
from jaxlm.train.policy_objectives import PolicyConfig
from jaxlm.train.rollouts import WITH_CRITIC, AdvantageConfig, Algorithm, KlConfig
from jaxlm.train.spikes import SpikeConfig


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """One component of the reward: that of a reward model, or a Python function's."""

    name: str = "reward"
    """It is logged as ``rollout/score/NAME``."""
    weight: float = 1.0
    """In the sum that is optimised; 0 = only watched (a gold checker beside a proxy)."""
    run: str | None = None
    """Run directory of a reward model (``jaxlm reward``)."""
    run_step: int | None = None
    """Which checkpoint of it; None = the newest, written down when the run starts."""
    function: str | None = None
    """``FILE.py:FUNCTION``, or the name of one that the caller of ``ppo`` gives: called with prompts, answers and
    records, it returns a number for each answer."""
    time_limit: float = 60.0
    """Seconds that the function may take for all answers of a rollout."""

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"rewards: the name {self.name!r} is not of letters, digits, - and _")
        if (self.run is None) == (self.function is None):
            raise ValueError(f"reward {self.name!r}: give either run (a reward model's) or function, and not both")
        if not self.time_limit > 0:
            raise ValueError(f"reward {self.name!r}: time_limit={self.time_limit} must be above 0")


@dataclasses.dataclass(frozen=True)
class PromptsConfig:
    """What is to be answered: .jsonl files with ``messages`` or ``prompt``, and any further fields for checkers."""

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    """To judge by; none = no evaluations."""
    template: str | None = None
    """Chat template: chatml, llama3, gemma, alpaca, or a file. None = the base's own, or chatml."""
    add_bos: bool | None = field(default=None, metadata=ADDED)
    """Whether plain text, which is not drawn here, begins with <bos> for this model; None = as for the base, written
    down when the run starts."""

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"prompts.{name}={getattr(self, name)!r} is one string: write a tuple of paths")


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How answers are drawn."""

    num_prompts: int = 32
    """Prompts in a rollout."""
    group_size: int | None = None
    """Answers to each; None = 1 for ppo, 8 for the others."""
    max_new_tokens: int = 64
    temperature: float = 1.0
    """Of the policy: it is trained at the temperature that it is sampled at. No top-k or top-p: what is trained is the
    whole distribution."""
    rows_at_once: int | None = None
    """Answers decoded together; None = all of a rollout. Fewer need less memory for the cache."""
    num_samples: int = 4
    """Answers of each rollout that go to samples.jsonl, with their rewards."""

    def __post_init__(self) -> None:
        for name in ("num_prompts", "max_new_tokens", "group_size", "rows_at_once"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"rollout.{name}={value} must be at least 1")
        if not self.temperature > 0:
            raise ValueError(f"rollout.temperature={self.temperature} must be above 0: greedy answers explore nothing")
        if self.num_samples < 0:
            raise ValueError(f"rollout.num_samples={self.num_samples} must be 0 or more")


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """ppo's critic: a copy of the base, or of a reward model, with a head that gives each token's value."""

    reward: str | None = None
    """Name of one of the rewards that is a reward model: the critic starts from its body, which has learnt to tell good
    answers from bad ones (InstructGPT, arXiv:2203.02155). None = from the base's."""
    value_coef: float = 0.1
    """Weight of its loss; with Adam the rate alone says how fast it learns."""
    clip_eps: float | None = 0.2
    """Values move at most so far from those of the rollout; None = no clip."""
    peak_lr: float | None = None
    """Of the critic; None = the policy's."""

    def __post_init__(self) -> None:
        if not self.value_coef > 0 or (self.clip_eps is not None and not self.clip_eps > 0):
            raise ValueError("critic.value_coef and critic.clip_eps must be above 0 (clip_eps may be None)")
        if self.peak_lr is not None and not self.peak_lr >= 0:
            raise ValueError(f"critic.peak_lr={self.peak_lr} is negative: give a rate of 0 or more")


@dataclasses.dataclass(frozen=True)
class PpoConfig:
    """Reinforcement learning of a tuned model from rewards."""

    name: str = "ppo"
    """A title for the report."""
    seed: int = 0
    """Of the answers, the order of prompts and minibatches, and the critic's head."""
    base: str | None = None
    """Run directory that the policy starts from; it is the reference too."""
    base_step: int | None = None
    """Which checkpoint of the base; None = the newest, written down when the run starts."""
    model: ModelConfig | None = None
    """The base's, filled in when the run starts."""
    algorithm: Algorithm = "grpo"
    """ppo: a critic and GAE. grpo, dr_grpo, rloo: the mean of a prompt's other answers is the baseline."""
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    rewards: tuple[RewardConfig, ...] = ()
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    advantages: AdvantageConfig = field(default_factory=AdvantageConfig)
    kl: KlConfig = field(default_factory=KlConfig)
    clip_eps: float = 0.2
    clip_eps_high: float | None = None
    """Upper bound of the ratio, 1 + this; None = ``clip_eps`` (DAPO: 0.28)."""
    reduction: TokenReduction | None = None
    """What the loss of tokens is divided by; None = the algorithm's own: token for ppo and rloo, sequence for grpo,
    constant (``rollout.max_new_tokens``) for dr_grpo."""
    entropy_coef: float = 0.0
    critic: CriticConfig = field(default_factory=CriticConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            peak_lr=1e-5, schedule="constant", warmup_steps=0, b2=0.999, weight_decay=0.0
        )
    )
    num_rollouts: int = 100
    ppo_epochs: int = 1
    """Passes over the answers of a rollout."""
    num_minibatches: int = 1
    """Optimiser steps in a pass."""
    grad_accum_steps: int = 1
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(keep_last=1))
    spikes: SpikeConfig = field(default_factory=lambda: SpikeConfig(response="note"))
    """Only "note": a rollout's batches are the policy's own, and leaving some out would mend nothing."""
    collapse: CollapseConfig = field(default_factory=CollapseConfig)
    """Signs on which the run stops."""
    log_every: int = 10
    """Optimiser steps; every rollout is logged besides."""
    eval_every: int | None = None
    """Optimiser steps between evaluations on prompts.validation; None = at the end only."""
    eval_temperature: float | None = None
    """Of the answers of an evaluation; None = the policy's, 0 = greedy."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("num_rollouts", "ppo_epochs", "num_minibatches", "grad_accum_steps", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.eval_every is not None and self.eval_every < 1:
            raise ValueError(f"eval_every={self.eval_every} must be at least 1, or None")
        if self.algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm={self.algorithm!r} is none of {', '.join(get_args(Algorithm))}")
        if not self.with_critic and self.group_size < 2:
            raise ValueError(
                f"rollout.group_size={self.group_size} with algorithm={self.algorithm!r}: the baseline is the other "
                "answers' mean, give 2 or more"
            )
        rows = self.num_rows
        for name, value in (
            ("num_minibatches * grad_accum_steps", self.num_minibatches * self.grad_accum_steps),
            ("the answers decoded at once, rollout.rows_at_once", self.rows_at_once),
        ):
            if rows % value:
                raise ValueError(
                    f"rollout.num_prompts * group_size = {rows} answers are no multiple of {name} = {value}: change one"
                )
        if self.rows_at_once % self.group_size:
            raise ValueError(
                f"rollout.rows_at_once={self.rows_at_once} cuts the group of a prompt's {self.group_size} answers: "
                "make it a multiple of them"
            )
        if self.eval_temperature is not None and self.eval_temperature < 0:
            raise ValueError(f"eval_temperature={self.eval_temperature} must be 0 or more")
        if self.spikes.response != "note":
            raise ValueError("spikes.response='rollback' leaves batches out, and rollouts have none to spare: use note")
        if self.mesh.context > 1 or self.mesh.stage > 1:
            raise ValueError("mesh.context and mesh.stage must be 1 here: use mesh.data, mesh.fsdp and mesh.model")
        names = [reward.name for reward in self.rewards]
        if len(set(names)) < len(names):
            raise ValueError(f"rewards have the names {', '.join(names)}: give each its own")
        models = [reward.name for reward in self.rewards if reward.run is not None]
        if self.critic.reward is not None and self.critic.reward not in models:
            raise ValueError(
                f"critic.reward={self.critic.reward!r} is none of the rewards that have a run "
                f"({', '.join(models) or 'there are none'}): name one, or leave it out"
            )
        if self.optimizer.warmup_steps >= self.num_steps:
            raise ValueError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps} leaves nothing of the {self.num_steps} steps of "
                f"num_rollouts={self.num_rollouts}: lower the warm-up or train longer"
            )
        if self.kl.target is not None and not self.kl.in_reward(self.algorithm):
            raise ValueError("kl.target adapts the KL in rewards, and here it is in the loss: set kl.place='reward'")
        self.policy  # noqa: B018  (checks its fields)

    @property
    def with_critic(self) -> bool:
        return self.algorithm in WITH_CRITIC

    @property
    def group_size(self) -> int:
        """Answers to each prompt."""
        return self.rollout.group_size or (1 if self.with_critic else 8)

    @property
    def num_rows(self) -> int:
        """Answers in a rollout."""
        return self.rollout.num_prompts * self.group_size

    @property
    def rows_at_once(self) -> int:
        """Answers decoded together."""
        return self.rollout.rows_at_once or self.num_rows

    @property
    def steps_per_rollout(self) -> int:
        return self.ppo_epochs * self.num_minibatches

    @property
    def num_steps(self) -> int:
        """Optimiser steps in all."""
        return self.num_rollouts * self.steps_per_rollout

    @property
    def global_batch_size(self) -> int:
        """Answers in one optimiser step."""
        return self.num_rows // self.num_minibatches

    @property
    def microbatch_size(self) -> int:
        """Answers in one forward and backward pass, over all devices."""
        return self.global_batch_size // self.grad_accum_steps

    @property
    def policy(self) -> PolicyConfig:
        """The loss of the policy."""
        own: dict[Algorithm, TokenReduction] = {
            "ppo": "token", "grpo": "sequence", "dr_grpo": "constant", "rloo": "token",
        }  # fmt: skip
        reduction = self.reduction or own[self.algorithm]
        return PolicyConfig(
            clip_eps=self.clip_eps,
            clip_eps_high=self.clip_eps_high,
            reduction=reduction,
            max_length=self.rollout.max_new_tokens if reduction == "constant" else None,
            kl_coef=0.0 if self.kl.in_reward(self.algorithm) else self.kl.coef,
            kl_kind=self.kl.estimator,
            entropy_coef=self.entropy_coef,
            temperature=self.rollout.temperature,
        )

    @property
    def critic_optimizer(self) -> OptimizerConfig:
        """The policy's, at the critic's rate."""
        rate = self.optimizer.peak_lr if self.critic.peak_lr is None else self.critic.peak_lr
        return dataclasses.replace(self.optimizer, peak_lr=rate)
