"""The configs of tuning that are shipped name no base: it comes with the command."""

import json

import pytest

from jaxlm.core.errors import UserError
from jaxlm.run.align import dpo, reward, sft
from jaxlm.run.align.dpo_config import DpoConfig
from jaxlm.run.align.reward_config import RewardModelConfig
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.run.config_files import load_config

COMMANDS = {
    "sft_small": (SftConfig, sft.sft),
    "dpo_small": (DpoConfig, dpo.dpo),
    "reward_small": (RewardModelConfig, reward.reward),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_they_can_be_made_and_ask_for_a_base(name, tmp_path):
    kind, run = COMMANDS[name]
    record = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    path = tmp_path / "train.jsonl"
    lines = (
        [record] * 2
        if name == "sft_small"
        else [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(40)]
    )
    held_out = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    held_out.write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    config, _ = load_config(
        kind, [name, "--data.train", str(path), "--data.validation", str(held_out), "--tune", "lora"]
    )
    with pytest.raises(UserError, match="base is not given"):
        run(config, tmp_path / "run")
