"""Looks at a run's health, through the real command: the run is the same with and without, on a mesh too."""

import json

import pytest

from tests.run.commands import losses, start, succeed, write_config

FIELDS = """
        data=DataConfig(seq_len=16, packing="concat"),
        model=DecoderConfig(max_seq_len=32, num_layers=2, model_dim=16, num_heads=2),
        optimizer=OptimizerConfig(peak_lr=0.01),
        num_steps=6, global_batch_size=8, grad_accum_steps=2, log_every=1,
"""


@pytest.mark.slow
def test_looks_are_logged_and_drawn_and_change_nothing(tmp_path):
    config = write_config(tmp_path, FIELDS)
    on_mesh = ("--mesh.fsdp", "2", "--mesh.data", "2", "--health-every", "2")
    commands = {
        "plain": start(config, tmp_path / "plain"),
        "looked": start(config, tmp_path / "looked", "--health-every", "2"),
        "mesh": start(config, tmp_path / "mesh", *on_mesh, num_devices=4),
    }
    for process in commands.values():
        succeed([process])
    assert losses(tmp_path / "plain") == losses(tmp_path / "looked")
    found = {}
    for name in ("looked", "mesh"):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        looks = [line for line in lines if "health/update_ratio/layer_1" in line]
        assert [line["step"] for line in looks] == [2, 4, 6]
        found[name] = looks[0]
        assert "residual stream" in (tmp_path / name / "report.html").read_text()
    for key in ("health/update_ratio/layer_0", "health/stream_rms/layer_1", "health/grad_rms/layer_1"):
        assert abs(found["looked"][key] - found["mesh"][key]) <= 0.02 * found["looked"][key], key
