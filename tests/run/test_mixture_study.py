"""A mixture study at a tiny size, through the real command: a run a mixture, resumed, one table, one report."""

import json
import math
import signal
import subprocess
import sys
from typing import Any

import pytest

import jaxlm
from jaxlm.run import mixture
from jaxlm.run.cli import run_main
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.mixture_config import CandidateConfig, DomainConfig, MixtureStudyConfig
from jaxlm.run.mixture_data import read_domains, tokenizer_sample
from tests.run.commands import REPO, environment

CONFIG = '''
"""Tiny."""
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.generations_config import TrainedConfig
from jaxlm.run.mixture_config import DomainConfig, MixtureStudyConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return MixtureStudyConfig(
        domains=tuple(
            DomainConfig(name, CorpusConfig(source="text", paths=(f"FOLDER/{name}.txt",), document="line"))
            for name in ("letters", "digits")
        ),
        num_candidates=3,
        repeats=1,
        tokenizer=TokenizerConfig(kind="byte"),
        proxy=TrainedConfig(
            DecoderConfig(max_seq_len=32, num_layers=1, model_dim=16, num_heads=2),
            DataConfig(seq_len=32),
            OptimizerConfig(peak_lr=0.02, schedule="constant", warmup_steps=0),
            num_steps=30,
            global_batch_size=8,
        ),
        held_out_bytes=400,
    )
'''


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(config file, run directory, what the command wrote last)."""
    folder = tmp_path_factory.mktemp("study")
    letters = [f"{a}{b} and {b}{a} are letters of {a}{a}{b}" for a in "abcdefghij" for b in "klmnopqrstuvwxyz"]
    digits = [f"{i}+{i}={2 * i}; {i}-1={i - 1}; {i}*{i}={i * i}" for i in range(100, 260)]
    for name, lines in (("letters", letters), ("digits", digits)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    config = folder / "tiny.py"
    config.write_text(CONFIG.replace("FOLDER", str(folder)))
    args = [sys.executable, "-m", "experiments.mixture", str(config), "--run-dir", str(folder / "run")]
    done = subprocess.run(args, cwd=REPO, env=environment(1), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return config, folder / "run", json.loads(done.stdout.splitlines()[-1])


def test_a_row_for_each_mixture_and_one_for_the_best(study):
    _, run_dir, results = study
    assert results == json.loads((run_dir / "mixture.json").read_text())
    rows = results["rows"]
    names = ["uniform", "mostly-letters", "mostly-digits", "again-1", "predicted-1", "predicted-2"]
    assert list(rows) == names
    for row in rows.values():
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert row["mean"] == pytest.approx(sum(row["bits_per_byte"].values()) / 2)
    # More of a domain is a lower loss on it.
    for name in ("letters", "digits"):
        other = {"letters": "digits", "digits": "letters"}[name]
        assert rows[f"mostly-{name}"]["bits_per_byte"][name] < rows[f"mostly-{other}"]["bits_per_byte"][name]
        assert rows[f"mostly-{name}"]["shares"][name] == pytest.approx(0.875, abs=0.1)
    assert (rows["uniform"]["shares"], rows["uniform"]["seed"]) == (rows["again-1"]["shares"], 0)
    assert results["noise"] > 0
    assert results["law"]["kind"] in results["law"]["leave_one_out"]
    assert rows["predicted-2"]["predicted"].keys() == {"letters", "digits"}
    assert results["best"]["measured_mean"] == rows["predicted-2"]["mean"]
    page = (run_dir / "report.html").read_text()
    assert "error on left-out runs" in page
    assert "data:image/svg+xml" in page


def test_all_runs_share_one_tokenizer_and_are_scored_alike(study):
    _, run_dir, results = study
    lm = jaxlm.load(run_dir / "mostly-digits")
    assert lm.tokenizer.fingerprint == jaxlm.load(run_dir / "uniform").tokenizer.fingerprint
    held_out = [json.loads(line)["text"] for line in (run_dir / "held_out.jsonl").read_text().splitlines()]
    digits = [text for text in held_out if text[0].isdigit()]
    scores = lm.score(digits)
    bits = sum(score.nats for score in scores) / sum(score.num_bytes for score in scores) / math.log(2)
    assert bits == pytest.approx(results["rows"]["mostly-digits"]["bits_per_byte"]["digits"], rel=1e-5)
    for name in results["rows"]:
        trained = {json.loads(line)["text"] for line in (run_dir / name / "train.jsonl").read_text().splitlines()}
        assert trained.isdisjoint(held_out)


def test_begun_again_it_runs_what_is_missing_alone(study, capsys):
    config, run_dir, results = study
    (run_dir / "mixture.json").unlink()
    (run_dir / "mostly-digits" / "by_domain.json").unlink()
    assert run_main(mixture.main, [str(config), "--run-dir", str(run_dir)]) == 0
    out, err = capsys.readouterr()
    again = json.loads(out)
    assert "compiling the train step" not in err
    rows = again["rows"]
    assert rows["mostly-digits"]["bits_per_byte"] == pytest.approx(
        results["rows"]["mostly-digits"]["bits_per_byte"], rel=1e-5
    )
    assert rows["uniform"] == results["rows"]["uniform"]
    assert run_main(mixture.main, [str(config), "--run-dir", str(run_dir), "--proxy.num-steps", "40"]) == 2
    assert "holds another config" in capsys.readouterr().err


def test_other_text_under_the_same_name_is_refused(study, capsys):
    config, run_dir, _ = study
    text = run_dir.parent / "letters.txt"
    kept, files = text.read_text(), {path: path.read_text() for path in run_dir.rglob("*.jsonl")}
    text.write_text(kept.replace("are letters of", "are signs of"))
    try:
        assert run_main(mixture.main, [str(config), "--run-dir", str(run_dir)]) == 2
    finally:
        text.write_text(kept)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "text_sha256=" in line
    assert "mend the input or pass another --run-dir" in line
    assert {path: path.read_text() for path in run_dir.rglob("*.jsonl")} == files


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--domains.0.origins", "nowhere"), "has no text to train on"),
        (("--tokenizer.kind", "bpe", "--tokenizer.vocab-size", "30000"), "vocab_size"),
        (("--proxy.model.vocab-size", "10"), "model.vocab_size=10 is less than the tokenizer's"),
    ],
)
def test_a_refused_start_leaves_the_directory_to_the_mended_command(study, tmp_path, capsys, argv, message):
    assert run_main(mixture.main, [str(study[0]), "--run-dir", str(tmp_path / "run"), *argv]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "run" / "tokenizer").exists()


def test_a_signal_ends_it_as_it_ends_pretraining(study, tmp_path, capsys, monkeypatch):
    config, _, _ = study
    monkeypatch.setattr(mixture, "pretrain_proxy", lambda *_: {"stopped_by": "SIGTERM"})
    assert run_main(mixture.main, [str(config), "--run-dir", str(tmp_path / "run")]) == 128 + signal.SIGTERM
    assert json.loads(capsys.readouterr().out)["model"] == "uniform"


def test_held_out_pieces_and_the_tokenizers_sample(study):
    config, _ = load_config(MixtureStudyConfig, [str(study[0])], CommandOptions)
    domains = read_domains(config)
    assert [domain.name for domain in domains] == ["letters", "digits"]
    for domain in domains:
        assert set(domain.held_out).isdisjoint(domain.train)
        assert 400 <= domain.held_out_bytes < 500
    sample = tokenizer_sample(domains, 2000)
    sizes = [sum(len(text) for text in sample if text[0].isdigit() == kind) for kind in (True, False)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--num-candidates", "2"), "use at least 3"),
        (("--weights", "1", "0", "1"), "are not one of 0 or more for each"),
        (("--tokenizer.kind", "char"), "has no bits per byte"),
        (("--held-out-bytes", "0"), "held_out_bytes=0"),
        (("--proxy.num-steps", "0"), "num_steps=0"),
    ],
)
def test_bad_values_are_one_line(study, capsys, argv, message):
    assert run_main(mixture.main, [str(study[0]), *argv]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_bad_configs_are_refused():
    two = (DomainConfig("a"), DomainConfig("b"))
    bad: tuple[tuple[dict[str, Any], str], ...] = (
        ({"domains": two[:1]}, "two or more"),
        ({"domains": (two[0], two[0])}, "two domains of one name"),
        ({"domains": two, "candidates": (CandidateConfig("x", (1.0,)),)}, "has 1 shares for 2 domains"),
        ({"domains": two, "candidates": (CandidateConfig("x", (1.0, 0.0)),) * 3}, "two candidates of one name"),
        ({"domains": two, "candidates": (CandidateConfig("x", (1.0, 0.0)),)}, "too few for a law"),
    )
    for fields, message in bad:
        with pytest.raises(ValueError, match=message):
            MixtureStudyConfig(**fields)
    for make, message in (
        (lambda: DomainConfig("a b"), "no plain word"),
        (lambda: DomainConfig("a", origins="("), "no regular expression"),
        (lambda: CandidateConfig("x", (0.5, 0.4)), "with sum 1"),
        (lambda: CandidateConfig("predicted-1", (0.5, 0.5)), "no name for a candidate"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
