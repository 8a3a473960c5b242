"""Llama 3.1 8B at its full context of 131,072 tokens, each row split over 16 of 128 chips of TPU v5p; 8 rows and a
million tokens a step. Llama 3's last stages reach this length (Grattafiori et al. 2024, section 3.4.2).

python -m tools.compile_tpu llama3_8b_long --topology v5p:4x4x8
"""

import dataclasses

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    mesh = MeshConfig(fsdp=8, context=16)
    long = recipe("llama3.1-8b", peak_lr=8e-5, seq_len=131_072, global_batch_size=8, num_steps=20_000, mesh=mesh)
    return dataclasses.replace(long, loss_chunk=32_768)
