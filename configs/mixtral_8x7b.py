"""Mixtral 8x7B on 256 chips of TPU v5p, 4 million tokens a step.

python -m tools.compile_tpu mixtral_8x7b --topology v5p:4x8x8
"""

import dataclasses

from configs.mixtral import config as mixtral
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    return dataclasses.replace(mixtral(), mesh=MeshConfig(fsdp=32, expert=8), loss_chunk=1024)
