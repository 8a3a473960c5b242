"""Runs that a config names: which checkpoint of each, and that a resumed run goes on with the same."""

import json

from jaxlm.io.config_json import config_to_dict
from jaxlm.io.run_dir import RunDir
from jaxlm.run.align.ppo_config import PpoConfig, RewardConfig
from jaxlm.run.align.sft_config import DistilConfig, SftConfig
from jaxlm.run.tuning import Begun, named_steps


def begun(tmp_path, config):
    directory = RunDir(tmp_path)
    directory.config_path.write_text(json.dumps({"config": config_to_dict(config)}))
    found = Begun(directory)
    found.saved = True
    return found


def test_steps_are_those_that_the_run_wrote_down(tmp_path):
    old = SftConfig(base="a", base_step=3, distil=DistilConfig(teacher="t", step=5))
    asked = SftConfig(base="a", distil=DistilConfig(teacher="t"))
    assert begun(tmp_path, old).fill(asked) == old
    other = SftConfig(base="b", distil=DistilConfig(teacher="t", step=7))  # another base; a step that is given
    assert begun(tmp_path, old).fill(other) == other
    nothing_saved = begun(tmp_path, old)
    nothing_saved.saved = False
    assert nothing_saved.fill(asked) == asked


def test_reward_runs_keep_their_steps_one_by_one(tmp_path):
    def config(*steps):
        runs = zip(("x", "y"), steps, strict=True)
        rewards = [RewardConfig(name, run=name, run_step=step) for name, step in runs]
        return PpoConfig(base="a", base_step=1, rewards=(*rewards, RewardConfig("f", function="f")))

    assert begun(tmp_path, config(4, 9)).fill(config(None, 8)) == config(4, 8)
    steps = [step for _, step in named_steps(config(None, None))]
    assert steps == [("base_step",), ("rewards", 0, "run_step"), ("rewards", 1, "run_step")]
