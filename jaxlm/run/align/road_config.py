"""The config of the whole road: a made-up world, and every stage from its text to aligned models."""

import dataclasses
from dataclasses import field
from typing import Literal, get_args

from jaxlm.core.fields import ADDED
from jaxlm.core.seeds import check_seed
from jaxlm.data.world.records import WorldConfig
from jaxlm.run.align.dpo_config import DpoConfig
from jaxlm.run.align.ppo_config import PpoConfig, RewardConfig
from jaxlm.run.align.reward_config import RewardModelConfig
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.run.config import PretrainConfig

REWARD_STAGE = "reward"
"""A reward whose ``run`` is this is the reward model of the road."""
Stage = Literal["base", "sft", "reward", "ppo", "grpo", "dpo"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they are gone."""


@dataclasses.dataclass(frozen=True)
class RoadConfig:
    """Pretraining, SFT, a reward model, then PPO, GRPO and DPO, each from the SFT model; or a part of that. Seeds,
    bases and files of the stages are filled in."""

    name: str = "align"
    """A title for the report."""
    seed: int = 0
    """Of the world and of every stage."""
    world: WorldConfig = field(default_factory=WorldConfig)
    base: PretrainConfig = field(default_factory=PretrainConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    reward: RewardModelConfig = field(default_factory=RewardModelConfig)
    ppo: PpoConfig = field(
        default_factory=lambda: PpoConfig(algorithm="ppo", rewards=(RewardConfig(run=REWARD_STAGE),))
    )
    """Rewards name functions of the gold checker (right, preferred), or ``reward``, the road's reward model."""
    grpo: PpoConfig = field(default_factory=lambda: PpoConfig(rewards=(RewardConfig("right", function="right"),)))
    dpo: DpoConfig = field(default_factory=lambda: DpoConfig(base="sft"))
    """Its base is the road's SFT run whatever it says."""
    kl_cap: float = 10.0
    """Nats an answer, on average, that an aligned model may be away from the SFT model on held-out prompts."""
    max_new_tokens: int = 20
    """Of the answers that are judged."""
    stages: tuple[Stage, ...] = field(default=STAGES, metadata=ADDED)
    """Those that are gone: base, sft, and what is wanted of the others. A road may be gone further later."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not self.kl_cap > 0:
            raise ValueError(f"kl_cap={self.kl_cap} must be above 0")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if self.ppo.algorithm != "ppo" or self.grpo.algorithm == "ppo":
            raise ValueError("ppo.algorithm must be ppo, and grpo.algorithm one without a critic")
        if tuple(name for name in STAGES if name in self.stages) != self.stages or self.stages[:2] != STAGES[:2]:
            raise ValueError(
                f"stages={self.stages}: give base and sft, then any of {', '.join(STAGES[2:])}, in this order"
            )
        for name in ("ppo", "grpo"):
            judged = any(one.run == REWARD_STAGE for one in getattr(self, name).rewards)
            if name in self.stages and judged and REWARD_STAGE not in self.stages:
                raise ValueError(
                    f"stages={self.stages}: {name} is rewarded by the reward model, which is not among them"
                )

    @property
    def models(self) -> tuple[Stage, ...]:
        """The stages whose models answer."""
        return tuple(name for name in self.stages if name != REWARD_STAGE)
