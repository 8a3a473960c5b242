"""The config of a small run of a study: what the study says of its model, over files that it wrote."""

from typing import Protocol

from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.run.generations_config import TrainedConfig
from jaxlm.text.tokenizer import TokenizerConfig


class Study(Protocol):
    """What the runs of a study share."""

    @property
    def name(self) -> str:
        """A title."""
        ...

    @property
    def tokenizer(self) -> TokenizerConfig: ...
    @property
    def proxy(self) -> TrainedConfig: ...
    @property
    def checkpoint(self) -> CheckpointConfig: ...
    @property
    def log_every(self) -> int: ...


def proxy_config(
    study: Study, name: str, seed: int, train: tuple[str, ...], validation: tuple[str, ...]
) -> PretrainConfig:
    """One run over these JSONL files (none: over the standard library, to be checked alone)."""
    files = CorpusConfig(source="jsonl", paths=train, validation_paths=validation) if train else CorpusConfig()
    return PretrainConfig(
        name=f"{study.name}: {name}",
        seed=seed,
        corpus=files,
        tokenizer=study.tokenizer,
        data=study.proxy.data,
        model=study.proxy.model,
        optimizer=study.proxy.optimizer,
        num_steps=study.proxy.num_steps,
        global_batch_size=study.proxy.global_batch_size,
        sample=SampleConfig(prompts=()),
        checkpoint=study.checkpoint,
        log_every=study.log_every,
        eval_batch_size=study.proxy.global_batch_size,
    )
