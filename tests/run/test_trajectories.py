"""What must not change a run, run through the real command: each way takes the steps of one stored reference.

``python -m tests.run.test_trajectories`` writes the reference anew: after a change that is meant to change the numbers.
"""

import dataclasses
import json
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.run_dir import RunDir
from jaxlm.nn.moe import MoeConfig
from jaxlm.run.config import PretrainConfig, fields_that_may_change
from jaxlm.run.config_files import run_config_file
from tests.run.commands import assert_same_run, finish, losses, start, start_pair, succeed, wait_for

HERE = Path(__file__).parent / "trajectory"
CONFIG, REFERENCE = HERE / "config.py", HERE / "losses.json"
EXACT_STEPS, RELATIVE = 10, 1e-5
SEEDS = (0, 1, 2, 3, 4)


def mesh(data, fsdp, model):
    return ("--mesh.data", str(data), "--mesh.fsdp", str(fsdp), "--mesh.model", str(model))


MESHES = {
    "mesh 8 1 1": mesh(8, 1, 1),
    "mesh 1 8 1": mesh(1, 8, 1),
    "mesh 2 2 2": mesh(2, 2, 2),
    "mesh 1 1 8": mesh(1, 1, 8),
    "stages": ("--mesh.stage", "2", "--mesh.model", "2"),
    "positions over 4": ("--mesh.context", "4", "--mesh.model", "2", "--mesh.sequence-parallel"),
}
ON_ONE_DEVICE = {
    "16 x 2": ("--grad-accum-steps", "2"),
    "8 x 4": ("--grad-accum-steps", "4"),
    "written out": ("--model.no-scan-layers",),
    "recomputed": ("--model.remat-policy", "full"),
    "splash": ("--model.attention", "splash_interpret"),
}


SHORT = ("--num-steps", "11", "--checkpoint.save-every", "1", "--checkpoint.keep-last", "11")
"""Keeps step 1, whose gradient stands in AdamW's first moment."""


def first_moments(run_dir):
    """AdamW's first moment after step 1 by path: a tenth of that step's clipped gradient."""
    with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        asked = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), checkpointer.shapes(step=1)
        )
        state, _ = checkpointer.restore(asked, step=1)
    leaves = jax.tree_util.tree_leaves_with_path(state["opt_state"])
    named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return {path: value for path, value in named.items() if "'mu'" in path}


def assert_same_gradients(run_dir, other_dir):
    """To 1e-5 for each tensor: norm of the difference over norm."""
    ours, theirs = first_moments(run_dir), first_moments(other_dir)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 5
    for path, value in theirs.items():
        assert np.linalg.norm(ours[path] - value) <= RELATIVE * np.linalg.norm(value), path


def assert_follows(run_dir, reference):
    """The first steps to 1e-5; the later ones, which rounding moves apart, without a bias to either side."""
    found = losses(run_dir)
    assert list(found) == list(reference)
    ours, theirs = np.array(list(found.values())), np.array(list(reference.values()))
    residual = ours / theirs - 1
    assert np.abs(residual[:EXACT_STEPS]).max() <= RELATIVE, residual[:EXACT_STEPS]
    late = residual[EXACT_STEPS:]
    assert abs(late.mean()) <= late.std() + RELATIVE, (late.mean(), late.std())
    assert np.abs(late).max() < 0.01


