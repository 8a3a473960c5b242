"""The config of tuning to preferences without a reward model: DPO and its kin."""

import dataclasses
from dataclasses import field

from jaxlm.core.fields import ADDED
from jaxlm.data.corpus import CorpusConfig
from jaxlm.run.align.config import AnswersConfig, TuningConfig, check_short_rows
from jaxlm.train.preference_objectives import WITH_REFERENCE, PairConfig


@dataclasses.dataclass(frozen=True)
class PlainTextConfig:
    """Plain text beside what a model is tuned to, so that it goes on knowing text (PPO-ptx, Ouyang et al. 2022)."""

    coef: float = 0.0
    """Weight of its cross-entropy a token; 0 = none is read."""
    corpus: CorpusConfig = field(default_factory=lambda: CorpusConfig(validation_fraction=0.0))
    """Where it comes from; best a part of what the base was trained on. Nothing of it is held out."""
    seq_len: int = 128
    """Tokens that a row predicts. A batch has as many rows of text as prompts."""

    def __post_init__(self) -> None:
        if self.coef < 0 or self.seq_len < 1:
            raise ValueError(f"text.coef={self.coef} must be 0 or more, text.seq_len={self.seq_len} at least 1")


@dataclasses.dataclass(frozen=True)
class DpoConfig(TuningConfig):
    """Tuning to preferences: a model that answers is fitted to pairs (dpo, cdpo, robust, ipo, orpo, simpo), or to
    single answers that were judged (kto)."""

    name: str = "dpo"
    pairs: PairConfig = field(default_factory=PairConfig)
    """Which loss. A ranking of more than two is its best and its worst answer; kto takes those as a good and a bad
    one."""
    reference: str | None = None
    """Run that it is dear to leave; None = the base. Its log-probabilities are computed once and kept in the run
    directory. Losses without a reference (orpo, simpo) read none."""
    reference_step: int | None = None
    """Which checkpoint of the reference; None = the newest, written down when the run starts."""
    sample: AnswersConfig = field(default_factory=AnswersConfig)
    text: PlainTextConfig = field(default_factory=PlainTextConfig, metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_short_rows(self.mesh)
        if self.reference is not None and self.pairs.loss not in WITH_REFERENCE:
            raise ValueError(f"pairs.loss={self.pairs.loss!r} has no reference: leave reference out")
        if self.reference is None and self.reference_step is not None:
            raise ValueError("reference_step speaks of a reference, and reference is None: name a run directory")
