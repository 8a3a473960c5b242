"""GPT-2, 124M to 1.5B parameters. Shapes: Radford et al. 2019, table 2 (counted as 117M to 1542M there). Batches of
half a million tokens and rates are those of GPT-3's models of these sizes: GPT-2's paper gives none.

    python -m experiments.pretrain gpt2 --dry-run
    python -m tools.plan model gpt2-xl
"""

from configs._recipe import recipe
from jaxlm.run.config import PretrainConfig


def config() -> PretrainConfig:
    return recipe("gpt2", peak_lr=6e-4, seq_len=1024, global_batch_size=512, num_steps=600_000, grad_accum_steps=4)


def medium() -> PretrainConfig:
    return recipe("gpt2-medium", peak_lr=3e-4, seq_len=1024, global_batch_size=512, num_steps=600_000)


def large() -> PretrainConfig:
    return recipe("gpt2-large", peak_lr=2.5e-4, seq_len=1024, global_batch_size=512, num_steps=600_000)


def xl() -> PretrainConfig:
    return recipe("gpt2-xl", peak_lr=2e-4, seq_len=1024, global_batch_size=512, num_steps=600_000)
