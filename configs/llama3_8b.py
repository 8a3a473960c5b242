"""Llama 3 8B on 256 chips of TPU v5e, 8,192 tokens of context, 4 million tokens a step (Grattafiori et al. 2024).

python -m tools.compile_tpu llama3_8b --topology v5e:16x16
"""

import dataclasses

from configs.llama3 import llama3_8b
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    return dataclasses.replace(llama3_8b(), mesh=MeshConfig(fsdp=256), loss_chunk=1024)
