"""What the configs of all tuning to conversations and preferences have in common."""

import dataclasses
from dataclasses import field
from typing import Literal, get_args

from jaxlm.models.families import check_context
from jaxlm.models.lora import LoraConfig
from jaxlm.run.based_config import BasedConfig
from jaxlm.sharding.mesh import MeshConfig

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


def check_short_rows(mesh: MeshConfig) -> None:
    """Raises ValueError for a mesh that splits the positions of a row."""
    if mesh.context > 1:
        raise ValueError(
            f"mesh.context={mesh.context} splits long rows, and answers are short: use mesh.context=1, and mesh.data "
            "or mesh.fsdp instead"
        )


@dataclasses.dataclass(frozen=True)
class TuningConfig(BasedConfig):
    """Tuning a trained model to conversations or preferences."""

    data: RecordsConfig = field(default_factory=RecordsConfig)
    tune: Tune = "all"
    """What is trained: all parameters, or adapters (lora, lora_int8)."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """The adapters, where tune asks for them."""
    loss_chunk: int | None = None
    """Positions of each row whose logits exist at once; None = all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_chunk is not None and self.loss_chunk < 1:
            raise ValueError(f"loss_chunk={self.loss_chunk} must be at least 1, or None")
        if self.tune not in get_args(Tune):
            raise ValueError(f"tune={self.tune!r} is unknown: choose {', '.join(get_args(Tune))}")
        if self.model is not None:
            check_context(self.mesh, self.model)
