"""Real runs with faults injected from outside: they go back, leave the bad batches out, and a kill changes no bit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxlm.run.cli import run_main
from tests.run.commands import (
    REPO,
    assert_same_run,
    environment,
    finish,
    free_port,
    saved,
    succeed,
    wait_for,
    write_config,
)
from tools import spikes

FIELDS = """
        data=DataConfig(seq_len=32),
        model=DecoderConfig(max_seq_len=32, num_layers=1, model_dim=32, num_heads=2, dropout=0.1, scan_layers=False),
        optimizer=OptimizerConfig(name="adamw", peak_lr=3e-3, warmup_steps=5),
        checkpoint=CheckpointConfig(save_every=20, keep_last=3),
        spikes=SpikeConfig(window=32, skip_ahead=4, rate_factor=0.1, adjust_steps=10),
        num_steps=120, global_batch_size=8, ema_decay=0.9, log_every=5,
"""
FAULTS = {"nan": [53, 54, 55, 56], "rate_steps": [90, 91], "rate_factor": 3000.0}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = write_config(tmp_path_factory.mktemp("config"), FIELDS)
    # Whether a high rate makes a spike hangs on the text, and jaxlm's own changes: this one is stored.
    shutil.copy(Path(__file__).parent / "trajectory" / "text.txt", path.parent / "text.txt")
    path.write_text(
        path.read_text().replace("from jaxlm.text", "from jaxlm.train.spikes import SpikeConfig\nfrom jaxlm.text")
    )
    return path


def start(config, run_dir, faults, **variables):
    args = [sys.executable, "-m", "tools.spikes", "run", str(config), "--inject", json.dumps(faults)]
    return subprocess.Popen(
        [*args, "--run-dir", str(run_dir)],
        cwd=REPO,
        # Fast code, as users have it: the course of a run that spikes hangs on how it rounds.
        env=environment(1, XLA_FLAGS="--xla_force_host_platform_device_count=1", **variables),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "missing value for argument '--inject'"),
        (("{junk}",), "is no JSON"),
        (("[1]",), "is no JSON object"),
        (('{"junks": [1]}',), "unknown field 'junks'; did you mean 'junk'?"),
        (('{"junk": 1}',), "--inject.junk=1 is not a list"),
    ],
)
def test_faults_that_cannot_be_read_are_one_line(config_file, tmp_path, capsys, given, message):
    argv = ["run", str(config_file), "--run-dir", str(tmp_path / "run"), "--inject", *given]
    assert run_main(spikes.main, argv) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_help_of_runs_with_faults(capsys):
    for argv, words in ((["--help"], "{run,table}"), (["run", "--help"], "--inject")):
        assert run_main(spikes.main, argv) == 0
        assert words in capsys.readouterr().out


def incidents(run_dir):
    path = run_dir / "incidents.json"
    return json.loads(path.read_text()) if path.exists() else []


def went_back(run_dir):
    """(onset, step gone back to) of each rollback."""
    return [(one["onset"], one["response"]["rolled_back_to"]) for one in incidents(run_dir) if one.get("response")]


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory):
    """The run with faults, undisturbed."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    ((code, out, err),) = finish([start(config_file, run_dir, FAULTS)])
    assert code == 0, err
    return run_dir, json.loads(out.splitlines()[-1]), err


@pytest.mark.slow
def test_a_run_goes_back_and_leaves_the_bad_batches_out(whole):
    run_dir, figures, err = whole
    assert went_back(run_dir)[0] == (54, 40)
    assert len(went_back(run_dir)) >= 2
    _, meta = saved(run_dir)
    assert {53, 54, 55, 56} <= set(meta["data"]["skipped"])
    assert meta["incidents"] == incidents(run_dir)
    assert "back to step 40" in err
    assert figures["step"] == 120
    assert figures["perf/seconds/rollback"] > 0
    steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.slow
@pytest.mark.parametrize("rollbacks", [1, 2])
def test_a_kill_right_after_a_rollback_changes_no_bit(whole, config_file, tmp_path, rollbacks):
    run_dir = tmp_path / "run"
    process = start(config_file, run_dir, FAULTS)
    wait_for(lambda: len(went_back(run_dir)) >= rollbacks, [process])
    process.kill()
    finish([process])
    ((code, _, err),) = finish([start(config_file, run_dir, FAULTS)])
    assert code == 0, err
    assert_same_run(run_dir, whole[0])
    assert incidents(run_dir) == incidents(whole[0])


@pytest.mark.slow
def test_two_processes_go_back_alike(config_file, whole, tmp_path):
    address = f"localhost:{free_port()}"
    variables = [
        {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index)}
        for index in range(2)
    ]
    run_dir = tmp_path / "run"
    succeed([start(config_file, run_dir, FAULTS, **one) for one in variables])
    assert went_back(run_dir)[:1] == went_back(whole[0])[:1]
    _, meta = saved(run_dir)
    assert meta["incidents"] == incidents(run_dir)
