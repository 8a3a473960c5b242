"""Qwen3, dense, 0.6B to 32B. Shapes: Yang et al. 2025, table 1, and the released configurations. Rates and batches are
not published: those here are of models of such sizes.

    python -m experiments.pretrain qwen3 --dry-run
    python -m tools.plan model qwen3-8b --seq-len 4096
"""

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    return recipe("qwen3-0.6b", peak_lr=6e-4, seq_len=4096, global_batch_size=256, num_steps=500_000)


def qwen3_1_7b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=8)
    return recipe("qwen3-1.7b", peak_lr=4e-4, seq_len=4096, global_batch_size=512, num_steps=500_000, mesh=mesh)


def qwen3_4b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=16)
    return recipe("qwen3-4b", peak_lr=3e-4, seq_len=4096, global_batch_size=512, num_steps=500_000, mesh=mesh)


def qwen3_8b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=32)
    return recipe("qwen3-8b", peak_lr=3e-4, seq_len=4096, global_batch_size=1024, num_steps=500_000, mesh=mesh)


def qwen3_14b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=64)
    return recipe("qwen3-14b", peak_lr=2e-4, seq_len=4096, global_batch_size=1024, num_steps=500_000, mesh=mesh)


def qwen3_32b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=64, model=4)
    return recipe("qwen3-32b", peak_lr=1.5e-4, seq_len=4096, global_batch_size=2048, num_steps=500_000, mesh=mesh)
