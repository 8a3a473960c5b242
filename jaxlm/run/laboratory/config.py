"""The config of ``experiments.emergence``: which experiments, on what, with which models."""

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Literal, get_args

from jaxlm.core.seeds import check_seed
from jaxlm.data.puzzles.arithmetic import ArithmeticConfig
from jaxlm.data.puzzles.instructions import InstructionsConfig
from jaxlm.data.puzzles.regressions import RegressionsConfig
from jaxlm.data.puzzles.repeats import RepeatsConfig
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig

Part = Literal["induction", "copying", "regression", "arithmetic", "instructions"]
PARTS: tuple[Part, ...] = get_args(Part)


def _small_decoder() -> DecoderConfig:
    return DecoderConfig(num_layers=2, model_dim=64, num_heads=4, norm_scale=False, scan_layers=False)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a model of the laboratory learns: every row is new."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    num_steps: int = 1000
    tokens_per_step: int = 2048
    """As many rows as come nearest from below, one at least: rows of another length are another number."""
    num_looks: int = 20
    """How often the model is examined on the way, at even distances."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "tokens_per_step", "num_looks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.num_steps % self.num_looks:
            raise ValueError(f"num_steps={self.num_steps} is not a multiple of num_looks={self.num_looks}")

    @property
    def steps_per_look(self) -> int:
        """Between two examinations."""
        return self.num_steps // self.num_looks

    def num_rows(self, row_len: int) -> int:
        """Rows of a step."""
        return max(1, self.tokens_per_step // row_len)


@dataclasses.dataclass(frozen=True)
class InductionConfig:
    """Attention alone, of one layer and of two, on rows that repeat themselves."""

    rows: RepeatsConfig = field(default_factory=RepeatsConfig)
    model: DecoderConfig = field(default_factory=lambda: dataclasses.replace(_small_decoder(), mlp="none"))
    depths: tuple[int, ...] = (1, 2)
    """Layers, in the model's place."""
    num_seeds: int = 3
    training: TrainingConfig = field(default_factory=TrainingConfig)
    num_test_rows: int = 64

    def __post_init__(self) -> None:
        _check_ascending("induction.depths", self.depths)
        _check_positive("induction", self, "num_seeds", "num_test_rows")


@dataclasses.dataclass(frozen=True)
class CopyingConfig:
    """The same rows, for whole decoders of several widths."""

    rows: RepeatsConfig = field(default_factory=RepeatsConfig)
    model: DecoderConfig = field(default_factory=_small_decoder)
    widths: tuple[int, ...] = (8, 16, 32, 64)
    """In the place of the model's ``model_dim``; the number of heads stays."""
    num_seeds: int = 1
    training: TrainingConfig = field(default_factory=TrainingConfig)
    num_test_rows: int = 64

    def __post_init__(self) -> None:
        _check_widths("copying", self.model, self.widths)
        _check_positive("copying", self, "num_seeds", "num_test_rows")


@dataclasses.dataclass(frozen=True)
class RegressionConfig:
    """Linear functions from examples in the context, for decoders of several widths, against ridge regression."""

    rows: RegressionsConfig = field(default_factory=RegressionsConfig)
    model: DecoderConfig = field(default_factory=_small_decoder)
    widths: tuple[int, ...] = (8, 16, 32, 64)
    num_seeds: int = 1
    training: TrainingConfig = field(default_factory=TrainingConfig)
    num_test_rows: int = 1024

    def __post_init__(self) -> None:
        _check_widths("regression", self.model, self.widths)
        _check_positive("regression", self, "num_seeds", "num_test_rows")


@dataclasses.dataclass(frozen=True)
class QuestionsConfig:
    """One kind of sum, and how long it is learnt."""

    questions: ArithmeticConfig = field(default_factory=ArithmeticConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclasses.dataclass(frozen=True)
class ArithmeticPartConfig:
    """Answers at once against answers after steps, over widths and tokens read."""

    kinds: tuple[QuestionsConfig, ...] = field(default_factory=lambda: (QuestionsConfig(),))
    model: DecoderConfig = field(default_factory=_small_decoder)
    widths: tuple[int, ...] = (16, 32, 64)
    num_seeds: int = 1
    num_questions: int = 1024
    """Held-out ones that every model is asked."""

    def __post_init__(self) -> None:
        _check_widths("arithmetic", self.model, self.widths)
        _check_positive("arithmetic", self, "num_seeds", "num_questions")
        names = [one.questions.kind for one in self.kinds]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"arithmetic.kinds are {', '.join(names) or 'none'}: give one or more, each once")


@dataclasses.dataclass(frozen=True)
class InstructionsPartConfig:
    """Unseen instructions against the number of instructions learnt from."""

    num_templates: tuple[int, ...] = (8, 16, 24, 32, 48)
    num_unseen: int = 16
    model: DecoderConfig = field(default_factory=_small_decoder)
    num_seeds: int = 2
    training: TrainingConfig = field(default_factory=TrainingConfig)
    num_questions: int = 1024
    """Asked of unseen templates, and as many of those learnt from."""

    def __post_init__(self) -> None:
        _check_ascending("instructions.num_templates", self.num_templates)
        _check_positive("instructions", self, "num_seeds", "num_questions")
        if len(self.num_templates) < 3:
            raise ValueError(f"instructions.num_templates={self.num_templates}: a trend needs 3 numbers or more")
        for count in self.num_templates:
            self.data(count)

    def data(self, num_templates: int) -> InstructionsConfig:
        """What a model learns from."""
        return InstructionsConfig(num_templates, self.num_unseen)


@dataclasses.dataclass(frozen=True)
class LaboratoryConfig:
    """Experiments on how abilities come, each a few small models: all together, or some (``parts``)."""

    name: str = "emergence"
    """A title for the report."""
    seed: int = 0
    """Of the first model of each experiment, its data and the questions."""
    parts: tuple[Part, ...] = PARTS
    induction: InductionConfig = field(default_factory=InductionConfig)
    copying: CopyingConfig = field(default_factory=CopyingConfig)
    regression: RegressionConfig = field(default_factory=RegressionConfig)
    arithmetic: ArithmeticPartConfig = field(default_factory=ArithmeticPartConfig)
    instructions: InstructionsPartConfig = field(default_factory=InstructionsPartConfig)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not self.parts or tuple(name for name in PARTS if name in self.parts) != self.parts:
            raise ValueError(f"parts={self.parts}: give one or more of {', '.join(PARTS)}, in this order, each once")


def _check_positive(group: str, config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{group}.{name}={getattr(config, name)} must be at least 1")


def _check_ascending(name: str, values: Sequence[int]) -> None:
    if not values or list(values) != sorted(set(values)) or values[0] < 1:
        raise ValueError(f"{name}={tuple(values)}: give one or more sizes, different and ascending")


def _check_widths(group: str, model: DecoderConfig, widths: Sequence[int]) -> None:
    _check_ascending(f"{group}.widths", widths)
    for width in widths:
        of_width(model, width)


def of_width(model: DecoderConfig, width: int) -> DecoderConfig:
    """The same decoder, wider or narrower, its heads too."""
    return dataclasses.replace(model, model_dim=width, head_dim=None, mlp_dim=None)
