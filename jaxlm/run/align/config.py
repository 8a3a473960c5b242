"""What the configs of all tuning to conversations and preferences have in common."""

import dataclasses
from dataclasses import field
from typing import Literal, get_args

from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.families import ModelConfig, check_context
from jaxlm.models.lora import LoraConfig
from jaxlm.optim.optimizers import USES_B2, OptimizerConfig
from jaxlm.sharding.mesh import MeshConfig
from jaxlm.text.tokenizer import TokenizerConfig
from jaxlm.train.spikes import SpikeConfig

Tune = Literal["all", "lora", "lora_int8"]
"""all: every parameter. lora: low-rank adapters beside the base, which is frozen. lora_int8: the same, the kernels of
the base's attention and MLPs kept in 8 bits (QLoRA-style)."""


@dataclasses.dataclass(frozen=True)
class RecordsConfig:
    """Files of conversations, rankings or judged answers (docs/sft.md has their forms), and their rows."""

    train: tuple[str, ...] = ()
    """Files to learn from, .jsonl or .json."""
    validation: tuple[str, ...] = ()
    """Files to judge by; none = validation_fraction of the others."""
    validation_fraction: float = 0.1
    """Records whose prompts have the lowest hashes, this share, are held out: answers to one prompt stay on one
    side."""
    template: str | None = None
    """Chat template: chatml, llama3, gemma, alpaca, or a file. None = the base's own, or chatml."""
    seq_len: int = 256
    """Tokens that a row predicts."""
    on_bad: Literal["fail", "skip"] = "fail"
    """Of a bad record: end with its file and line, or pass over it, counted and the first ones listed."""
    add_bos: bool | None = None
    """Whether plain texts begin with <bos> (``jaxlm.load``); None = as the base was trained."""

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"data.{name}={getattr(self, name)!r} is one string: write a tuple of paths")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"data.validation_fraction={self.validation_fraction} is outside (0, 1)")
        if self.seq_len < 8:
            raise ValueError(f"data.seq_len={self.seq_len} is less than 8: there is no room for an answer")
        if self.on_bad not in ("fail", "skip"):
            raise ValueError(f"data.on_bad={self.on_bad!r} is unknown: use fail or skip")


@dataclasses.dataclass(frozen=True)
class AnswersConfig:
    """Answers written while training and at its end."""

    prompts: tuple[str, ...] = ()
    """What the user says; none = the first held-out prompts."""
    num_prompts: int = 4
    """How many held-out prompts, where none are given; 0 = no answers."""
    max_new_tokens: int = 64
    temperature: float = 0.0
    """0 = the likeliest token each time."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.num_prompts < 0 or self.temperature < 0:
            raise ValueError("sample.max_new_tokens must be at least 1, num_prompts and temperature 0 or more")


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """Tuning a trained model to conversations or preferences."""

    name: str = "tuning"
    """A title for the report."""
    seed: int = 0
    """Of fresh parameters, the order of the data, dropout and noise."""
    base: str | None = None
    """Run directory that training starts from; None = fresh parameters (model, tokenizer)."""
    base_step: int | None = None
    """Which checkpoint of the base; None = the newest, written down when the run starts."""
    model: ModelConfig | None = None
    """The model where there is no base."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Trained on the training records where there is no base."""
    dropout: float | None = None
    """Rate inside the model while it is tuned; None = the base's own."""
    data: RecordsConfig = field(default_factory=RecordsConfig)
    tune: Tune = "all"
    """What is trained: all parameters, or adapters (lora, lora_int8)."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """The adapters, where tune asks for them."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            peak_lr=1e-4, schedule="linear", warmup_steps=10, b2=0.999, weight_decay=0.0
        )
    )
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(keep_last=1))
    spikes: SpikeConfig = field(default_factory=lambda: SpikeConfig(response="note"))
    """What counts as a spike of loss or gradient. The losses of a few records jump by nature: nothing is done."""
    num_epochs: int = 3
    """Passes over the training records, where num_steps is None."""
    num_steps: int | None = None
    """Optimiser steps; None = num_epochs passes."""
    global_batch_size: int = 16
    """Rows (of conversations), or prompts with their answers, in one optimiser step."""
    grad_accum_steps: int = 1
    loss_chunk: int | None = None
    """Positions of each row whose logits exist at once; None = all."""
    log_every: int = 10
    eval_every: int | None = None
    """Steps between evaluations on what is held out; None = at the end only."""
    eval_batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("num_epochs", "global_batch_size", "grad_accum_steps", "log_every", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("num_steps", "eval_every", "loss_chunk"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1, or None")
        if self.global_batch_size % self.grad_accum_steps:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is not a multiple of "
                f"grad_accum_steps={self.grad_accum_steps}: change one of them"
            )
        if self.tune not in get_args(Tune):
            raise ValueError(f"tune={self.tune!r} is unknown: choose {', '.join(get_args(Tune))}")
        if self.spikes.b2 is not None and self.optimizer.name not in USES_B2:
            raise ValueError(
                f"spikes.b2={self.spikes.b2} means nothing to optimizer.name={self.optimizer.name!r}: use None"
            )
        if self.base is None and self.base_step is not None:
            raise ValueError(f"base_step={self.base_step} speaks of a base, and base is None: name a run directory")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is outside [0, 1)")
        if self.model is not None:
            check_context(self.mesh, self.model)

    @property
    def microbatch_size(self) -> int:
        """Rows in one forward and backward pass, over all devices."""
        return self.global_batch_size // self.grad_accum_steps
