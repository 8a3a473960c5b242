"""A short road at three widths, in minutes: is a larger model more helpful, harmless and honest?

    python -m experiments.scaling align align_sizes_tiny --processes 2
    python -m experiments.scaling align align_sizes_tiny --road.stages base sft dpo    # later: the same roads, further

For seeing how it works; ``align_sizes`` is the long one.
"""

import dataclasses

from configs import align_quick, align_sizes
from jaxlm.run.align.road_sizes_config import RoadSizesConfig


def config() -> RoadSizesConfig:
    road = dataclasses.replace(align_quick.config(), stages=("base", "sft"))
    return dataclasses.replace(align_sizes.config(), name="Short roads of three sizes", road=road, widths=(16, 32, 64))
