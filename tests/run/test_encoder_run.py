"""An encoder through the real command: masked pretraining, stopped and resumed bit for bit, and opened."""

import signal

import jaxlm
from tests.run.commands import assert_same_run, finish, refused, start, succeed, wait_for, write_config

FIELDS = """
        data=DataConfig(seq_len=32),
        masking=MaskingConfig(whole_words=True),
        model=EncoderConfig(max_seq_len=32, num_layers=1, model_dim=32, num_heads=2, dropout=0.1),
        optimizer=OptimizerConfig(name="adamw", peak_lr=0.003, warmup_steps=2),
        checkpoint=CheckpointConfig(save_every=10),
        num_steps=40, global_batch_size=8, grad_accum_steps=2, log_every=10, eval_batch_size=8,
"""


def config_file(directory):
    path = write_config(directory, FIELDS)
    imports = "from jaxlm.data.masking import MaskingConfig\nfrom jaxlm.models.encoder_config import EncoderConfig\n"
    path.write_text(path.read_text().replace("from jaxlm.data.batches", f"{imports}from jaxlm.data.batches", 1))
    return path


def test_masked_pretraining_from_the_command_to_the_handle(tmp_path):
    config = config_file(tmp_path)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    figures = succeed([start(config, whole)])
    assert figures["eval/bits_per_byte"] is None
    assert 0 < figures["eval/accuracy"] < 1
    assert "eval/xz_bits_per_byte" not in figures
    assert not (whole / "samples.jsonl").read_text()

    processes = [start(config, halves)]
    wait_for((halves / "checkpoints" / "10").exists, processes)
    processes[0].send_signal(signal.SIGTERM)
    assert finish(processes)[0][0] == 128 + signal.SIGTERM
    succeed([start(config, halves)])
    assert_same_run(halves, whole)

    lm = jaxlm.load(whole)
    assert lm.family == "encoder"
    assert len(lm.fill("def <mask>ey")[0]) == 5

    refused([start(config, tmp_path / "char", "--tokenizer.kind", "char")], "char tokenizer has no <mask>")
