"""Reinforcement learning of a small tuned model with a checker of your own (GRPO): minutes on two cores.

    python -m experiments.ppo ppo_small --base runs/sft_small --prompts.train PROMPTS.jsonl \
        --rewards.0.function checker.py:check

``checker.py`` has ``def check(prompts, answers, records)`` and returns a number for each answer. With a critic:
``--algorithm ppo --rollout.num-prompts 128 --ppo-epochs 2``.
"""

from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.ppo_config import PpoConfig, RewardConfig, RolloutConfig
from jaxlm.train.rollouts import KlConfig


def config() -> PpoConfig:
    return PpoConfig(
        name="Reinforcement learning of a small model",
        algorithm="grpo",
        rewards=(RewardConfig("checker", function="checker.py:check"),),
        rollout=RolloutConfig(num_prompts=16, max_new_tokens=64),
        kl=KlConfig(coef=0.02),
        optimizer=OptimizerConfig(peak_lr=1e-3, schedule="constant", b2=0.999, weight_decay=0.0),
        num_rollouts=120,
        num_minibatches=2,
        log_every=20,
        eval_every=40,
    )
