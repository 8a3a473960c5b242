"""The config of supervised fine-tuning on conversations."""

import dataclasses
from dataclasses import field
from typing import Literal

from jaxlm.losses.distillation import Direction
from jaxlm.run.align.config import AnswersConfig, TuningConfig


@dataclasses.dataclass(frozen=True)
class DistilConfig:
    """A teacher whose distribution over each token of the answers is learnt."""

    teacher: str | None = None
    """Run directory of the teacher, of the same tokenizer; None = the tokens alone are learnt."""
    step: int | None = None
    """Which checkpoint of the teacher; None = the newest, written down when the run starts."""
    coef: float = 1.0
    """Share of the divergence in the loss; the rest is the cross-entropy of the tokens."""
    direction: Direction = "forward"
    """forward: KL(teacher || student). reverse: KL(student || teacher)."""
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.coef <= 1:
            raise ValueError(f"distil.coef={self.coef} is outside 0 .. 1")
        if not self.temperature > 0:
            raise ValueError(f"distil.temperature={self.temperature} must be above 0")
        if self.direction not in ("forward", "reverse"):
            raise ValueError(f"distil.direction={self.direction!r} is unknown: use forward or reverse")


@dataclasses.dataclass(frozen=True)
class SftConfig(TuningConfig):
    """Supervised fine-tuning: a trained model learns to say what the assistant says in conversations."""

    name: str = "sft"
    packing: Literal["best_fit", "none"] = "best_fit"
    """best_fit: conversations side by side in a row, none attending to another. none: one a row."""
    neftune_alpha: float = 0.0
    """Noise on the embeddings while training (NEFTune; 5 to 15 in the paper); 0 = none."""
    distil: DistilConfig = field(default_factory=DistilConfig)
    sample: AnswersConfig = field(default_factory=AnswersConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.packing not in ("best_fit", "none"):
            raise ValueError(f"packing={self.packing!r} is unknown: use best_fit or none")
        if self.neftune_alpha < 0:
            raise ValueError(f"neftune_alpha={self.neftune_alpha} is negative: use 0 for no noise")
