"""PaLM, 8B, 62B and 540B parameters. Shapes: Chowdhery et al. 2022, table 1; rates and batches are ours.

    python -m tools.plan model palm-8b
    python -m tools.plan model palm-540b

540,356,474,880 parameters at 540B: 540,354,281,472 in matrices and table, 2,193,408 in the gains of 119 LayerNorms (one
a layer, as blocks are parallel, and one at the end). PaLM was trained with Adafactor at 1e-2, then 1/sqrt(step): the
recipe here is this project's own.
"""

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    mesh = MeshConfig(fsdp=32)
    return recipe("palm-8b", peak_lr=3e-4, seq_len=2048, global_batch_size=512, num_steps=255_000, mesh=mesh)


def palm_62b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=64, model=8)
    return recipe("palm-62b", peak_lr=1.5e-4, seq_len=2048, global_batch_size=512, num_steps=255_000, mesh=mesh)


def palm_540b() -> PretrainConfig:
    mesh = MeshConfig(data=2, fsdp=64, model=16)
    return recipe("palm-540b", peak_lr=1e-4, seq_len=2048, global_batch_size=512, num_steps=255_000, mesh=mesh)
