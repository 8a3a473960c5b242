"""The config of `jaxlm small-large`: one task, a small model tuned on it, and a larger one that is prompted."""

import dataclasses
from dataclasses import field

from jaxlm.core.seeds import check_seed
from jaxlm.run.finetune_config import FinetuneConfig


@dataclasses.dataclass(frozen=True)
class SmallLargeConfig:
    """A small model fine-tuned on a task against a larger language model that is shown some examples."""

    name: str = "small-large"
    """A title for the report."""
    seed: int = 0
    """Of the shots, and of which validation examples are answered."""
    large: str = ""
    """Run directory of the language model that is prompted: a decoder or a recurrent model."""
    small: FinetuneConfig = field(default_factory=FinetuneConfig)
    """The model that is tuned, and the labelled files. Without files the task is made from the standard library's
    docstrings: what does each describe, a module, a class, a method or a function?"""
    num_shots: int = 4
    """Examples of the training file in front of each text that the larger model reads."""
    shot_tokens: int = 40
    """Tokens that the larger model reads of each text; longer ones lose their end."""
    cue: str = "kind:"
    """Stands on the line below each text, before the words of its label."""
    label_words: tuple[str, ...] = ()
    """What the larger model reads for each label, in the order of the labels; () = the labels themselves."""
    max_examples: int | None = 200
    """Validation examples that both answer, drawn by the seed; None = all."""
    timed_answers: int = 20
    """Answers that are timed one by one."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.small.task.kind != "classify" or self.small.task.text_b is not None:
            raise ValueError("small.task is not to classify single texts: set its kind to classify and text_b to None")
        if bool(self.small.task.train) != bool(self.small.task.validation):
            raise ValueError("small.task.train and small.task.validation: give both files, or neither")
        if not self.cue.strip():
            raise ValueError(f"cue={self.cue!r} is empty: give a word that asks for the label")
        if self.num_shots < 0:
            raise ValueError(f"num_shots={self.num_shots} is negative: give 0 or more")
        for name in ("shot_tokens", "max_examples", "timed_answers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
