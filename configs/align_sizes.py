"""The road of ``align`` at four widths, to SFT and DPO: is a larger model more helpful, harmless and honest?

    python -m experiments.scaling align align_sizes --processes 2
    python -m experiments.scaling align align_sizes --num-seeds 3      # later: two more roads of each width

Fifty minutes on two cores, beside tests. What it says is in ``docs/scaling.md``.
"""

import dataclasses

from configs import align
from jaxlm.run.align.road_sizes_config import RoadSizesConfig


def config() -> RoadSizesConfig:
    road = dataclasses.replace(align.config(), stages=("base", "sft", "dpo"))
    return RoadSizesConfig(name="Roads of four sizes", road=road, widths=(32, 64, 96, 128))
