"""The config of ``experiments.scaling align``: a road, and the sizes of model that go it."""

import dataclasses
from dataclasses import field

from jaxlm.models.decoder_config import DecoderConfig
from jaxlm.models.width import at_size
from jaxlm.run.align.road_config import RoadConfig

_LEAST_SIZES = 3


@dataclasses.dataclass(frozen=True)
class RoadSizesConfig:
    """One road for models of several sizes: text, records, steps and batches are equal, depth and rates go by rule."""

    name: str = "align sizes"
    """A title for the report."""
    road: RoadConfig = field(default_factory=RoadConfig)
    """Its base's decoder is the base of muP: its rates serve every width. ``stages`` says how far all go."""
    widths: tuple[int, ...] = (32, 64, 96, 128)
    dim_per_layer: int = 32
    """A model of width d has d / dim_per_layer layers, rounded, ``min_layers`` at least."""
    min_layers: int = 2
    num_seeds: int = 1
    """Roads of each width, each with a world of its own. From 2 on what they differ by counts in all intervals."""

    def __post_init__(self) -> None:
        model = self.road.base.model
        if not isinstance(model, DecoderConfig):
            raise ValueError(f"road.base.model is a {model.family}: only a decoder answers")
        if model.base_dim is not None:
            raise ValueError(
                f"road.base.model.base_dim={model.base_dim}: leave it None, the base of muP is road.base.model itself"
            )
        if list(self.widths) != sorted(set(self.widths)) or len(self.widths) < _LEAST_SIZES or self.widths[0] < 1:
            raise ValueError(f"widths={self.widths}: a trend needs at least {_LEAST_SIZES}, different and ascending")
        for name in ("dim_per_layer", "min_layers", "num_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        self.roads()  # a width that gives no whole heads is refused here

    def roads(self) -> dict[str, RoadConfig]:
        """Directory -> road, the smallest first."""
        seeds = range(self.road.seed, self.road.seed + self.num_seeds)
        return {f"w{width}-seed{seed}": self._road(width, seed) for width in self.widths for seed in seeds}

    def _road(self, width: int, seed: int) -> RoadConfig:
        road, model = self.road, self.road.base.model
        assert isinstance(model, DecoderConfig)
        model = at_size(model, width, dim_per_layer=self.dim_per_layer, min_layers=self.min_layers)
        base = dataclasses.replace(road.base, model=model)
        return dataclasses.replace(road, name=f"{road.name}, width {width}", seed=seed, base=base)
