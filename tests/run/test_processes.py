"""One run in two real processes, each with two simulated devices: the same numbers, and one fate."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from jaxlm.core.errors import ALONE_CODE, UserError
from jaxlm.run.processes import VARIABLES, detect_processes
from tests.run.commands import (
    END_SECONDS,
    REPO,
    assert_same_run,
    environment,
    finish,
    free_port,
    losses,
    refused,
    saved,
    start,
    start_pair,
    succeed,
    wait_for,
    write_config,
)

FIELDS = """
        data=DataConfig(seq_len=32),
        model=DecoderConfig(max_seq_len=32, num_layers=1, model_dim=32, num_heads=2, dropout=0.1, scan_layers=False),
        optimizer=OptimizerConfig(name="adamw", peak_lr=0.003, warmup_steps=2),
        checkpoint=CheckpointConfig(save_every=10, keep_last=10),
        num_steps=40, global_batch_size=8, ema_decay=0.9, log_every=1,
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"), FIELDS)


@pytest.fixture(scope="module")
def pair_run(config_file, tmp_path_factory):
    """An uninterrupted run in two processes, and its figures."""
    run_dir = tmp_path_factory.mktemp("pair") / "run"
    return run_dir, succeed(start_pair(config_file, run_dir))


def test_two_processes_take_the_steps_of_one(pair_run, config_file, tmp_path):
    run_dir, figures = pair_run
    alone = succeed([start(config_file, tmp_path / "run", num_devices=4)])
    ours, theirs = losses(run_dir), losses(tmp_path / "run")
    assert list(ours) == list(theirs) == list(range(1, 41))
    for step in range(1, 11):
        assert ours[step] == pytest.approx(theirs[step], rel=1e-5), step
    assert figures.keys() == alone.keys()
    assert figures["train/skipped"] == 0
    assert figures["eval/loss"] == pytest.approx(alone["eval/loss"], rel=1e-2)
    assert json.loads((run_dir / "config.json").read_text())["num_processes"] == 2


@pytest.mark.slow
def test_another_seed_on_one_process_ends_both(config_file, tmp_path):
    refused(start_pair(config_file, tmp_path / "run", more=((), ("--seed", "7"))), "seed is 0", "7 on process 1")
    assert not (tmp_path / "run").exists()


def test_what_one_process_refuses_ends_both(config_file, tmp_path):
    refused(start_pair(config_file, tmp_path / "run", more=((), ("--model.num-layer", "2"))), "process 1", "num_layers")


def test_a_directory_of_another_run_ends_both(pair_run, config_file):
    refused(start_pair(config_file, pair_run[0], "--seed", "5"), "another config", "seed")


@pytest.mark.slow
def test_a_finished_run_says_so_in_both(pair_run, config_file):
    run_dir, figures = pair_run
    assert succeed(start_pair(config_file, run_dir)) == figures


@pytest.mark.slow
def test_a_directory_in_use_ends_both(config_file, tmp_path):
    from jaxlm.io.run_dir import RunDir

    with RunDir(tmp_path / "run"):
        refused(start_pair(config_file, tmp_path / "run"), "is in use by process", str(os.getpid()))


@pytest.mark.slow
@pytest.mark.parametrize("sent", [(1,), (0, 1), (0,)])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both_at_one_step_and_the_run_goes_on(pair_run, config_file, tmp_path, sent, signum):
    run_dir = tmp_path / "run"
    processes = start_pair(config_file, run_dir)
    wait_for((run_dir / "checkpoints" / "10").exists, processes)
    for index in sent:
        processes[index].send_signal(signum)
    (code, out, err), (other_code, other_out, _) = finish(processes)
    assert code == other_code == 128 + signum, err
    stopped = json.loads(out)
    assert stopped["stopped_by"] == signum.name
    assert 10 < stopped["step"] < 40
    assert other_out == ""
    assert (run_dir / "checkpoints" / str(stopped["step"])).is_dir()
    succeed(start_pair(config_file, run_dir))
    assert_same_run(run_dir, pair_run[0])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(pair_run, config_file, tmp_path, victim):
    run_dir = tmp_path / "run"
    processes = start_pair(config_file, run_dir, JAXLM_HEARTBEAT_SECONDS="10")
    wait_for((run_dir / "checkpoints" / "10").exists, processes)
    processes[victim].kill()
    (code, out, _), _ = finish([processes[1 - victim], processes[victim]], timeout=END_SECONDS)
    assert code not in (0, 2)
    assert out == ""
    succeed(start_pair(config_file, run_dir))
    assert_same_run(run_dir, pair_run[0])


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(pair_run, config_file, tmp_path):
    whole_dir, _ = pair_run
    for name, command in (
        ("alone", lambda run_dir: [start(config_file, run_dir)]),
        ("pair", lambda run_dir: start_pair(config_file, run_dir)),
    ):
        # The second goes on from what the first, a single process on one device, has saved.
        run_dir = tmp_path / name
        shutil.copytree(whole_dir if name == "alone" else tmp_path / "alone", run_dir)
        (run_dir / "done.json").unlink()
        for step in (20, 30, 40) if name == "alone" else (30, 40):
            shutil.rmtree(run_dir / "checkpoints" / str(step))
        succeed(command(run_dir))
        ours, theirs = losses(run_dir), losses(whole_dir)
        assert list(ours) == list(range(1, 41))
        for step in range(11, 21):
            assert ours[step] == pytest.approx(theirs[step], rel=1e-4), (name, step)
        assert saved(run_dir)[1]["data"] == saved(whole_dir)[1]["data"]


