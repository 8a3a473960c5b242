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
    head: Literal["value", "likelihood"] = field(default="value", metadata=ADDED)
    """answers: what the reward is. value: a number that a new head reads off at the last token. likelihood: the
    log-probability of the answer, nats, by the model itself (the implicit reward of Rafailov et al. 2023, without a
    reference): a base that answers well begins as a good judge of what it knows."""
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
        if self.head not in ("value", "likelihood"):
            raise ValueError(f"reward.head={self.head!r} is unknown: use value or likelihood")
        if self.head == "likelihood" and self.of == "steps":
            raise ValueError("reward.head='likelihood' is of whole answers: use value for reward.of='steps'")
        if self.head == "likelihood" and self.head_dropout:
            raise ValueError(f"reward.head_dropout={self.head_dropout} is of a head of its own: use 0 for likelihood")
        if self.centre_coef < 0:
            raise ValueError(f"reward.centre_coef={self.centre_coef} is negative")
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"reward.head_dropout={self.head_dropout} is outside [0, 1)")

    @property
    def reads_likelihood(self) -> bool:
        """Whether the reward is the answer's log-probability."""
        return self.of == "answers" and self.head == "likelihood"


@dataclasses.dataclass(frozen=True)
class RewardModelConfig(TuningConfig):
    """A reward model: a head with one number on any model that answers, learnt from what people prefer."""

    name: str = "reward"
    reward: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_short_rows(self.mesh)
