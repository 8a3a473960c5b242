"""A run whose batches grow: real commands, one of them killed in the middle of the ramp."""

import json

import pytest

from tests.run.commands import assert_same_run, finish, losses, start, succeed, wait_for, write_config

FIELDS = """
        data=DataConfig(seq_len=32),
        model=DecoderConfig(max_seq_len=32, num_layers=1, model_dim=32, num_heads=2, dropout=0.1, scan_layers=False),
        checkpoint=CheckpointConfig(save_every=4),
        num_steps=16, global_batch_size=8, grad_accum_steps=2, batch_ramp=((8, 16),), log_every=1,
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"), FIELDS)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_the_ramp_changes_no_bit(config_file, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    figures = succeed([start(config_file, whole)])
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    sizes = [line["train/batch_size"] for line in lines if "train/batch_size" in line]
    assert sizes == [8] * 8 + [16] * 8
    assert figures["perf/tokens_per_second"] > 0
    process = start(config_file, killed)
    wait_for(lambda: (killed / "metrics.jsonl").exists() and max(losses(killed), default=0) >= 10, [process])
    process.kill()
    finish([process])
    succeed([start(config_file, killed)])
    assert_same_run(killed, whole)
    assert losses(killed) == losses(whole)


def test_a_size_that_is_no_multiple_of_the_microbatch_is_refused(config_file, tmp_path):
    ((code, _, err),) = finish([start(config_file, tmp_path / "run", "--batch-ramp", "8", "18")])
    assert code == 2
    assert "batch_ramp gives 18 rows from batch 8 on, no multiple of the microbatch of 4 rows" in err
