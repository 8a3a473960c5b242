"""Reinforcement learning killed anywhere ends bit for bit where it would have ended: rollouts, state, reward curve."""

import json
import random
import signal
import time

import pytest

from tests.run.align.policy_runs import write_base, write_prompts
from tests.run.commands import REPO, assert_same_run, finish, free_port, launch, succeed, wait_for

pytestmark = pytest.mark.slow

CONFIG = '''
"""A tiny run for the tests."""
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.ppo_config import PpoConfig, PromptsConfig, RewardConfig, RolloutConfig
from jaxlm.train.rollouts import KlConfig


def config():
    return PpoConfig(
        base="ROOT/base",
        prompts=PromptsConfig(("ROOT/train.jsonl",)),
        rewards=(
            RewardConfig("right", function="FUNCTIONS:right_answer"),
            RewardConfig("gold", 0.0, function="FUNCTIONS:exactly_right"),
        ),
        rollout=RolloutConfig(num_prompts=8, group_size=4, max_new_tokens=8),
        optimizer=OptimizerConfig(peak_lr=1e-3, schedule="constant", weight_decay=0.0),
        checkpoint=CheckpointConfig(save_every=5, keep_last=2),
        ppo_epochs=2, num_minibatches=2, num_rollouts=15, log_every=3,
        FIELDS
    )
'''
"""A save every 5 steps where a rollout has 4: most stand within a rollout."""
FIELDS = {"ppo": 'algorithm="ppo", kl=KlConfig(coef=0.1, target=1.0),', "grpo": 'algorithm="grpo",'}
LAST_STEP = 60
KILLS = 10


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("root")
    write_base(path / "base", num_steps=80)
    write_prompts(path / "train.jsonl", 50, 1)
    for name, fields in FIELDS.items():
        functions = REPO / "tests" / "run" / "align" / "policy_runs.py"
        text = CONFIG.replace("ROOT", str(path)).replace("FUNCTIONS", str(functions)).replace("FIELDS", fields)
        (path / f"{name}.py").write_text(text)
    return path


def start(root, name, run_dir):
    return [launch("ppo", str(root / f"{name}.py"), "--run-dir", str(run_dir))]


def read(run_dir, name):
    path = run_dir / name
    found = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in found if line.endswith("}")]


def last_step(run_dir):
    return max((line["step"] for line in read(run_dir, "metrics.jsonl")), default=0)


def rollouts(run_dir):
    """What each rollout was like: its figures, to the last bit of their decimals, and its answers."""
    lines = [
        {k: v for k, v in line.items() if k == "step" or k.startswith("rollout/")}
        for line in read(run_dir, "metrics.jsonl")
    ]
    return [line for line in lines if len(line) > 1], read(run_dir, "samples.jsonl")


def test_two_processes_draw_and_learn_what_one_does(root, tmp_path):
    text = (root / "ppo.py").read_text().replace("num_rollouts=15", "num_rollouts=3")
    text = text.replace('algorithm="ppo"', 'algorithm="ppo", mesh=MeshConfig(fsdp=2)')
    text = text.replace("from jaxlm.train", "from jaxlm.sharding.mesh import MeshConfig\nfrom jaxlm.train", 1)
    (root / "mesh.py").write_text(text)
    argv = ("ppo", str(root / "mesh.py"), "--run-dir")
    cluster = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    pair = [
        launch(*argv, str(tmp_path / "pair"), num_devices=2, JAX_PROCESS_ID=str(index), **cluster) for index in range(2)
    ]
    succeed(pair)
    succeed([launch(*argv, str(tmp_path / "alone"), num_devices=4)])
    (figures, answers), (whole, whole_answers) = rollouts(tmp_path / "pair"), rollouts(tmp_path / "alone")
    assert answers == whole_answers
    for one, other in zip(figures, whole, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("name", FIELDS)
def test_ten_kills_change_no_bit(root, tmp_path, name):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    succeed(start(root, name, whole))
    rng = random.Random(0)
    killed_at = []
    for moment in sorted(rng.randrange(1, LAST_STEP - 4) for _ in range(KILLS)):
        processes = start(root, name, broken)
        wait_for(lambda moment=moment: last_step(broken) >= moment, processes)
        time.sleep(rng.uniform(0, 0.1))
        processes[0].kill()
        finish(processes)
        assert processes[0].returncode == -signal.SIGKILL, "it ended before the kill: choose an earlier moment"
        killed_at.append(last_step(broken))
    succeed(start(root, name, broken))
    print(f"{name}: {KILLS} kills at steps {killed_at}")
    assert_same_run(broken, whole)
    assert rollouts(broken) == rollouts(whole)
