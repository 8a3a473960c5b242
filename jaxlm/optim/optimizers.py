"""AdamW, Lion, Adafactor and Muon as optax chains: clip, precondition, decay, scale by the schedule."""

import dataclasses
import math
from typing import Any, Literal

import jax
import optax
import optax.contrib

from jaxlm.core.errors import UserError
from jaxlm.core.tree import map_with_paths
from jaxlm.core.types import PyTree
from jaxlm.optim.groups import param_group
from jaxlm.optim.schedules import ScheduleName, make_schedule, relaxed_promotion
from jaxlm.optim.width import scale_by_width


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimiser, its schedule and its guards. One flat record: ``name`` says which fields are read."""

    name: Literal["adamw", "lion", "adafactor", "muon"] = "adamw"
    """Which optimiser."""
    peak_lr: float = 3e-3
    """Learning rate at the end of the warm-up."""
    schedule: ScheduleName = "cosine"
    """How the rate falls after the warm-up; wsd: held, then falling over ``decay_fraction``."""
    warmup_steps: int = 0
    """Steps over which the rate rises from 0."""
    final_lr_ratio: float = 0.0
    """Rate at the last step over the peak rate."""
    decay_fraction: float = 0.2
    """wsd: the share of all steps over which the rate falls at the end."""
    b1: float = 0.9
    """adamw, and what muon leaves to it: decay of the mean gradient; lion: its share in the sign."""
    b2: float = 0.95
    """adamw, and what muon leaves to it: decay of the mean squared gradient; lion: of the momentum."""
    eps: float = 1e-8
    """adamw, and what muon leaves to it: added to the root of the mean square."""
    weight_decay: float = 0.1
    """Decoupled, times the learning rate, on matrices only (and on embeddings if ``decay_embeddings``)."""
    decay_embeddings: bool = False
    """Weight decay on embeddings too."""
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this global norm; None = never."""
    embedding_lr: float | None = None
    """muon: peak rate of what AdamW with Nesterov's momentum (Dozat 2016) trains beside it (embeddings, head, norms,
    biases); None = ``peak_lr``."""
    muon_momentum: float = 0.95
    """muon: decay of the momentum."""
    muon_ns_steps: int = 5
    """muon: Newton-Schulz iterations a step."""
    muon_consistent_rms: float | None = None
    """muon: None scales updates by sqrt(max(1, fan_out / fan_in)); 0.2 matches AdamW's update size (Liu et al.
    2025)."""

    def __post_init__(self) -> None:
        for name in ("peak_lr", "embedding_lr", "warmup_steps", "eps", "weight_decay", "muon_consistent_rms"):
            if (value := getattr(self, name)) is not None and not 0 <= value < math.inf:  # NaN is refused too
                raise ValueError(f"optimizer.{name}={value} must be a finite number of 0 or more")
        if self.muon_ns_steps < 1:
            raise ValueError(f"optimizer.muon_ns_steps={self.muon_ns_steps} must be at least 1")
        for name in ("b1", "b2", "muon_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} is outside [0, 1)")
        for name in ("final_lr_ratio", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} is outside [0, 1]")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"optimizer.clip_norm={self.clip_norm} must be above 0: use None for no clipping")

    def adjusted(self, *, rate_factor: float = 1.0, b2: float | None = None) -> "OptimizerConfig":
        """The same with all rates times a factor, and another ``b2``; the state of the optimiser fits both."""
        if rate_factor == 1.0 and b2 is None:
            return self
        embedding_lr = None if self.embedding_lr is None else self.embedding_lr * rate_factor
        return dataclasses.replace(
            self, peak_lr=self.peak_lr * rate_factor, embedding_lr=embedding_lr, b2=self.b2 if b2 is None else b2
        )

    def schedule_fn(self, num_steps: int, peak_lr: float | None = None) -> optax.Schedule:
        """The rate at each optimiser step of a run of ``num_steps``."""
        return make_schedule(
            self.schedule,
            peak_lr=self.peak_lr if peak_lr is None else peak_lr,
            num_steps=num_steps,
            warmup_steps=self.warmup_steps,
            final_lr_ratio=self.final_lr_ratio,
            decay_fraction=self.decay_fraction,
        )


Scaling = tuple[optax.GradientTransformation, ...]


def decay_mask(params: PyTree, *, decay_embeddings: bool) -> PyTree:
    """True where weight decay applies: matrices, and embeddings on request; never norms and biases."""
    decayed = ("matrix", "embedding") if decay_embeddings else ("matrix",)
    return map_with_paths(lambda path, _: param_group(path) in decayed, params)


