"""What the configs of all runs have in common that start from a trained model."""

import dataclasses
from dataclasses import field

from jaxlm.core.seeds import check_seed
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.families import ModelConfig
from jaxlm.optim.optimizers import USES_B2, OptimizerConfig
from jaxlm.sharding.mesh import MeshConfig
from jaxlm.text.tokenizer import TokenizerConfig
from jaxlm.train.spikes import SpikeConfig


def tuning_optimizer(weight_decay: float) -> OptimizerConfig:
    """AdamW with a small rate that falls to nothing, for some hundreds of steps."""
    return OptimizerConfig(peak_lr=1e-4, schedule="linear", warmup_steps=10, b2=0.999, weight_decay=weight_decay)


@dataclasses.dataclass(frozen=True)
class BasedConfig:
    """Training that starts from a base: a run directory, or nothing."""

    name: str = "tuning"
    """A title for the report."""
    seed: int = 0
    """Of fresh parameters, the order of the data, dropout and noise."""
    base: str | None = None
    """Run directory whose model, tokenizer and parameters training starts from; None = fresh ones (model,
    tokenizer)."""
    base_step: int | None = None
    """Which checkpoint of the base; None = the newest, written down when the run starts."""
    model: ModelConfig | None = None
    """The model where there is no base."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Trained on the training data where there is no base."""
    dropout: float | None = None
    """Rate inside the model while it is tuned; None = the base's own."""
    optimizer: OptimizerConfig = field(default_factory=lambda: tuning_optimizer(0.0))
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(keep_last=1))
    spikes: SpikeConfig = field(default_factory=lambda: SpikeConfig(response="note"))
    """What counts as a spike of loss or gradient. The losses of a few records jump by nature: nothing is done."""
    num_epochs: int = 3
    """Passes over the training data, where num_steps is None."""
    num_steps: int | None = None
    """Optimiser steps; None = num_epochs passes."""
    global_batch_size: int = 16
    """Examples (rows, or prompts with their answers) in one optimiser step, over all devices and microbatches."""
    grad_accum_steps: int = 1
    log_every: int = 10
    eval_every: int | None = None
    """Steps between evaluations on what is held out; None = at the end only."""
    eval_batch_size: int = 32

    def __post_init__(self) -> None:
        check_seed(self.seed)
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
        if self.base is None and self.base_step is not None:
            raise ValueError(f"base_step={self.base_step} speaks of a base, and base is None: name a run directory")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is outside [0, 1)")

    @property
    def microbatch_size(self) -> int:
        """Examples in one forward and backward pass, over all devices."""
        return self.global_batch_size // self.grad_accum_steps
