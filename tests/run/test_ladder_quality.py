"""One ladder on several texts, through the command: texts made once, runs of a known law compared, runs trained."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from jaxlm.io.run_dir import write_json
from jaxlm.run import scaling
from jaxlm.run.cli import run_main
from jaxlm.run.config_files import load_config
from jaxlm.run.ladder_quality_config import QualityConfig, TextConfig
from jaxlm.run.ladder_quality_data import make_text
from tests.run.ladder_files import write_ladder

CONFIG = """
from jaxlm.data.corpus import CorpusConfig
from jaxlm.run.ladder_quality_config import QualityConfig, TextConfig
from tiny import config as ladder


def config():
    other = CorpusConfig(source="text", paths=("OTHER",), document="line")
    return QualityConfig(
        ladder=ladder(),
        texts=(
            TextConfig("clean"),
            TextConfig("noisy", damaged=0.5),
            TextConfig("again", copies=8),
            TextConfig("other", corpus=other),
        ),
    )
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    write_ladder(folder)
    other = folder / "other.txt"
    lines = [f"{i} lies before {i + 1} and after {i - 1}" for i in range(4000)]
    held_out = [f"{i} and {i + 1} are neighbours of {i + 2}" for i in range(4000)]
    other.write_text("\n".join([*lines, *held_out]) + "\n")
    path = folder / "study.py"
    path.write_text(CONFIG.replace("OTHER", str(other)))
    return path