ALONE = """
import sys
from jaxlm.io.agree import on_every_process, one_fate
from jaxlm.run.processes import start_processes
from jaxlm.io.agree import process_id

start_processes()
with one_fate():
    if process_id() == int(sys.argv[1]):
        raise OSError(28, "No space left on device") if sys.argv[2] == "full" else RuntimeError("the disk is on fire")
    on_every_process("what never comes", lambda: None)
"""


@pytest.mark.parametrize(
    ("failing", "how", "code", "words"),
    [
        (0, "burns", 1, "RuntimeError: the disk is on fire"),
        (1, "burns", 1, "RuntimeError: the disk is on fire"),
        (1, "full", 2, "error: no space left ([Errno 28] No space left on device): free space"),
    ],
)
def test_what_only_one_process_meets_ends_both_at_once(failing, how, code, words):
    address = f"localhost:{free_port()}"
    began = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE, str(failing), how],
            cwd=REPO,
            env=environment(1, **dict(zip(VARIABLES, (address, "2", str(index)), strict=True))),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]
    found = finish(processes)
    assert time.monotonic() - began < END_SECONDS
    assert (found[failing][0], found[1 - failing][0]) == (code, 1), found
    assert words in found[failing][2]
    assert ("Traceback" in found[failing][2]) == (how == "burns")
    assert f"error: process {failing} of 2 has left" in found[1 - failing][2]


def test_slurm_is_found(config_file, tmp_path):
    job = {
        "SLURM_JOB_ID": str(free_port()),  # jax makes the port of it
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    processes = [
        start(
            config_file,
            tmp_path / "run",
            "--dry-run",
            num_devices=2,
            **job,
            SLURM_PROCID=str(index),
            SLURM_LOCALID=str(index),
        )
        for index in range(2)
    ]
    plan = succeed(processes)
    assert plan["mesh"] == {"data": 4, "stage": 1, "fsdp": 1, "expert": 1, "context": 1, "model": 1}


@pytest.mark.parametrize("missing", VARIABLES)
def test_a_missing_variable_is_named(missing):
    given = {str(name): value for name, value in zip(VARIABLES, ("localhost:1234", "2", "0"), strict=True)}
    given[missing] = ""
    with pytest.raises(UserError, match=f"{missing} is not: set all three"):
        detect_processes(given)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("localhost", "2", "0"), "not host:port"),
        (("localhost:65536", "2", "0"), r"not host:port \(1 to 65535\)"),
        (("localhost:²", "2", "0"), "not host:port"),
        ((":1234", "2", "0"), "not host:port"),
        (("localhost:1", "two", "0"), "JAX_NUM_PROCESSES='two'"),
        (("localhost:1", "2", "¹"), "JAX_PROCESS_ID='¹'"),
        (("localhost:1", "2", "2"), r"JAX_PROCESS_ID=2 is not one of 0\.\.1"),
    ],
)
def test_odd_variables_are_refused(values, words):
    with pytest.raises(UserError, match=words):
        detect_processes(dict(zip(VARIABLES, values, strict=True)))


def test_one_process_is_no_launch():
    assert detect_processes({}) is None
    assert detect_processes(dict(zip(VARIABLES, ("localhost:1", "1", "0"), strict=True))) is None
    launch = detect_processes(dict(zip(VARIABLES, ("[::1]:80", "2", "1"), strict=True)))
    assert launch is not None
    assert launch.describe() == "process 1 of 2, coordinator [::1]:80 (environment)"


def test_the_command_names_a_missing_variable(config_file, tmp_path):
    refused([start(config_file, tmp_path / "run", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="0")], VARIABLES[0])


def test_a_process_that_meets_no_other_says_so(config_file, tmp_path):
    for index, word in ((0, "on all 2 hosts"), (1, "does not answer")):
        variables = dict(zip(VARIABLES, (f"localhost:{free_port()}", "2", str(index)), strict=True))
        alone = start(config_file, tmp_path / "run", JAXLM_CONNECT_SECONDS="2", **variables)
        refused([alone], word, "after 2 s", with_code=ALONE_CODE)


def test_a_port_in_use_is_refused(config_file, tmp_path):
    with contextlib.closing(socket.create_server(("", 0))) as server:
        address = f"localhost:{server.getsockname()[1]}"
        variables = dict(zip(VARIABLES, (address, "2", "0"), strict=True))
        refused([start(config_file, tmp_path / "run", **variables)], "is in use on this host")
