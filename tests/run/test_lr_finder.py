"""The learning-rate finder through its command, on a tiny model."""

import json

from jaxlm.run import lr_finder
from jaxlm.run.cli import run_main
from tests.run.commands import write_config

FIELDS = """
        data=DataConfig(seq_len=16, packing="concat"),
        model=DecoderConfig(max_seq_len=32, num_layers=1, model_dim=16, num_heads=2),
        optimizer=OptimizerConfig(peak_lr=0.01, warmup_steps=3),
        num_steps=6, global_batch_size=8,
"""


def test_rates_are_found_and_drawn_and_bad_ones_refused(tmp_path, capsys):
    config = str(write_config(tmp_path, FIELDS))
    long = ("--data.seq-len", "1000000", "--model.max-seq-len", "1000000")
    assert run_main(lr_finder.main, [config, "--run-dir", str(tmp_path / "run"), *long]) == 2
    assert "less than one sequence" in capsys.readouterr().err  # and the mended command may have the directory
    argv = [config, "--run-dir", str(tmp_path / "run"), "--lowest-lr", "1e-5", "--highest-lr", "10", "--steps", "60"]
    assert run_main(lr_finder.main, argv) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 1e-4 < figures["suggested_lr"] < 1.0
    assert figures["suggested_lr"] <= figures["steepest_lr"] <= figures["lowest_loss_lr"]
    assert "lowest_lr" not in figures  # the name of the option for the first rate
    assert "suggested peak rate" in (tmp_path / "run_lr_finder" / "report.html").read_text()
    curve = json.loads((tmp_path / "run_lr_finder" / lr_finder.RESULTS).read_text())
    assert len(curve["rates"]) == len(curve["losses"]) == figures["steps"]
    for highest in ("0.1", "inf"):
        assert run_main(lr_finder.main, [config, "--lowest-lr", "1", "--highest-lr", highest]) == 2
        assert "--lowest-lr" in capsys.readouterr().err
