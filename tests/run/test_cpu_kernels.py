"""Building our kernels: without a compiler, or with one that fails, one line is said and XLA's loops serve."""

import functools
import os
import select
import subprocess

import jax
import pytest

from jaxlm.models.families import for_platform
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.run import cpu_kernels
from tests.run.commands import refused, start, write_config


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing built and nothing known. What the session knows comes back."""
    monkeypatch.setenv("JAXLM_CACHE_DIR", str(tmp_path))
    unknown = functools.cache(cpu_kernels._kernel_missing.__wrapped__)
    monkeypatch.setattr(cpu_kernels, "_kernel_missing", unknown)
    return tmp_path


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "no C++ compiler (no-such-compiler) is installed"), ("false", "'false', '--version'")],
)
def test_without_a_compiler_the_scan_serves(compiler, reason, fresh, monkeypatch, capsys):
    monkeypatch.setenv("CXX", compiler)
    config = RecurrentConfig(vocab_size=31)
    for _ in range(2):
        chosen = for_platform(config, "cpu", kernel_missing=cpu_kernels.kernel_missing)
        assert isinstance(chosen, RecurrentConfig)
        assert chosen.implementation == "scan"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("recurrent layers run as XLA's loops")
    assert reason in line


def test_what_is_built_is_kept_and_what_fails_leaves_nothing(fresh, tmp_path):
    try:
        cpu_kernels._compiler()
    except OSError as error:
        pytest.skip(str(error))
    good, broken = tmp_path / "good.cc", tmp_path / "broken.cc"
    good.write_text('extern "C" int answer() { return 42; }\n')
    broken.write_text("int f( { return 1; }\n")
    with pytest.raises(OSError, match=r"cannot build broken.cc: .*error"):
        cpu_kernels._load(broken)
    assert cpu_kernels._load(good).answer() == 42
    (built,) = (fresh / "kernels").iterdir()
    assert built.name.startswith("good-")
    before = built.stat().st_mtime_ns
    assert cpu_kernels._load(good).answer() == 42
    assert built.stat().st_mtime_ns == before


def test_asking_for_what_cannot_be_had_ends_the_command(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    fields = 'model=RecurrentConfig(model_dim=32, implementation="kernel"), data=DataConfig(seq_len=16), num_steps=2'
    refused([start(write_config(tmp_path, fields), tmp_path / "run")], "model.implementation=kernel", "no C++ compiler")


def test_the_kernel_is_for_the_cpu_platform_alone(fresh):
    chosen = for_platform(
        RecurrentConfig(vocab_size=31), "tpu", kernel_missing=lambda name: pytest.fail(f"asked for {name}")
    )
    assert isinstance(chosen, RecurrentConfig)
    assert chosen.implementation == "unrolled"
    assert jax.default_backend() == "cpu"


def test_a_compiler_that_takes_too_long_ends_with_all_it_started(fresh, monkeypatch, tmp_path):
    """c++ runs cc1plus: what holds the pipe open is a child of the compiler."""
    script, source, pipe = tmp_path / "slow", tmp_path / "slow.cc", tmp_path / "pipe"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\nsleep 30 > {pipe} 2>&1 &\nwait\n')
    script.chmod(0o755)
    source.touch()
    os.mkfifo(pipe)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setattr(cpu_kernels, "BUILD_SECONDS", 1)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            cpu_kernels._load(source)
        assert select.select([reading], [], [], 5)[0]
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)
