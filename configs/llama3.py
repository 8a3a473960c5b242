"""Llama 3 and 3.2. Shapes and rates: Grattafiori et al. 2024, table 3 (8B, 70B, 405B); 1B and 3B: the released
configurations of Llama 3.2.

    python -m experiments.pretrain llama3 --dry-run
    python -m tools.plan model llama3-8b --seq-len 8192
"""

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    return recipe("llama3.2-1b", peak_lr=3e-4, seq_len=8192, global_batch_size=128, num_steps=500_000)


def llama3_2_3b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=8)
    return recipe("llama3.2-3b", peak_lr=3e-4, seq_len=8192, global_batch_size=256, num_steps=500_000, mesh=mesh)


def llama3_8b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=32)
    return recipe("llama3-8b", peak_lr=3e-4, seq_len=8192, global_batch_size=512, num_steps=1_200_000, mesh=mesh)


def llama3_70b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=128, model=4)
    return recipe("llama3-70b", peak_lr=1.5e-4, seq_len=8192, global_batch_size=1024, num_steps=1_200_000, mesh=mesh)


def llama3_1_405b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=256, model=8)
    return recipe("llama3.1-405b", peak_lr=8e-5, seq_len=8192, global_batch_size=2048, num_steps=1_200_000, mesh=mesh)
