"""An encoder through the command: masked pretraining, cut off and resumed bit for bit, and opened."""

import json
import shutil

import pytest

import jaxlm
from jaxlm.run.cli import main
from tests.run.commands import assert_same_run, write_config

FIELDS = """
        data=DataConfig(seq_len=32),
        masking=MaskingConfig(whole_words=True),
        model=EncoderConfig(max_seq_len=32, num_layers=1, model_dim=32, num_heads=2, dropout=0.1),
        optimizer=OptimizerConfig(name="adamw", peak_lr=0.003, warmup_steps=2),
        checkpoint=CheckpointConfig(save_every=10),
        num_steps=30, global_batch_size=16, grad_accum_steps=2, log_every=10, eval_batch_size=8,
"""


def config_file(directory):
    path = write_config(directory, FIELDS)
    imports = "from jaxlm.data.masking import MaskingConfig\nfrom jaxlm.models.encoder_config import EncoderConfig\n"
    path.write_text(path.read_text().replace("from jaxlm.data.batches", f"{imports}from jaxlm.data.batches", 1))
    return path


@pytest.mark.slow
def test_masked_pretraining_from_the_command_to_the_handle(tmp_path, capsys):
    config = config_file(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["pretrain", str(config), "--run-dir", str(whole)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["eval/bits_per_byte"] is None
    assert 0 < figures["eval/accuracy"] < 1
    assert "eval/xz_bits_per_byte" not in figures
    assert not (whole / "samples.jsonl").read_text()

    # What a run killed after step 10 leaves.
    shutil.copytree(whole, killed)
    (killed / "done.json").unlink()
    for step in (20, 30):
        shutil.rmtree(killed / "checkpoints" / str(step))
    assert main(["pretrain", str(config), "--run-dir", str(killed)]) == 0
    out, err = capsys.readouterr()
    assert "resuming from step 10" in err
    assert_same_run(killed, whole)
    assert json.loads(out)["eval/loss"] == figures["eval/loss"]  # the same masks

    lm = jaxlm.load(whole)
    assert lm.family == "encoder"
    assert len(lm.fill("def <mask>ey")[0]) == 5

    argv = ["--tokenizer.kind", "char", "--data.no-add-bos", "--data.no-add-eos", "--run-dir", str(tmp_path / "char")]
    assert main(["pretrain", str(config), *argv]) == 2
    assert "char tokenizer has no <mask>" in capsys.readouterr().err
    assert not (tmp_path / "char" / "config.json").exists()

    # So low a rate hides nothing of what is held out: said before training, not divided by at its end.
    assert main(["pretrain", str(config), "--masking.rate", "1e-9", "--run-dir", str(tmp_path / "none")]) == 2
    assert "masking.rate=1e-09 hides no token" in capsys.readouterr().err

    assert main(["inspect", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "<mask>" in shown
    assert "masked targets" in shown
