"""The road of ``align`` in fewer steps and records, for a first look: 23 minutes on one core.

make quickstart-long              (python -m experiments.align align_quick)

Seed 0 reaches 15 of 18 targets. The rare task takes more rollouts (PPO 12 % of it, GRPO 28), the reward model more
rankings (88.7 %).
"""

import dataclasses

from configs import align
from jaxlm.data.world.records import WorldConfig
from jaxlm.run.align.road_config import RoadConfig


def config() -> RoadConfig:
    road = align.config()
    return dataclasses.replace(
        road,
        name="align_quick",
        world=WorldConfig(
            num_towns=48,
            num_documents=12_000,
            num_conversations=12_000,
            num_rare=8,
            num_rehearsed=3_000,
            num_rankings=2_000,
            num_pairs=1_500,
            num_questions=50,
        ),
        base=dataclasses.replace(road.base, num_steps=800),
        ppo=dataclasses.replace(road.ppo, num_rollouts=40),
        grpo=dataclasses.replace(road.grpo, num_rollouts=40),
    )
