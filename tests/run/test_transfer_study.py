"""Rates by width and the coordinate check at a tiny size, through the real commands."""

import json

import pytest

from jaxlm.run import coordinates, transfer
from jaxlm.run.cli import run_main

CONFIG = '''
"""Tiny."""
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.run.transfer_config import TransferConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return TransferConfig(
        run=PretrainConfig(
            corpus=CorpusConfig(source="text", paths=("TEXT",), document="line"),
            tokenizer=TokenizerConfig(kind="byte"),
            data=DataConfig(seq_len=16, packing="concat"),
            model=DecoderConfig(max_seq_len=16, num_layers=1, model_dim=16, head_dim=8, num_heads=2, scan_layers=False),
            optimizer=OptimizerConfig(schedule="constant"),
            num_steps=6,
            global_batch_size=8,
            sample=SampleConfig(prompts=()),
        ),
        widths=(16, 128),
        base_dim=16,
        seeds=(0,),
        standard_log2_lrs=(-8, -7),
        mup_log2_lrs=(-8, -7),
        average_steps=2,
    )
'''


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    text = folder / "text.txt"
    text.write_text("\n".join(f"{i} and {i + 1} are neighbours of {i + 2}" for i in range(400)) + "\n")
    path = folder / "tiny.py"
    path.write_text(CONFIG.replace("TEXT", str(text)))
    return path


def test_a_grid_is_trained_once_and_may_grow(config_file, tmp_path, capsys):
    argv = [str(config_file), "--run-dir", str(tmp_path / "grid"), "--widths", "16"]
    assert run_main(transfer.main, argv) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["num_runs"] == 4
    assert set(first["best_lr"]) == {"standard", "mup"}
    losses = json.loads((tmp_path / "grid" / transfer.LOSSES).read_text())
    assert run_main(transfer.main, [*argv, "--mup-log2-lrs", "-8", "-6"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["num_runs"] == 5
    assert err.count(" seed 0: loss") == 1
    again = json.loads((tmp_path / "grid" / transfer.LOSSES).read_text())
    assert losses.items() <= again.items()
    assert "muP" in (tmp_path / "grid" / "report.html").read_text()


def test_bad_grids_are_refused_at_once(config_file, capsys):
    for words, said in (
        (["--widths", "20"], "num_heads"),
        (["--mup-log2-lrs", "3", "1"], "mup_log2_lrs"),
        (["--average-steps", "9"], "average_steps"),
        (["--run.model.base-dim", "16"], "base_dim"),
    ):
        assert run_main(transfer.main, [str(config_file), *words]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_coordinates_keep_their_size_under_mup_and_grow_without(config_file, tmp_path, capsys):
    argv = [str(config_file), "--run-dir", str(tmp_path / "check"), "--steps", "10", "--lr", "0.008"]
    assert run_main(coordinates.main, argv) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    slopes = {name: found[name]["slopes"] for name in ("standard", "mup")}
    assert slopes["standard"]["MLP"] > 0.8
    assert slopes["standard"]["stream"] > 0.5
    assert max(slopes["mup"].values()) < 0.2
    assert abs(slopes["mup"]["MLP"]) < 0.25
    written = {path.name for path in (tmp_path / "check_coordinates").iterdir()}
    assert {"coordinates_mup.svg", "coordinates_standard.svg", "coordinates.json", "report.html"} <= written
