"""Rates by width and the coordinate check at a tiny size, through the real commands."""

import json

import pytest

from jaxlm.io.coordinates_report import write_coordinates_report
from jaxlm.run import coordinates, transfer
from jaxlm.run.cli import run_main
from jaxlm.run.config import PretrainConfig
from jaxlm.run.transfer_config import TransferConfig

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
    long = ("--run.data.seq-len", "1000000", "--run.model.max-seq-len", "1000000")
    assert run_main(transfer.main, [*argv, *long]) == 2
    assert "less than one sequence" in capsys.readouterr().err  # and the mended command may have the directory
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


def test_a_width_that_diverged_at_every_rate_has_no_best_one(config_file, tmp_path, capsys):
    run_dir = tmp_path / "grid"
    run_dir.mkdir()
    argv = [str(config_file), "--run-dir", str(run_dir)]

    def results(**losses):
        kept = {
            transfer._name(name, width, 2.0**power, 0): losses.get(f"{name}_{width}", 3.0 + power / 10)
            for name in ("standard", "mup")
            for width in (16, 128)
            for power in (-8, -7)
        }
        (run_dir / transfer.LOSSES).write_text(json.dumps(kept))
        assert run_main(transfer.main, argv) == 0
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1]), err, (run_dir / "report.html").read_text()

    found, err, page = results(standard_128=None)
    assert found["best_lr"] == {"standard": {"16": 2.0**-8, "128": None}, "mup": {"16": 2.0**-8, "128": 2.0**-8}}
    assert found["drift_steps"] == {"standard": 0, "mup": 0}
    assert found["at_edge"] == {"standard": ["16"], "mup": ["16", "128"]}
    assert "standard width 128 has no best rate: every rate diverged" in err
    assert "1 of 2 widths diverged at every rate" in page
    assert page.count("data:image/svg+xml") == 2
    found, _, page = results(standard_16=None, standard_128=None)
    assert found["best_lr"]["standard"] == {"16": None, "128": None}
    assert found["drift_steps"] == {"standard": None, "mup": 0}
    assert page.count("data:image/svg+xml") == 1


def test_batches_of_a_grid_do_not_grow():
    with pytest.raises(ValueError, match=r"run\.batch_ramp="):
        TransferConfig(run=PretrainConfig(batch_ramp=((2, 32),)))


def test_a_check_of_coordinates_is_refused_in_one_line_and_may_be_done_again_otherwise(config_file, tmp_path, capsys):
    argv = [str(config_file), "--run-dir", str(tmp_path / "check"), "--parametrisations", "mup"]
    for words, said in (
        (["--steps", "0"], "--steps 0 must be at least 1"),
        (["--lr", "0"], "--lr 0.0 a number above 0"),
        (["--widths", "16"], "--widths 16 has no slope"),
        (["--steps", "1000", "--run.data.num-epochs", "1"], "fewer than the 1000 steps"),
        (["--run.data.seq-len", "1000000", "--run.model.max-seq-len", "1000000"], "less than one sequence"),
    ):
        assert run_main(coordinates.main, [*argv, *words]) == 2
        err = capsys.readouterr().err
        assert said in err.splitlines()[-1]
        assert "Traceback" not in err
    for seed in ("0", "1"):
        assert run_main(coordinates.main, [*argv, "--widths", "16", "32", "--steps", "1", "--seeds", seed]) == 0
    assert (tmp_path / "check_coordinates" / "config.json").exists()


def test_a_width_that_diverges_is_named_and_has_no_part_in_the_slopes(tmp_path):
    grown, broken = [1.0, 2.0, 4.0], [1.0, 2.0, float("nan")]
    sizes = {
        "start": {"MLP": grown, "stream": grown},
        "change": {"MLP": grown, "stream": broken},
        "loss": [1.0, 1.0, float("inf")],
    }
    found = coordinates._verdict((16, 32, 64), sizes)
    assert found["slopes"] == pytest.approx({"MLP": 1.0, "stream": 1.0})
    assert found["diverged"] == [64]
    flat = {"start": {"MLP": [1.0, 1.0, 1.0]}, "change": {"MLP": [1.0, 1.0, float("nan")]}, "loss": [1.0, 1.0, 1.0]}
    assert not coordinates._verdict((16, 32, 64), flat)["flat"]
    results = {"widths": [16, 32, 64], "steps": 1, "lr": 1.0, "by": {"mup": found}, "sizes": {"mup": sizes}}
    write_coordinates_report(tmp_path / "report.html", "title", results)
    assert "1, 2, diverged" in (tmp_path / "report.html").read_text()


def test_a_rate_at_which_all_widths_diverge_is_refused(config_file, tmp_path, capsys):
    argv = [str(config_file), "--run-dir", str(tmp_path / "check"), "--parametrisations", "standard"]
    assert run_main(coordinates.main, [*argv, "--steps", "4", "--lr", "3e38"]) == 2
    assert "standard: 0 widths did not diverge at --lr 3e+38" in capsys.readouterr().err


def test_bad_grids_are_refused_at_once(config_file, capsys):
    for words, said in (
        (["--widths", "20"], "num_heads"),
        (["--mup-log2-lrs", "3", "1"], "mup_log2_lrs"),
        (["--average-steps", "9"], "average_steps"),
        (["--seeds", "0", "-1"], "seed=-1 must lie in"),
        (["--seeds", "0", "0"], "must be different"),
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
