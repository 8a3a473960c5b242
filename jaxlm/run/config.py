"""The config of a pretraining run: one frozen record that says everything a run's result depends on."""

import dataclasses
import math
from dataclasses import field

from jaxlm.core.fields import ADDED
from jaxlm.core.seeds import check_seed
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.masking import MaskingConfig
from jaxlm.data.ramp import BatchRamp, check_ramp
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.io.eval_files.own import is_own
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.families import CARRIES_STATE, ModelConfig, check_context, check_stages
from jaxlm.optim.optimizers import USES_B2, OptimizerConfig
from jaxlm.sharding.mesh import MeshConfig
from jaxlm.text.tokenizer import TokenizerConfig
from jaxlm.train.spikes import SpikeConfig

MAY_CHANGE = (
    "name",
    "log_every",
    "eval_every",
    "eval_batch_size",
    "health_every",
    "checkpoint",
    "spikes",
    "sample",
    "tasks",
    "mesh",
    "data.num_epochs",
    "data.read_threads",
    "data.prefetch",
)
"""What may differ when a run directory is started again: it changes what is reported and where it runs, not what is
computed (a mesh changes rounding). ``data.num_epochs`` moves the end of the data alone. ``spikes`` does
alter it once there is one: what was done is in the list of incidents, and a run that was stopped by them goes on under
other values. Everything else alters the trajectory, so it needs another run directory."""


def fields_that_may_change(config: "PretrainConfig") -> tuple[str, ...]:
    """MAY_CHANGE for this config, and what a slice of another size needs: memory for time, at the same result.

    Over a stream the rows of an evaluation are its lanes, and alter ``eval/loss``. Dropout is drawn and experts are
    balanced by microbatch: there their number alters the trajectory.
    """
    fixed = {"eval_batch_size"} if config.data.packing == "stream" else set()
    drops = any(getattr(config.model, name) for name in vars(config.model) if name.endswith("dropout"))
    by_microbatch = drops or getattr(config.model, "moe", None) is not None
    memory = ("model.remat_policy", "loss_chunk", *(() if by_microbatch else ("grad_accum_steps",)))
    return (*(name for name in MAY_CHANGE if name not in fixed), *memory)


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Texts generated while training and at its end; an encoder writes none."""

    prompts: tuple[str, ...] = ("",)
    """What the texts go on from; () = write none."""
    max_new_tokens: int = 120
    """Longest completion."""
    temperature: float = 0.8
    """0 = the likeliest token each time."""
    top_p: float | None = 0.95
    """Draw from the likeliest tokens that hold this share; None = from all."""
    num_samples: int = 2
    """Completions of each prompt."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(
                f"sample.max_new_tokens={self.max_new_tokens} is less than 1: use sample.prompts=() for none"
            )
        if self.num_samples < 1:
            raise ValueError(f"sample.num_samples={self.num_samples} is less than 1: use sample.prompts=() for none")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"sample.temperature={self.temperature} must be a number, 0 (the likeliest) or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"sample.top_p={self.top_p} must lie in (0, 1]: use None to draw from all")


