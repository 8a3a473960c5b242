"""Building our kernels: without a compiler, or with one that fails, one line is said and XLA's loops serve."""

import jax
import pytest

from jaxlm.models.families import for_platform
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.run import cpu_kernels
from tests.run.commands import refused, start, write_config


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing built and nothing known."""
    monkeypatch.setenv("JAXLM_CACHE_DIR", str(tmp_path))
    cpu_kernels._recurrent_kernel_missing.cache_clear()
    yield tmp_path
    cpu_kernels._recurrent_kernel_missing.cache_clear()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "no C++ compiler (no-such-compiler) is installed"), ("false", "'false', '--version'")],
)
def test_without_a_compiler_the_scan_serves(compiler, reason, fresh, monkeypatch, capsys):
    monkeypatch.setenv("CXX", compiler)
    config = RecurrentConfig(vocab_size=31)
    for _ in range(2):
        chosen = for_platform(config, "cpu", recurrent_kernel_missing=cpu_kernels.recurrent_kernel_missing)
        assert chosen.implementation == "scan"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("recurrent layers run as XLA's loops")
    assert reason in line


def test_a_source_that_does_not_compile_leaves_nothing(fresh, tmp_path):
    if cpu_kernels.recurrent_kernel_missing():
        pytest.skip("there is no C++ compiler")
    source = tmp_path / "broken.cc"
    source.write_text("int f( { return 1; }\n")
    with pytest.raises(OSError, match=r"cannot build broken.cc: .*error"):
        cpu_kernels._load(source)
    (built,) = (fresh / "kernels").iterdir()  # the kernel; of the broken one nothing
    assert built.name.startswith("recurrent-")
    before = built.stat().st_mtime_ns
    cpu_kernels._recurrent_kernel_missing.cache_clear()
    assert cpu_kernels.recurrent_kernel_missing() is None
    assert built.stat().st_mtime_ns == before  # taken from the cache


def test_asking_for_what_cannot_be_had_ends_the_command(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    fields = 'model=RecurrentConfig(model_dim=32, implementation="kernel"), data=DataConfig(seq_len=16), num_steps=2'
    refused([start(write_config(tmp_path, fields), tmp_path / "run")], "model.implementation=kernel", "no C++ compiler")


def test_the_kernel_is_for_the_cpu_platform_alone(fresh):
    chosen = for_platform(RecurrentConfig(vocab_size=31), "tpu", recurrent_kernel_missing=lambda: pytest.fail("asked"))
    assert chosen.implementation == "scan"
    assert jax.default_backend() == "cpu"
