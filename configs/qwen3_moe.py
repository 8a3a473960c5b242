"""Qwen3-MoE, 30B of which 3B serve a token, and 235B of which 22B do. Shapes: Yang et al. 2025, table 2, and the
released configurations. Rates and batches are not published: those here are of models of such active sizes.

    python -m tools.plan model qwen3-30b-a3b --seq-len 4096
"""

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    mesh = MeshConfig(fsdp=8, expert=8)
    return recipe("qwen3-30b-a3b", peak_lr=3e-4, seq_len=4096, global_batch_size=1024, num_steps=500_000, mesh=mesh)


def qwen3_235b_a22b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=64, expert=16)
    return recipe("qwen3-235b-a22b", peak_lr=1.5e-4, seq_len=4096, global_batch_size=4096, num_steps=500_000, mesh=mesh)
