"""libtpu, installed as a compiler, does not disturb a machine without TPUs."""

import os
import subprocess
import sys

import pytest

from jaxlm.run.libtpu import LIBTPU_ALONE, has_libtpu, has_tpu

ASK = "from jaxlm.run.cli import run_main; import jax; run_main(lambda _: print(jax.default_backend()) or 0)"


@pytest.mark.skipif(not has_libtpu() or has_tpu(), reason="for a machine with libtpu and without a TPU")
def test_a_command_says_nothing_of_the_tpu_that_is_not_there():
    unset = {"JAX_PLATFORMS", "XLA_FLAGS", "TPU_LIBRARY_PATH", *LIBTPU_ALONE}
    env = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in ("cpu", "gpu")
    assert "TPU" not in done.stderr


def test_a_tpu_is_told_by_its_maker(tmp_path):
    assert not has_tpu(tmp_path)
    for name, maker in (("0000:00:01.0", "0x8086\n"), ("0000:00:02.0", "0x1ae0\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(maker)
        assert has_tpu(tmp_path) == ("1ae0" in maker)
