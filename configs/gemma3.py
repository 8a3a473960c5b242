"""Gemma 3, its text model, 270M to 27B. Shapes: Gemma Team 2025, table 1, and the released configurations; rates and
batches are not published, those here are of models of such sizes.

    python -m experiments.pretrain gemma3 --dry-run
    python -m tools.plan model gemma3-1b --seq-len 8192
"""

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    return recipe("gemma3-270m", peak_lr=1e-3, seq_len=4096, global_batch_size=256, num_steps=500_000)


def gemma3_1b() -> PretrainConfig:
    return recipe("gemma3-1b", peak_lr=6e-4, seq_len=4096, global_batch_size=256, num_steps=500_000)


def gemma3_4b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=16)
    return recipe("gemma3-4b", peak_lr=3e-4, seq_len=8192, global_batch_size=256, num_steps=500_000, mesh=mesh)


def gemma3_12b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=64)
    return recipe("gemma3-12b", peak_lr=2e-4, seq_len=8192, global_batch_size=512, num_steps=500_000, mesh=mesh)


def gemma3_27b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=64, model=4)
    return recipe("gemma3-27b", peak_lr=1.5e-4, seq_len=8192, global_batch_size=1024, num_steps=500_000, mesh=mesh)
