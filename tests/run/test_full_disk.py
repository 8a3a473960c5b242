"""A disk that fills while a run saves: one clear line, no committed step lost, and the same command goes on."""

import shutil

import pytest

from jaxlm.io.checkpoints import Checkpointer
from tests.run.commands import assert_same_run, finish, small_disk, start, succeed, write_config

FIELDS = """
        data=DataConfig(seq_len=32),
        model=DecoderConfig(max_seq_len=32, num_layers=1, model_dim=64, num_heads=2, scan_layers=False),
        optimizer=OptimizerConfig(name="adamw", peak_lr=0.003),
        checkpoint=CheckpointConfig(save_every=5, keep_last=2),
        num_steps=40, global_batch_size=8, log_every=5,
"""


@pytest.fixture
def mount_command():
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")


@pytest.mark.slow
def test_a_full_disk_loses_no_committed_step(mount_command, tmp_path):
    config = write_config(tmp_path, FIELDS)
    succeed([start(config, tmp_path / "whole")])
    with Checkpointer(tmp_path / "whole" / "checkpoints", read_only=True) as checkpointer:
        step = checkpointer.latest_step()
    size = sum(path.stat().st_size for path in (tmp_path / "whole" / "checkpoints" / str(step)).rglob("*"))
    with small_disk(tmp_path / "disk", 16 * size) as disk:
        run_dir, ballast = disk / "run", disk / "ballast"
        # Room for the run's small files and two saves and a half: the third does not fit beside the others.
        ballast.write_bytes(bytes(16 * size - int(2.6 * size) - 2**17))
        ((code, out, err),) = finish([start(config, run_dir)])
        assert code == 2, err
        assert out == ""
        assert "Traceback" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert "no space left" in line
        assert "free space" in line
        with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
            kept = checkpointer.steps()
            assert kept
            assert checkpointer.newest_intact() == kept[-1]
        ballast.unlink()
        succeed([start(config, run_dir)])
        assert_same_run(run_dir, tmp_path / "whole")
