"""The road for tests: all of its stages in a few steps."""

import dataclasses
from typing import Any

from configs.align import config as full
from jaxlm.data.world.records import WorldConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.run.align.road_config import RoadConfig

replace = dataclasses.replace


def tiny() -> RoadConfig:
    """A world of a few towns and a model that learns nothing."""
    whole = full()

    def soon(stage: Any, **changes: Any) -> Any:
        return replace(stage, optimizer=replace(stage.optimizer, warmup_steps=0), **changes)

    model = DecoderConfig(max_seq_len=256, num_layers=1, model_dim=16, num_heads=2, mlp_dim=32, scan_layers=False)
    sizes = WorldConfig(
        num_towns=6, num_documents=120, num_conversations=60, num_rare=2, num_rehearsed=8, num_rankings=24,
        num_pairs=24, num_prompts=24, num_questions=2, num_held_out=8,
    )  # fmt: skip
    return replace(
        whole,
        world=sizes,
        base=soon(whole.base, model=model, num_steps=3, global_batch_size=8),
        sft=soon(whole.sft, num_steps=2),
        reward=soon(whole.reward, num_steps=2, global_batch_size=8),
        dpo=soon(whole.dpo, num_steps=2, global_batch_size=8),
        ppo=soon(whole.ppo, num_rollouts=1, num_minibatches=1, rollout=replace(whole.ppo.rollout, num_prompts=8)),
        grpo=soon(whole.grpo, num_rollouts=1, rollout=replace(whole.grpo.rollout, num_prompts=4, group_size=4)),
    )
