"""A run killed anywhere ends bit for bit where it would have ended: real SIGKILLs at real, seeded moments."""

import json
import random
import signal
import time

import pytest

from tests.run.commands import assert_same_run, finish, start, start_pair, succeed, wait_for, write_config

pytestmark = pytest.mark.slow

FIELDS = """
        data=DataConfig(seq_len=64),
        model=DecoderConfig(max_seq_len=64, num_layers=2, model_dim=128, num_heads=4, dropout=0.1, scan_layers=False),
        optimizer=OptimizerConfig(name="muon", peak_lr=0.02, warmup_steps=5),
        checkpoint=CheckpointConfig(save_every=4, keep_last=2),
        num_steps=60, global_batch_size=8, grad_accum_steps=2, ema_decay=0.9, log_every=1, eval_every=20,
"""
LAST_STEP = 60
LEAST_IN_FLIGHT = 8


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"), FIELDS)


class Kill:
    """One kill: when it struck, and whether a save was under way."""

    def __init__(self, run_dir):
        self.checkpoints = run_dir / "checkpoints"
        self.metrics = run_dir / "metrics.jsonl"

    def first_step_taken(self):
        return self.metrics.exists() and bool(self.metrics.read_text().strip())

    def save_under_way(self):
        """Whether a step stands under Orbax's temporary name, or whole and without its checksums: not committed yet."""
        if not self.checkpoints.exists():
            return False
        names = [path.name for path in self.checkpoints.iterdir()]
        if any("orbax-checkpoint-tmp" in name for name in names):
            return True
        steps = [self.checkpoints / name for name in names if name.isdecimal()]
        return any(not list(step.glob("checksums.*.json")) for step in steps)

    def last_step(self):
        lines = self.metrics.read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines[-3:] if line.endswith("}")]
        return max(steps, default=0)


def kill(processes, victim, run_dir, *, at_step=None, delay=0.0, at_save=1):
    """SIGKILL ``delay`` seconds after step ``at_step``, or while the save number ``at_save`` is under way."""
    one = Kill(run_dir)
    wait_for(one.first_step_taken, processes)
    if at_step is not None:
        wait_for(lambda: one.last_step() >= at_step, processes)
        time.sleep(delay)
    else:
        for _ in range(at_save):
            wait_for(lambda: not one.save_under_way(), processes)
            wait_for(one.save_under_way, processes)
    processes[victim].kill()
    assert processes[victim].wait() == -signal.SIGKILL, "it ended before the kill: choose an earlier moment"
    in_flight = one.save_under_way()  # looked at once it is dead: nothing can finish that save any more
    return {"victim": victim, "step": one.last_step(), "in_flight": in_flight}


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory):
    """The uninterrupted run, alone and of two processes."""
    alone, pair = (tmp_path_factory.mktemp(name) / "run" for name in ("alone", "pair"))
    succeed([start(config_file, alone)])
    succeed(start_pair(config_file, pair))
    return alone, pair


def moments(rng, count, while_saving):
    """When to strike: after a random step and a random part of the next, or in a random one of the saves."""
    at_random = [{"at_step": rng.randrange(1, LAST_STEP - 1), "delay": rng.uniform(0, 0.05)} for _ in range(count)]
    return at_random + [{"at_save": rng.randrange(1, 12)} for _ in range(while_saving)]


def test_forty_kills_change_no_bit(whole, config_file, tmp_path):
    rng = random.Random(0)
    alone_dir, pair_dir = whole
    kills = []
    for index, when in enumerate(moments(rng, 18, 12)):
        run_dir = tmp_path / f"alone{index}"
        processes = [start(config_file, run_dir)]
        kills.append(kill(processes, 0, run_dir, **when))
        finish(processes)
        succeed([start(config_file, run_dir)])
        assert_same_run(run_dir, alone_dir)
    for index, when in enumerate(moments(rng, 6, 4)):
        run_dir, victim = tmp_path / f"pair{index}", index % 2
        processes = start_pair(config_file, run_dir, JAXLM_HEARTBEAT_SECONDS="10")
        kills.append(kill(processes, victim, run_dir, **when))
        finish([processes[1 - victim], processes[victim]])
        succeed(start_pair(config_file, run_dir))
        assert_same_run(run_dir, pair_dir)
    in_flight = sum(one["in_flight"] for one in kills)
    print(f"{len(kills)} kills at steps {[one['step'] for one in kills]}; {in_flight} with a save in flight")
    assert len(kills) == 40
    assert in_flight >= LEAST_IN_FLIGHT
