"""The config of `jaxlm transfer`: one small pretraining, at several widths, rates and seeds."""

import dataclasses
from dataclasses import field
from typing import Literal

from jaxlm.core.seeds import check_seed
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.width import at_width
from jaxlm.run.config import PretrainConfig

Parametrisation = Literal["standard", "mup"]


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Which rate is best at which width, in the standard parametrisation and under muP."""

    name: str = "transfer"
    """A title for the report."""
    run: PretrainConfig = field(default_factory=PretrainConfig)
    """What is trained; width, rate and seed are set by the grid. Its decoder is the standard parametrisation."""
    parametrisations: tuple[Parametrisation, ...] = ("standard", "mup")
    widths: tuple[int, ...] = (64, 128, 256, 512)
    base_dim: int = 64
    """The base of muP."""
    mup_init_std: float | None = None
    """Deviation of the weights at the base of muP; None = 1/sqrt(fan in)."""
    standard_log2_lrs: tuple[int, int] = (-13, -7)
    """The lowest and the highest peak rate of the grid as powers of 2; every power between them is tried."""
    mup_log2_lrs: tuple[int, int] = (-11, -5)
    """The same for muP, at the width of its base."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of start and data; all rates and widths of a seed read the same batches."""
    average_steps: int = 20
    """The loss of a run is its mean over so many last steps: on text that it has not seen, in less than an epoch."""

    def __post_init__(self) -> None:
        if not isinstance(self.run.model, DecoderConfig):
            raise ValueError(f"run.model is a {self.run.model.family}: muP is for decoders")
        if self.run.model.base_dim is not None:
            raise ValueError(f"run.model.base_dim={self.run.model.base_dim}: leave it None and set base_dim")
        if self.run.batch_ramp:
            raise ValueError(f"run.batch_ramp={self.run.batch_ramp}: batches of all steps are of one size, leave it ()")
        if not self.widths or list(self.widths) != sorted(set(self.widths)):
            raise ValueError(f"widths={self.widths} must be different and ascending")
        if not self.seeds or not self.parametrisations:
            raise ValueError("seeds and parametrisations: name at least one of each")
        for seed in self.seeds:
            check_seed(seed)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={self.seeds} must be different: one that comes again is no other run")
        for name in ("standard_log2_lrs", "mup_log2_lrs"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name}={low, high}: the lowest power of 2 comes first, then a higher one")
        if not 1 <= self.average_steps <= self.run.num_steps:
            raise ValueError(f"average_steps={self.average_steps} must be from 1 to run.num_steps={self.run.num_steps}")
        for width in self.widths:  # refused here, not after an hour
            self.run_at("mup", width, 0)

    def rates(self, parametrisation: Parametrisation) -> tuple[float, ...]:
        """The grid of peak rates."""
        low, high = self.standard_log2_lrs if parametrisation == "standard" else self.mup_log2_lrs
        return tuple(2.0**power for power in range(low, high + 1))

    def run_at(self, parametrisation: Parametrisation, width: int, seed: int) -> PretrainConfig:
        """The pretraining at a width; its rate is 1, to be multiplied with that of the grid."""
        model, optimizer = self.run.model, self.run.optimizer
        assert isinstance(model, DecoderConfig)
        if parametrisation == "mup":
            model = at_width(dataclasses.replace(model, init_std=self.mup_init_std), width, base_dim=self.base_dim)
        else:
            model = at_width(model, width)
        embedding = None if optimizer.embedding_lr is None else optimizer.embedding_lr / optimizer.peak_lr
        return dataclasses.replace(
            self.run,
            seed=seed,
            model=model,
            optimizer=dataclasses.replace(optimizer, peak_lr=1.0, embedding_lr=embedding),
        )
