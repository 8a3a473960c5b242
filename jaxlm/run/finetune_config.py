"""The config of a fine-tuning run: which model, which labelled data, which head."""

import dataclasses
from dataclasses import field
from typing import get_args

from jaxlm.models.heads import Pooling, TaskKind
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.based_config import BasedConfig, tuning_optimizer


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Labelled data and what is to be learnt from it. Files are .jsonl (an object a line) or .tsv (names first)."""

    kind: TaskKind = "classify"
    """classify: a class for each text or pair. regress: a number for it. tag: a class for each word."""
    train: str = ""
    """File to train on."""
    validation: str = ""
    """File to judge by."""
    text: str = "text"
    """Column of the text; of the words where kind is tag."""
    text_b: str | None = None
    """Column of the second text, for pairs."""
    label: str = "label"
    """Column of the label, the number, or the tags."""
    labels: tuple[str, ...] = ()
    """The classes in their order; () = those of the training file, sorted. Of two, the second is the positive one."""
    seq_len: int = 128
    """Longer examples are cut: of a pair the longer text first, of words those that do not fit whole."""
    pooling: Pooling | None = None
    """Which token speaks for a text; None = the first in an encoder, the last in the other families."""
    head_dropout: float = 0.1
    """Rate on what the head reads."""

    def __post_init__(self) -> None:
        for name, choices in (("kind", get_args(TaskKind)), ("pooling", (None, *get_args(Pooling)))):
            if getattr(self, name) not in choices:
                raise ValueError(f"task.{name}={getattr(self, name)!r} is unknown: choose one of {choices}")
        if self.kind == "tag" and self.text_b is not None:
            raise ValueError(f"task.text_b={self.text_b!r} with kind='tag': words have no second text, leave it None")
        if self.kind == "regress" and self.labels:
            raise ValueError("task.labels are for classes, and kind='regress' has numbers: leave them out")
        if self.labels and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise ValueError(f"task.labels={self.labels} are not two different classes or more")
        if self.seq_len < 8:
            raise ValueError(f"task.seq_len={self.seq_len} is less than 8: there is no room for a text")
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"task.head_dropout={self.head_dropout} is outside [0, 1)")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(BasedConfig):
    """Fine-tuning on labelled data, from a trained model or from nothing."""

    name: str = "finetune"
    from_scratch: bool = False
    """Take the base's model and tokenizer but not its parameters: what pretraining is compared with."""
    task: TaskConfig = field(default_factory=TaskConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: tuning_optimizer(0.01))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base is None and self.from_scratch:
            raise ValueError("from_scratch speaks of a base, and base is None: name a run directory")
        if self.mesh.context > 1:
            raise ValueError(
                f"mesh.context={self.mesh.context} splits long rows, and labelled texts are short: use mesh.context=1, "
                "and mesh.data or mesh.fsdp instead"
            )
