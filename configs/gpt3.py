"""GPT-3, 125M, 6.7B and 175B parameters. Shapes, rates and batches: Brown et al. 2020, table 2.1; 300 billion tokens.

    python -m experiments.pretrain gpt3 --dry-run
    python -m tools.plan model gpt3-175b

174,604,259,328 parameters at 175B: matrices 173,946,175,488, tokens 617,558,016 (once: the head is tied), positions
25,165,824, biases 10,616,832, LayerNorms 4,743,168.
"""

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config() -> PretrainConfig:
    return recipe("gpt3-125m", peak_lr=6e-4, seq_len=2048, global_batch_size=256, num_steps=572_000)


def gpt3_6_7b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=32)
    return recipe("gpt3-6.7b", peak_lr=1.2e-4, seq_len=2048, global_batch_size=1024, num_steps=143_000, mesh=mesh)


def gpt3_175b() -> PretrainConfig:
    mesh = MeshConfig(fsdp=128, model=8)
    return recipe("gpt3-175b", peak_lr=0.6e-4, seq_len=2048, global_batch_size=1536, num_steps=95_000, mesh=mesh)
