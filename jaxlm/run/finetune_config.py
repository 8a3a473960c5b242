"""The config of a fine-tuning run: which model, which labelled data, which head."""

import dataclasses
from dataclasses import field
from typing import get_args

from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.families import ModelConfig
from jaxlm.models.heads import Pooling, TaskKind
from jaxlm.optim.optimizers import USES_B2, OptimizerConfig
from jaxlm.sharding.mesh import MeshConfig
from jaxlm.text.tokenizer import TokenizerConfig
from jaxlm.train.spikes import SpikeConfig


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
class FinetuneConfig:
    """Fine-tuning on labelled data, from a trained model or from nothing."""

    name: str = "finetune"
    """A title for the report."""
    seed: int = 0
    """Of the head, the order of the examples and dropout."""
    base: str | None = None
    """Run directory whose model, tokenizer and parameters training starts from; None = fresh ones (model,
    tokenizer)."""
    base_step: int | None = None
    """Which checkpoint of the base; None = the newest, written down when the run starts."""
    from_scratch: bool = False
    """Take the base's model and tokenizer but not its parameters: what pretraining is compared with."""
    model: ModelConfig | None = None
    """The model where there is no base."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Trained on the training examples where there is no base."""
    dropout: float | None = None
    """Rate inside the model while fine-tuning; None = the base's own."""
    task: TaskConfig = field(default_factory=TaskConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            peak_lr=1e-4, schedule="linear", warmup_steps=10, b2=0.999, weight_decay=0.01
        )
    )
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(keep_last=1))
    spikes: SpikeConfig = field(default_factory=lambda: SpikeConfig(response="note"))
    """What counts as a spike of loss or gradient. The losses of a few examples jump by nature: nothing is done."""
    num_epochs: int = 3
    """Passes over the training file, where num_steps is None."""
    num_steps: int | None = None
    """Optimiser steps; None = num_epochs passes."""
    global_batch_size: int = 16
    """Examples in one optimiser step, over all devices and microbatches."""
    grad_accum_steps: int = 1
    log_every: int = 10
    eval_every: int | None = None
    """Steps between evaluations on the whole validation file; None = at the end only."""
    eval_batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("num_epochs", "global_batch_size", "grad_accum_steps", "log_every", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("num_steps", "eval_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1, or None")
        if self.global_batch_size % self.grad_accum_steps:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is not a multiple of "
                f"grad_accum_steps={self.grad_accum_steps}: change one of them"
            )
        if self.spikes.b2 is not None and self.optimizer.name not in USES_B2:
            raise ValueError(
                f"spikes.b2={self.spikes.b2} means nothing to optimizer.name={self.optimizer.name!r}: use None"
            )
        if self.base is None and (self.base_step is not None or self.from_scratch):
            raise ValueError("base_step and from_scratch speak of a base, and base is None: name a run directory")
        if self.mesh.context > 1:
            raise ValueError(
                f"mesh.context={self.mesh.context} splits long rows, and labelled texts are short: use mesh.context=1, "
                "and mesh.data or mesh.fsdp instead"
            )
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is outside [0, 1)")

    @property
    def microbatch_size(self) -> int:
        """Examples in one forward and backward pass, over all devices."""
        return self.global_batch_size // self.grad_accum_steps