@dataclasses.dataclass(frozen=True)
class TasksConfig:
    """Tasks (docs/evaluate.md) that a model is put to at each evaluation while it trains."""

    names: tuple[str, ...] = ()
    """Which tasks, by name, or by the file of one's own; () = none."""
    data: str | None = None
    """The folder that holds their files."""
    num_shots: int = 0
    """Examples in front of each item."""
    limit: int | None = 200
    """Items of each task, evenly spread; None = all."""

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise ValueError(f"tasks.names={self.names!r} is one string: write a tuple of names")
        if self.data is None and not all(map(is_own, self.names)):
            raise ValueError(f"tasks.names={', '.join(self.names)} without tasks.data: name the folder of their files")
        if self.num_shots < 0 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"tasks.num_shots={self.num_shots} must be 0 or more, tasks.limit={self.limit} 1 or more")


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Pretraining on text: corpus, tokenizer, batches, model, optimiser, mesh and schedule of the run."""

    name: str = "pretrain"
    """A title for the report."""
    seed: int = 0
    """Of the parameters, the order of the data and dropout."""
    base: str | None = field(default=None, metadata=ADDED)
    """Run directory whose parameters, model and tokenizer training goes on from, under this config's data, optimiser
    and schedule; None = fresh ones. What ``model`` sets goes over the base's model, and must not alter parameters."""
    base_step: int | None = field(default=None, metadata=ADDED)
    """Which checkpoint of the base; None = the newest, written down when the run starts."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=DecoderConfig)
    """A decoder, a recurrent model or an encoder: the config file says which."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """What an encoder learns from."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    spikes: SpikeConfig = field(default_factory=SpikeConfig)
    """What counts as a spike of loss or gradient, and what is done then."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig, metadata=ADDED)
    num_steps: int = 1000
    """Optimiser steps of the run."""
    global_batch_size: int = 16
    """Rows of data.seq_len tokens in one optimiser step, over all devices and microbatches."""
    grad_accum_steps: int = 1
    """Microbatches that one step is computed in: less memory, the same result."""
    batch_ramp: tuple[tuple[int, int], ...] = ()
    """(batch, rows) pairs: from this batch on a step has so many rows in place of global_batch_size. Microbatches stay
    as large: there are more of them. The schedule of the learning rate goes by steps as ever."""
    z_loss_coef: float = 0.0
    """Weight of the mean squared log-normaliser, added to the loss (PaLM); 0 = none."""
    loss_chunk: int | None = None
    """Positions of each row whose logits exist at once, worked out again in the backward pass: the same loss and
    gradient in less memory; evaluations keep to it too. None = all."""
    ema_decay: float | None = None
    """Decay of the averaged parameters a step; None = keep none."""
    log_every: int = 10
    """Steps between lines of metrics."""
    eval_every: int | None = None
    """Steps between evaluations on the whole validation split; None = at the end only."""
    eval_batch_size: int = 32
    """Rows scored at once in evaluations."""
    health_every: int | None = None
    """Steps between looks at what goes on layer by layer (`docs/health.md`), each about the cost of two steps; None =
    never."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("num_steps", "global_batch_size", "grad_accum_steps", "log_every", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.eval_every is not None and self.eval_every < 1:
            raise ValueError(f"eval_every={self.eval_every} must be at least 1: use None for the end only")
        if self.health_every is not None and self.health_every < 1:
            raise ValueError(f"health_every={self.health_every} must be at least 1: use None to never look")
        if self.global_batch_size % self.grad_accum_steps:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is not a multiple of "
                f"grad_accum_steps={self.grad_accum_steps}: change one of them"
            )
        check_ramp(self.batch_ramp, microbatch_size=self.microbatch_size)
        if self.batch_ramp and self.data.packing == "stream":
            raise ValueError(
                "batch_ramp and data.packing='stream' do not go together: the rows of a batch are its lanes"
            )
        if self.base is None:  # else the model is the base's, and not known yet
            self.check_model()
        if self.base is None and self.base_step is not None:
            raise ValueError(f"base_step={self.base_step} speaks of a base, and base is None: name a run directory")
        self.mesh.check_positions(self.data.seq_len, "data.seq_len")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} is outside (0, 1): use None to keep no average")
        if self.loss_chunk is not None and self.loss_chunk < 1:
            raise ValueError(f"loss_chunk={self.loss_chunk} must be at least 1: use None for all positions at once")
        if not 0 <= self.z_loss_coef < math.inf:
            raise ValueError(f"z_loss_coef={self.z_loss_coef} must be a finite number of 0 or more")
        if self.spikes.b2 is not None and self.optimizer.name not in USES_B2:
            raise ValueError(
                f"spikes.b2={self.spikes.b2} means nothing to optimizer.name={self.optimizer.name!r}: use None"
            )
        if self.optimizer.warmup_steps >= self.num_steps:
            raise ValueError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps} leaves nothing of num_steps={self.num_steps}: "
                "lower the warm-up or train longer"
            )

    def check_model(self) -> None:
        """Raises ValueError where the model does not go with data and mesh."""
        if self.data.packing == "stream" and self.model.family not in CARRIES_STATE:
            raise ValueError(
                "data.packing='stream' is for models that carry a state from batch to batch, and a "
                f"{self.model.family} does not: use best_fit or concat"
            )
        if self.model.max_seq_len is not None and self.data.seq_len > self.model.max_seq_len:
            raise ValueError(
                f"data.seq_len={self.data.seq_len} is more than model.max_seq_len={self.model.max_seq_len}: "
                "raise model.max_seq_len or lower data.seq_len"
            )
        check_context(self.mesh, self.model)
        check_stages(self.mesh, self.model)

    @property
    def microbatch_size(self) -> int:
        """Rows in one forward and backward pass, over all devices."""
        return self.global_batch_size // self.grad_accum_steps

    @property
    def tokens_per_step(self) -> int:
        """Token slots in one optimiser step, padding included; the first one's where batches grow."""
        return self.global_batch_size * self.data.seq_len

    def at_largest_batch(self) -> "PretrainConfig":
        """The same with the largest batch of its ramp from the first step on: what memory and compilers must take."""
        rows = max(BatchRamp(self.global_batch_size, self.batch_ramp).sizes)
        steps = rows // self.microbatch_size
        return dataclasses.replace(self, global_batch_size=rows, grad_accum_steps=steps, batch_ramp=())

    @property
    def num_rows(self) -> int:
        """Rows in all steps together."""
        return BatchRamp(self.global_batch_size, self.batch_ramp).first_place(self.num_steps)