def muon_dimension_numbers(params: PyTree) -> PyTree:
    """Muon's view of each hidden matrix: the last two axes; leading axes (stacked layers) are a batch of matrices."""

    def numbers(path: str, leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if param_group(path) != "matrix":
            return None
        return optax.contrib.MuonDimensionNumbers(reduction_axis=leaf.ndim - 2, output_axis=leaf.ndim - 1)

    return map_with_paths(numbers, params)


def _adamw(config: OptimizerConfig, num_steps: int, mask: Any, scaling: Scaling) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        *scaling,
        optax.add_decayed_weights(config.weight_decay, mask),
        optax.scale_by_learning_rate(config.schedule_fn(num_steps)),
    )


def _lion(config: OptimizerConfig, num_steps: int, mask: Any, scaling: Scaling) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_lion(config.b1, config.b2),
        *scaling,
        optax.add_decayed_weights(config.weight_decay, mask),
        optax.scale_by_learning_rate(config.schedule_fn(num_steps)),
    )


def _adafactor(config: OptimizerConfig, num_steps: int, mask: Any, scaling: Scaling) -> optax.GradientTransformation:
    # optax.adafactor decays after the rate is applied; here the decay is multiplied by the rate as in the other three.
    return optax.chain(
        optax.adafactor(learning_rate=None, multiply_by_parameter_scale=False),
        *scaling,
        optax.add_decayed_weights(-config.weight_decay, mask=mask),  # adafactor's output already points downhill
        optax.scale_by_schedule(config.schedule_fn(num_steps)),
    )


def _scale_by_shape(consistent_rms: float | None) -> optax.GradientTransformation:
    """Orthogonal steps [..., fan_in, fan_out] to the size that suits a width (Jordan et al. 2024; Liu et al. 2025)."""

    def scaled(step: Any) -> Any:
        fan_in, fan_out = step.shape[-2:]
        if consistent_rms is None:
            return step * math.sqrt(max(1.0, fan_out / fan_in))
        return step * (consistent_rms * math.sqrt(max(fan_in, fan_out)))

    return optax.stateless(lambda updates, _: jax.tree.map(scaled, updates))


def _muon(config: OptimizerConfig, num_steps: int, mask: Any, scaling: Scaling) -> optax.GradientTransformation:
    if scaling and config.muon_consistent_rms is not None:
        raise UserError(
            f"optimizer.muon_consistent_rms={config.muon_consistent_rms} gives a matrix the same step at every width, "
            "which model.base_dim is to avoid: leave it None"
        )
    # No scaling: a step of Muon's has the norm sqrt(fan_out / fan_in) as an operator, as muP asks of a hidden matrix.
    embedding_lr = config.peak_lr if config.embedding_lr is None else config.embedding_lr
    matrices = optax.chain(
        optax.contrib.scale_by_muon(
            ns_steps=config.muon_ns_steps,
            beta=config.muon_momentum,
            weight_dimension_numbers=muon_dimension_numbers,
        ),
        _scale_by_shape(config.muon_consistent_rms),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(config.schedule_fn(num_steps)),
    )
    # The rest is not handed to optax.contrib.muon, which would decay norms and biases with the embeddings.
    others = optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.eps, nesterov=True),
        optax.add_decayed_weights(config.weight_decay, mask),
        optax.scale_by_learning_rate(config.schedule_fn(num_steps, embedding_lr)),
    )

    def labels(params: PyTree) -> PyTree:
        return map_with_paths(lambda path, _: "muon" if param_group(path) == "matrix" else "adam", params)

    return optax.partition({"muon": matrices, "adam": others}, labels)


USES_B2 = ("adamw", "lion")
"""The optimisers that ``b2`` means something to."""

_OPTIMIZERS = {"adamw": _adamw, "lion": _lion, "adafactor": _adafactor, "muon": _muon}


def make_optimizer(
    config: OptimizerConfig, num_steps: int, *, width: float | None = None
) -> optax.GradientTransformation:
    """The whole chain for a run of ``num_steps``: clipping, the optimiser, its decay mask and its schedule.

    ``width``: of a model under muP, over that of its base (`optim.width`); None = one rate for all parameters.

    AdamW: Loshchilov & Hutter 2019. Lion: Chen et al. 2023. Adafactor: Shazeer & Stern 2018. Muon: Jordan et al. 2024.
    """

    def mask(params: PyTree) -> PyTree:
        return decay_mask(params, decay_embeddings=config.decay_embeddings)

    scaling = () if width is None else (scale_by_width(width),)
    optimizer = _OPTIMIZERS[config.name](config, num_steps, mask, scaling)
    if config.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    return optax.GradientTransformation(relaxed_promotion(optimizer.init), relaxed_promotion(optimizer.update))
