"""A reward model on a small model that was taught to answer: a minute or two on two cores.

python -m experiments.reward reward_small --base runs/sft_small --data.train RANKINGS.jsonl
"""

from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.config import RecordsConfig
from jaxlm.run.align.reward_config import JudgeConfig, RewardModelConfig


def config() -> RewardModelConfig:
    return RewardModelConfig(
        name="Reward of a small model",
        data=RecordsConfig(seq_len=192),
        reward=JudgeConfig(centre_coef=0.01),
        optimizer=OptimizerConfig(peak_lr=3e-4, schedule="linear", warmup_steps=10, b2=0.99, weight_decay=0.01),
        num_epochs=3,
        global_batch_size=16,
    )
