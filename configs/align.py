"""The whole road on two cores: text, pretraining, SFT, a reward model, PPO, GRPO and DPO, and one report.

    make align                       (python -m experiments.align align)
    python -m experiments.align align --seed 1 --run-dir runs/align_1

The world is made up from the seed: towns with facts, tasks over letters, filler. A 0.8 M-parameter decoder over bytes;
nothing is downloaded.
"""

import dataclasses

from jaxlm.data.batches import DataConfig
from jaxlm.data.world.records import WorldConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.optim.schedules import ScheduleName
from jaxlm.run.align.config import AnswersConfig, RecordsConfig
from jaxlm.run.align.dpo_config import DpoConfig, PlainTextConfig
from jaxlm.run.align.ppo_config import CriticConfig, PpoConfig, RewardConfig, RolloutConfig
from jaxlm.run.align.reward_config import JudgeConfig, RewardModelConfig
from jaxlm.run.align.road_config import REWARD_STAGE, RoadConfig
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.text.tokenizer import TokenizerConfig
from jaxlm.train.preference_objectives import PairConfig
from jaxlm.train.rollouts import AdvantageConfig, KlConfig


def config() -> RoadConfig:
    last = CheckpointConfig(keep_last=1)
    watched = (RewardConfig("preferred", function="preferred", weight=0.0),)
    return RoadConfig(
        name="align",
        world=WorldConfig(),
        base=PretrainConfig(
            name="Pretraining",
            tokenizer=TokenizerConfig(kind="byte"),
            data=DataConfig(seq_len=256, packing="concat"),
            model=DecoderConfig(
                max_seq_len=256,
                num_layers=4,
                model_dim=128,
                num_heads=4,
                mlp_dim=344,
                norm_scale=False,
                zero_init_outputs=True,
                init_std=0.02,
                scan_layers=False,
            ),
            optimizer=_muon(2e-2, weight_decay=0.05),
            num_steps=2400,
            global_batch_size=16,
            log_every=50,
            checkpoint=last,
            sample=SampleConfig(num_samples=4),
        ),
        sft=SftConfig(
            name="Instruction tuning",
            data=RecordsConfig(seq_len=256),
            optimizer=_muon(4e-3, weight_decay=0.01),
            num_epochs=1,
            global_batch_size=8,
            log_every=50,
            checkpoint=last,
            sample=AnswersConfig(num_prompts=8, max_new_tokens=24),
        ),
        reward=RewardModelConfig(
            name="Reward model",
            data=RecordsConfig(seq_len=72),
            reward=JudgeConfig(likelihood_coef=1.0, likelihood_scale=4.0),
            optimizer=_muon(3e-4, weight_decay=0.01),
            num_epochs=1,
            global_batch_size=8,
            log_every=50,
            checkpoint=last,
            eval_batch_size=64,
        ),
        ppo=PpoConfig(
            name="PPO",
            algorithm="ppo",
            rewards=(
                # Over kl.coef this is how many nats of odds a point of the reward model is worth to the policy.
                RewardConfig("model", run=REWARD_STAGE, weight=0.1),
                RewardConfig("right", function="right", weight=1.0),
                *watched,
            ),
            rollout=RolloutConfig(num_prompts=256, max_new_tokens=20),
            advantages=AdvantageConfig(gae_lambda=1.0, reward_clip=3.0),
            kl=KlConfig(coef=0.05),
            critic=CriticConfig(peak_lr=1e-3, reward="model"),
            optimizer=dataclasses.replace(_adam(3e-4, "wsd"), decay_fraction=0.5),
            num_rollouts=130,
            log_every=20,
            checkpoint=last,
        ),
        grpo=PpoConfig(
            name="GRPO",
            algorithm="grpo",
            rewards=(
                RewardConfig("right", function="right"),
                RewardConfig("model", run=REWARD_STAGE, weight=0.06),
                *watched,
            ),
            rollout=RolloutConfig(num_prompts=48, group_size=8, max_new_tokens=20),
            # Else the reward model alone drives groups apart in which the checker finds nothing right.
            advantages=AdvantageConfig(std_eps=0.2),
            kl=KlConfig(coef=0.05),
            optimizer=_adam(3e-4, "linear"),
            num_rollouts=100,
            log_every=20,
            checkpoint=last,
        ),
        dpo=DpoConfig(
            name="DPO",
            base="sft",
            data=RecordsConfig(seq_len=80),
            pairs=PairConfig(loss="dpo", beta=0.1, nll_coef=1.0),
            text=PlainTextConfig(coef=1.0),
            optimizer=_adam(5e-5, "linear"),
            num_epochs=1,
            global_batch_size=32,
            log_every=20,
            checkpoint=last,
            eval_batch_size=64,
            sample=AnswersConfig(num_prompts=8, max_new_tokens=24),
        ),
        kl_cap=10.0,
    )


def _muon(rate: float, *, weight_decay: float) -> OptimizerConfig:
    return OptimizerConfig(
        name="muon",
        peak_lr=rate,
        embedding_lr=rate / 2,
        schedule="linear",
        warmup_steps=10,
        b2=0.95,
        weight_decay=weight_decay,
    )


def _adam(rate: float, schedule: ScheduleName) -> OptimizerConfig:
    return OptimizerConfig(peak_lr=rate, schedule=schedule, warmup_steps=10, b2=0.99, weight_decay=0.0)
