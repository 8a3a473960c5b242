"""Real ``jaxlm pretrain`` commands for tests: one process or two, their ends, and what they left."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlm.io.checkpoints import Checkpointer
from jaxlm.run import cli
from jaxlm.run.processes import VARIABLES

REPO = Path(__file__).parents[2]
END_SECONDS = 60
"""How soon the second process must have ended after the first."""

CONFIG = '''
"""A tiny run for the tests."""
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return PretrainConfig(
        corpus=CorpusConfig(source="text", paths=("TEXT",), document="paragraph"),
        tokenizer=TokenizerConfig(kind="byte"),
        sample=SampleConfig(prompts=("The ",), max_new_tokens=8, num_samples=1),
        FIELDS
    )
'''


def write_config(directory, fields):
    """A config file over real text (jaxlm's own), with these further fields of PretrainConfig."""
    text = "\n\n".join(path.read_text() for path in sorted((REPO / "jaxlm" / "core").glob("*.py")))
    (directory / "text.txt").write_text(text)
    path = directory / "tiny.py"
    path.write_text(CONFIG.replace("TEXT", str(directory / "text.txt")).replace("FIELDS", fields))
    return path


def environment(num_devices, **variables):
    """The caches' and the tests' own variables, and those given; nothing of an outer cluster."""
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES and not k.startswith("SLURM_")}
    # The last word on a flag counts.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={num_devices}"
    return kept | {"XLA_FLAGS": flags.strip()} | variables


def start(config, run_dir, *argv, num_devices=1, **variables):
    """``jaxlm pretrain`` as a process of its own."""
    return launch("pretrain", str(config), *argv, "--run-dir", str(run_dir), num_devices=num_devices, **variables)


def launch(*argv, num_devices=1, **variables):
    """Any ``jaxlm`` command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "jaxlm", *argv],
        cwd=REPO,
        env=environment(num_devices, **variables),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def free_port():
    """A port of this host that nobody uses now, and that the system gives to no outgoing connection meanwhile: those
    come from 32768 on."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 50):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise RuntimeError("none of 50 ports is free")


def start_pair(config, run_dir, *argv, more=((), ()), num_devices=2, **variables):
    """The same command twice, as process 0 and 1; ``more`` are arguments of one alone."""
    address = f"localhost:{free_port()}"
    return [
        start(
            config,
            run_dir,
            *argv,
            *more[index],
            num_devices=num_devices,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
            **variables,
        )
        for index in range(2)
    ]


def finish(processes, timeout=300):
    """(exit code, stdout, stderr) of each. None is left running."""
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=timeout)
            found.append((process.returncode, out, err))
            timeout = END_SECONDS
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                print("killed:", *process.communicate())
    return found


def succeed(processes):
    """The figures that the first prints; the others print nothing."""
    found = finish(processes)
    for code, _, err in found:
        assert code == 0, err
    assert [out for _, out, _ in found[1:]] == [""] * (len(found) - 1)
    (line,) = found[0][1].splitlines()
    return json.loads(line)


def refused(processes, *words, with_code=2):
    """Exit code 2 and one clear line in all."""
    for code, out, err in finish(processes):
        assert code == with_code, err
        assert out == ""
        assert "Traceback" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        for word in words:
            assert word in line, line


def refused_here(capsys, argv, *words):
    """The same of a ``jaxlm`` command in this process; all lines that it wrote."""
    capsys.readouterr()
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    for word in words:
        assert word in line, line
    return err.splitlines()


def wait_for(condition, processes, seconds=240):
    """Until ``condition()`` holds, while all processes run."""
    end = time.monotonic() + seconds
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.005)


def losses(run_dir):
    """Training loss by step."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


def saved(run_dir):
    """Every array of the last checkpoint by path, and its meta."""
    with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = checkpointer.shapes()
        asked = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)
        state, meta = checkpointer.restore(asked)
    named = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in named}, meta


def assert_same_run(run_dir, whole_dir):
    """Parameters, average, optimiser state and place in the data, bit for bit."""
    (ours, meta), (theirs, whole_meta) = saved(run_dir), saved(whole_dir)
    assert meta == whole_meta
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert ours[name].tobytes() == value.tobytes(), name


@contextlib.contextmanager
def small_disk(path, size):
    """A real file system of this size; skips where none may be mounted."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting a small file system is not permitted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)
