"""Mixtral 8x7B and 8x22B. Shapes: Jiang et al. 2024, table 1, and the released configurations (8x22B: v0.1); rates and
batches are not published, those here are of models of such active sizes.

    python -m tools.plan model mixtral-8x7b --seq-len 4096
"""

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    mesh = MeshConfig(fsdp=8, expert=8)
    return recipe("mixtral-8x7b", peak_lr=3e-4, seq_len=4096, global_batch_size=1024, num_steps=500_000, mesh=mesh)


def mixtral_8x22b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=32, expert=8)
    return recipe("mixtral-8x22b", peak_lr=1.5e-4, seq_len=4096, global_batch_size=2048, num_steps=500_000, mesh=mesh)