@pytest.fixture(scope="module")
def reference():
    return {int(step): loss for step, loss in json.loads(REFERENCE.read_text()).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(directory, final figures) of the reference's own command."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return run_dir, succeed([start(CONFIG, run_dir)])


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Its first steps, every one saved."""
    run_dir = tmp_path_factory.mktemp("short") / "run"
    succeed([start(CONFIG, run_dir, *SHORT)])
    return run_dir


@pytest.fixture(scope="module")
def seed_noise(whole, tmp_path_factory):
    """Standard deviation of the final loss over five seeds."""
    directory = tmp_path_factory.mktemp("seeds")
    finals = [whole[1]["eval/loss"]]
    finals += [succeed([start(CONFIG, directory / str(s), "--seed", str(s))])["eval/loss"] for s in SEEDS[1:]]
    print(f"final loss over seeds {SEEDS}: {np.mean(finals):.4f} +- {np.std(finals, ddof=1):.4f}")
    return float(np.std(finals, ddof=1))


def test_the_first_steps_are_those_of_the_reference(short, reference):
    # The rate of these steps is the warm-up's, which knows nothing of how long the run is.
    found = losses(short)
    for step in range(1, EXACT_STEPS + 1):
        assert abs(found[step] / reference[step] - 1) <= RELATIVE, step


@pytest.mark.slow
def test_the_reference_is_met(whole, reference):
    assert_follows(whole[0], reference)


ANOTHER_SLICE = {"grad_accum_steps": 4, "loss_chunk": 16}


@pytest.mark.parametrize("model", [{}, {"dropout": 0.1}, {"moe": MoeConfig()}])
def test_what_another_slice_needs_may_change(tmp_path, model):
    """Not the number of microbatches where they draw dropout, or balance experts, each for itself."""
    config = run_config_file(CONFIG, PretrainConfig)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **model))
    directory = RunDir(tmp_path)
    with directory:
        directory.write_config(config)
    remat = dataclasses.replace(config.model, remat_policy="full")
    other = dataclasses.replace(config, model=remat, **ANOTHER_SLICE)
    if not model:
        directory.check_config(other, may_change=fields_that_may_change(other))
        return
    with pytest.raises(UserError, match=r"another config \(grad_accum_steps: 1 -> 4\)"):
        directory.check_config(other, may_change=fields_that_may_change(other))


@pytest.fixture
def check(whole, short, reference, seed_noise, tmp_path):
    """``check(name, begin)``: all that must hold of a way to run, where ``begin(run_dir, *argv)`` starts it."""

    def check_one(name, begin):
        succeed(begin(tmp_path / "short", *SHORT))
        assert_same_gradients(tmp_path / "short", short)
        figures = succeed(begin(tmp_path / "run"))
        judge(name, tmp_path / "run", figures, whole, reference, seed_noise)

    return check_one


def judge(name, run_dir, figures, whole, reference, seed_noise):
    apart = figures["eval/loss"] - whole[1]["eval/loss"]
    print(f"{name}: final loss {figures['eval/loss']:.4f}, {apart:+.5f} from the reference")
    assert_follows(run_dir, reference)
    assert abs(apart) <= seed_noise


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_ONE_DEVICE)
def test_on_one_device(name, check):
    check(name, lambda run_dir, *argv: [start(CONFIG, run_dir, *ON_ONE_DEVICE[name], *argv)])


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_on_a_mesh(name, check):
    check(name, lambda run_dir, *argv: [start(CONFIG, run_dir, *MESHES[name], *argv, num_devices=8)])


@pytest.mark.slow
def test_in_two_processes_of_two_devices(check):
    check("2 processes x 2", lambda run_dir, *argv: start_pair(CONFIG, run_dir, *argv))


@pytest.mark.slow
def test_in_one_process_of_four_devices(check):
    check("1 process x 4", lambda run_dir, *argv: [start(CONFIG, run_dir, *argv, num_devices=4)])


@pytest.mark.slow
def test_documents_packed_and_apart_are_one_run(tmp_path):
    """One batch an epoch, so that both see all documents in each step, in rows of their own kind."""
    for packing in ("best_fit", "none"):
        plan = succeed([start(CONFIG, tmp_path / "none", "--data.packing", packing, "--dry-run")])
        rows = round(plan["batches_per_epoch"] * 32)
        argv = ("--data.packing", packing, "--global-batch-size", str(rows), "--num-steps", "40")
        argv += ("--checkpoint.save-every", "1", "--checkpoint.keep-last", "40")
        succeed([start(CONFIG, tmp_path / packing, *argv)])
    assert_same_gradients(tmp_path / "best_fit", tmp_path / "none")
    assert_follows(tmp_path / "best_fit", losses(tmp_path / "none"))


@pytest.mark.slow
def test_a_stopped_run_is_the_uninterrupted_one(whole, tmp_path):
    run_dir = tmp_path / "run"
    processes = [start(CONFIG, run_dir)]
    wait_for((run_dir / "checkpoints" / "20").exists, processes)
    processes[0].send_signal(signal.SIGTERM)
    ((code, _, err),) = finish(processes)
    assert code == 128 + signal.SIGTERM, err
    succeed([start(CONFIG, run_dir)])
    assert losses(run_dir) == losses(whole[0])
    assert_same_run(run_dir, whole[0])


@pytest.mark.slow
def test_a_run_goes_on_on_other_meshes_and_hosts(reference, whole, seed_noise, tmp_path):
    """1 device, then 2 x 2 x 2, then two processes of two, then 1 x 1 x 8 in less memory: one run."""
    run_dir, often = tmp_path / "run", ("--checkpoint.save-every", "1")
    ways = [
        lambda: [start(CONFIG, run_dir, *often)],
        lambda: [start(CONFIG, run_dir, *mesh(2, 2, 2), *often, num_devices=8)],
        lambda: start_pair(CONFIG, run_dir, *often),
    ]
    for begin, until in zip(ways, (3, 6, 9), strict=True):
        processes = begin()
        wait_for((run_dir / "checkpoints" / str(until)).exists, processes)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [code for code, _, _ in finish(processes)] == [128 + signal.SIGTERM] * len(processes)
    memory = ("--grad-accum-steps", "4", "--model.remat-policy", "full", "--loss-chunk", "16")
    figures = succeed([start(CONFIG, run_dir, *mesh(1, 1, 8), *memory, num_devices=8)])
    judge("four ways in turn", run_dir, figures, whole, reference, seed_noise)


def main():
    run_dir = Path(sys.argv[1])
    succeed([start(CONFIG, run_dir)])
    REFERENCE.write_text(json.dumps(losses(run_dir), indent=0) + "\n")


if __name__ == "__main__":
    main()