def _run(capsys, *argv: str) -> dict:
    assert run_main(scaling.main, ["quality", *argv]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_texts_are_functions_of_the_seed_and_their_documents():
    documents = [f"document {i}: {'so it is, ' * (i % 7 + 1)}and that's it" for i in range(400)]
    some, more = (list(make_text(TextConfig("a", damaged=share), documents, 0)) for share in (0.25, 0.5))
    changed = [{i for i, one in enumerate(made) if one != documents[i]} for made in (some, more)]
    assert changed[0] < changed[1]
    assert 60 < len(changed[0]) < 140
    assert all(sorted(one) == sorted(whole) for one, whole in zip(more, documents, strict=True))
    # A document is damaged the same way wherever it stands.
    back = list(make_text(TextConfig("a", damaged=0.5), documents[::-1], 0))
    assert back[::-1] == more
    assert list(make_text(TextConfig("a", damaged=0.5), documents, 1)) != more
    for how in ("tagged", "misread", "numbers"):
        assert list(make_text(TextConfig("a", damaged=1.0, how=how), documents, 0)) != documents

    again = list(make_text(TextConfig("a", copies=8), documents, 0))
    once = again[: len(again) // 8]
    assert again == once * 8
    assert len(set(again)) == len(once)
    whole = sum(map(len, documents))
    assert whole <= sum(map(len, again)) < 1.05 * whole


@pytest.fixture
def lawful(config_file, tmp_path) -> tuple[list[str], Path]:
    """A study whose runs are all marked as finished, with losses of a known law: no training."""
    run_dir = tmp_path / "study"
    argv = [str(config_file), "--run-dir", str(run_dir)]
    config, _ = load_config(QualityConfig, argv)
    needs = {"clean": 1.0, "noisy": 2.0, "again": 1.0, "other": 0.5}
    for one in config.ladder.rungs(281):
        for name, times in needs.items():
            for seed in config.seeds:
                log_loss = 3.0 - 0.1 * np.log(one.flops / times) + 0.03 * (one.config.model.model_dim == 8)
                path = run_dir / name / f"seed-{seed}" / "runs" / one.name
                path.mkdir(parents=True)
                loss = float(np.exp(log_loss + (1e-3 if seed else -1e-3)))
                figures = {"eval/loss": loss, "perf/step_seconds": 0.1, "perf/tokens_per_second": 1.0}
                write_json(path / "done.json", figures)
    return argv, run_dir


@pytest.mark.slow
def test_what_a_text_costs_in_compute(lawful, capsys):
    argv, run_dir = lawful
    figures = _run(capsys, *argv)
    assert figures["noise"] == {"deviation": pytest.approx(1e-3 * np.sqrt(2)), "spare": 16}
    last = {name: one["against"]["budgets"][-1] for name, one in figures["texts"].items() if one["against"]}
    for name, times in (("noisy", 2.0), ("again", 1.0), ("other", 0.5)):
        low, high = last[name]["times_interval"]
        assert last[name]["times"] == pytest.approx(times, rel=1e-6)
        assert low < times < high
        assert last[name]["gap"] == pytest.approx(times**0.1 - 1, abs=1e-6)
        assert figures["texts"][name]["against"]["trend"] == "cannot tell"
    # The first budget of the worse text: the clean one was never so bad. JSON has null.
    assert figures["texts"]["noisy"]["against"]["budgets"][0]["times"] is None
    sizes = {name: one["different_tokens"] for name, one in figures["texts"].items()}
    assert sizes["again"] == pytest.approx(sizes["clean"] / 8, rel=0.02)
    with open(run_dir / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == figures["num_runs"] == 4 * 4 * 2
    assert {row["text"] for row in rows} == set(figures["texts"])
    assert len({row["held_out_tokens"] for row in rows}) == 1
    assert all((run_dir / row["dir"] / "done.json").exists() for row in rows)
    # Lines of the other text that the ladder's own corpus holds out are not learnt from.
    held_out, other = (
        {json.loads(line)["text"] for line in (run_dir / name).read_text().splitlines()}
        for name in ("held_out.jsonl", "other/text.jsonl")
    )
    assert not held_out & other
    page = (run_dir / "report.html").read_text()
    assert "noisy: at" in page
    assert "the compute" in page

    made = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.jsonl")}
    assert _run(capsys, *argv) == figures
    assert made == {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.jsonl")}
    assert run_main(scaling.main, ["quality", *argv, "--texts.1.damaged", "0.7"]) == 2
    assert "noisy holds another config (damaged: 0.5 -> 0.7)" in capsys.readouterr().err


def test_bad_studies_are_refused_before_anything_is_made(config_file, tmp_path, capsys):
    argv = ["quality", str(config_file), "--run-dir", str(tmp_path / "study")]
    for more, message in (
        (("--num-seeds", "1"), "no spread"),
        (("--ladder.run.tokenizer.kind", "unigram"), "use byte"),
        (("--texts.1.name", "clean"), "of different names"),
        (("--texts.1.name", "a/b"), "to name a directory"),
        (("--processes", "0"), "must be at least 1"),
    ):
        assert run_main(scaling.main, [*argv, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_refused_start_leaves_the_directory_to_the_mended_command(config_file, tmp_path, capsys):
    argv = ["quality", str(config_file), "--run-dir", str(tmp_path / "study")]
    for more, message in (
        (("--ladder.run.corpus.paths", "/nowhere.txt"), "/nowhere.txt"),
        (("--ladder.max-epochs", "0.01"), "or allow it with max_epochs (now 0.01)"),
    ):
        assert run_main(scaling.main, [*argv, *more]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "study" / "config.json").exists()
        assert not (tmp_path / "study" / "held_out.jsonl").exists()


@pytest.mark.slow
def test_a_study_is_trained_once(config_file, tmp_path, capsys):
    run_dir = tmp_path / "study"
    argv = [str(config_file), "--run-dir", str(run_dir), "--ladder.widths", "8", "--ladder.tokens-per-param", "3", "30"]
    planned = _run(capsys, *argv, "--dry-run")
    figures = _run(capsys, *argv)
    assert planned["num_runs"] == figures["num_runs"] == len(list(run_dir.glob("*/seed-*/runs/*/done.json"))) == 16
    ends = {path: path.stat().st_mtime_ns for path in run_dir.glob("*/seed-*/runs/*/done.json")}
    assert _run(capsys, *argv) == figures
    assert all(path.stat().st_mtime_ns == end for path, end in ends.items())
    # Another seed of a run has another loss, and another text too.
    losses = {json.loads(path.read_text())["eval/loss"] for path in ends}
    assert len(losses) == len(ends)
