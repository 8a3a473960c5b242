"""The config of a ladder: budgets of compute, and by rule the sizes, steps and batches of the runs at each."""

import dataclasses
import math
from dataclasses import field
from typing import NamedTuple

from jaxlm.data.batches import DataConfig
from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.width import at_size
from jaxlm.plan.flops import train_flops_per_token
from jaxlm.plan.params import count_decoder_params
from jaxlm.run.config import PretrainConfig
from jaxlm.text.tokenizer import TokenizerConfig

_LEAST_STEPS = 20
_LEAST_BUDGETS = 2
_ANY_VOCAB = 256


class Rung(NamedTuple):
    """One run of a ladder."""

    name: str
    budget: float
    """FLOPs that it was made for."""
    config: PretrainConfig
    num_params: int
    """With embeddings."""
    non_embedding_params: int
    num_tokens: int
    flops: float
    """By `jaxlm.plan`: 6 per token and parameter that it is multiplied with, and attention."""


@dataclasses.dataclass(frozen=True)
class LadderConfig:
    """IsoFLOP runs: at each budget several widths, each trained for what the budget buys; all else follows by rule."""

    name: str = "ladder"
    """A title."""
    run: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(
            tokenizer=TokenizerConfig(kind="byte"), data=DataConfig(packing="concat", num_epochs=1)
        )
    )
    """What the runs share. Its decoder is the base of muP: its rates serve every width. Depth, width, steps, batch and
    warm-up are set by the ladder."""
    budgets: tuple[float, ...] = (1e12, 4e12, 1.6e13)
    """FLOPs of the runs at each rung, forward and backward, attention counted."""
    widths: tuple[int, ...] = (32, 64, 96, 128, 192, 256)
    tokens_per_param: tuple[float, float] = (5.0, 500.0)
    """At each budget those widths are trained whose tokens a parameter (embeddings counted) lie within these."""
    dim_per_layer: int = 64
    """A model of width d has d / dim_per_layer layers, rounded, ``min_layers`` at least."""
    min_layers: int = 2
    batch_scale: float = 2.0
    """Tokens a step: this times the root of the tokens of the run, to the nearest power of 2 rows. With more tokens the
    critical batch grows, and a rate that is best for longer runs falls about as one for larger batches rises."""
    batch_rows: tuple[int, int] = (4, 128)
    """Rows a step, at least and at most."""
    warmup_share: float = 0.02
    """Of the steps of a run."""
    max_epochs: float = 1.0
    """Passes over the training text that a run may make; 1: no run reads a row twice."""

    def __post_init__(self) -> None:
        model = self.run.model
        if not isinstance(model, DecoderConfig):
            raise ValueError(f"run.model is a {model.family}: a ladder is of decoders")
        if model.base_dim is not None:
            raise ValueError(
                f"run.model.base_dim={model.base_dim}: leave it None, the ladder's base is run.model itself"
            )
        if self.run.data.packing != "concat" or self.run.batch_ramp:
            raise ValueError(
                f"run.data.packing={self.run.data.packing!r} and batch_ramp={self.run.batch_ramp}: use concat and no "
                "ramp, so that tokens are counted right"
            )
        for name in ("budgets", "widths"):
            values = getattr(self, name)
            if not values or not all(0 < value < math.inf for value in values) or list(values) != sorted(set(values)):
                raise ValueError(f"{name}={values} must be numbers above 0, different and ascending")
        if len(self.budgets) < _LEAST_BUDGETS:
            raise ValueError(f"budgets={self.budgets} is no ladder: give at least {_LEAST_BUDGETS}")
        for name in ("tokens_per_param", "batch_rows"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}={low, high}: the lower one first, above 0")
        for name in ("dim_per_layer", "min_layers", "batch_scale", "max_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share={self.warmup_share} is outside [0, 1)")
        self.rungs(model.vocab_size or _ANY_VOCAB)  # refused here, not after an hour

    def rungs(self, vocab_size: int) -> list[Rung]:
        """All runs, the smallest budget first. Raises ValueError for a budget without a width, or of too few steps."""
        found = []
        for budget in self.budgets:
            here = [self.rung(budget, width, vocab_size) for width in self.widths]
            low, high = self.tokens_per_param
            taken = [one for one in here if low <= one.num_tokens / one.num_params <= high]
            if not taken:
                ratios = ", ".join(f"{one.num_tokens / one.num_params:.3g}" for one in here)
                raise ValueError(
                    f"budgets: {budget:.3g} FLOPs give the widths {ratios} tokens a parameter, and "
                    f"tokens_per_param={low, high}: add widths or change it"
                )
            found += taken
        names = [one.name for one in found]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"budgets: {', '.join(sorted(twice))} would be the name of two runs: move them apart")
        for one in found:
            if one.config.num_steps < _LEAST_STEPS:
                raise ValueError(
                    f"{one.name} would have {one.config.num_steps} steps, fewer than {_LEAST_STEPS}: lower batch_rows "
                    "or batch_scale, or raise its budget"
                )
        return found

    def rung(self, budget: float, width: int, vocab_size: int) -> Rung:
        """The run of a width that spends a budget; what it really spends is a little off, in whole steps."""
        model = self.model_at(width, vocab_size)
        seq_len = self.run.data.seq_len
        per_token = train_flops_per_token(model, seq_len)
        wanted = budget / per_token
        low, high = self.batch_rows
        rows = 2 ** round(math.log2(max(self.batch_scale * math.sqrt(wanted) / seq_len, 1e-9)))
        rows = min(max(rows, low), high)
        steps = max(round(wanted / (rows * seq_len)), 1)
        optimizer = dataclasses.replace(
            self.run.optimizer, warmup_steps=min(round(self.warmup_share * steps), steps - 1)
        )
        name = f"{budget:.2e}-w{width}".replace("+", "")
        config = dataclasses.replace(
            self.run,
            name=f"{self.run.name}: {name}",
            model=dataclasses.replace(model, vocab_size=self.run.model.vocab_size),
            optimizer=optimizer,
            num_steps=steps,
            global_batch_size=rows,
        )
        params, num_tokens = count_decoder_params(model), steps * rows * seq_len
        return Rung(
            name, budget, config, params.total, params.total - params.embedding, num_tokens, per_token * num_tokens
        )

    def model_at(self, width: int, vocab_size: int) -> DecoderConfig:
        """The decoder of a width, its vocabulary filled in."""
        base = self.run.model
        assert isinstance(base, DecoderConfig)
        model = at_size(base, width, dim_per_layer=self.dim_per_layer, min_layers=self.min_layers)
        return dataclasses.replace(model, vocab_size=vocab_size)
