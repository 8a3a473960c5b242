"""The config of a reward model."""

import dataclasses
from dataclasses import field
from typing import Literal

from jaxlm.core.fields import ADDED
from jaxlm.run.align.config import TuningConfig, check_short_rows


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """What the reward is of, and how it is learnt."""

    of: Literal["answers", "steps"] = "answers"
    """answers: a number for each answer, learnt from rankings. steps: the log-odds that each step of an answer is
    right, learnt from labels (a process-reward model)."""
    likelihood_coef: float = field(default=0.0, metadata=ADDED)
    """answers: weight of the answer's log-probability by the model itself, nats, beside the head's number (the implicit
    reward of Rafailov et al. 2023, without a reference). 0 = the head alone."""
    likelihood_scale: float | None = field(default=None, metadata=ADDED)
    """answers: nats; the log-probability is bounded to ``scale (p^(1/scale) - 1)``, so that what is wrong is not judged
    by how unlikely it is. None = as it is."""
    ties: bool | None = None
    """answers: the loss over pairs of different rank, which takes ties; False: the likelihood of the whole order; None
    = pairs where the training rankings have ties."""
    centre_coef: float = 0.0
    """answers: weight of the squared sum of best and worst reward, which holds their level near 0."""
    head_dropout: float = 0.0
    """Rate on what the head reads."""

    def __post_init__(self) -> None:
        if self.of not in ("answers", "steps"):
            raise ValueError(f"reward.of={self.of!r} is unknown: use answers or steps")
        if self.likelihood_coef < 0 or (self.likelihood_coef and self.of == "steps"):
            raise ValueError(
                f"reward.likelihood_coef={self.likelihood_coef} must be 0 or more, and 0 for reward.of='steps'"
            )
        if self.likelihood_scale is not None and not (self.likelihood_scale > 0 and self.likelihood_coef):
            raise ValueError(f"reward.likelihood_scale={self.likelihood_scale} must be above 0, with a likelihood_coef")
        if self.centre_coef < 0:
            raise ValueError(f"reward.centre_coef={self.centre_coef} is negative")
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"reward.head_dropout={self.head_dropout} is outside [0, 1)")


@dataclasses.dataclass(frozen=True)
class RewardModelConfig(TuningConfig):
    """A reward model: a head with one number on any model that answers, learnt from what people prefer."""

    name: str = "reward"
    reward: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_short_rows(self.mesh)
