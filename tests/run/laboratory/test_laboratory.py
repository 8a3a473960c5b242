"""The laboratory end to end at a tiny size, part by part; what is done is kept; bad input is one line."""

import json
from pathlib import Path

import pytest

from jaxlm.run.cli import main
from jaxlm.run.laboratory.config import PARTS
from tests.quick import quick_ones
from tests.run.commands import REPO

CONFIG = str(REPO / "configs" / "emergence_tiny.py")
SHOWN = {
    "induction": ("share of repeats foretold", "in-context score", "every head at the end"),
    "copying": ("by size", "Copying in context"),
    "regression": ("mean squared error of y", "error over ridge"),
    "arithmetic": ("right answers by tokens read", "p (McNemar)", "steps make no difference"),
    "instructions": ("instructions followed", "templates learnt from"),
}
NUM_TRIALS = {"induction": 2, "copying": 1, "regression": 1, "arithmetic": 2, "instructions": 3}


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(["emergence", CONFIG, *argv])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("part", quick_ones(PARTS, "induction"))
def test_an_experiment_from_end_to_end(part, tmp_path, capsys):
    code, out, err = run(capsys, "--parts", part, "--run-dir", str(tmp_path / "run"))
    assert code == 0, err
    figures = json.loads(out.splitlines()[-1])
    assert figures["num_trials"] == NUM_TRIALS[part]
    for score in figures["scores"][part].values():
        assert score["lower"] <= score["value"] <= score["upper"]
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "run" / "trials").iterdir())]
    assert len(records) == NUM_TRIALS[part]
    for record in records:
        assert [look["step"] for look in record["looks"]] == [0, 2, 4, 6, 8]
        assert record["num_params"] > 0
    results = json.loads((tmp_path / "run" / "emergence.json").read_text())
    assert list(results) == [part]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<svg") == 0 < page.count("data:image/svg+xml")
    for words in SHOWN[part]:
        assert words in page
    assert (tmp_path / "run" / "ladders.csv").exists() == (part == "arithmetic")
    check_again(part, tmp_path / "run", capsys, figures)
    check_diverged(part, tmp_path / "run", capsys)


def check_again(part: str, run_dir: Path, capsys, figures) -> None:
    """The same command does what is missing alone, and finds the same."""
    files = sorted((run_dir / "trials").iterdir())
    before = {path.name: path.stat().st_mtime_ns for path in files[1:]}
    kept = json.loads(files[0].read_text())
    files[0].unlink()
    code, out, err = run(capsys, "--parts", part, "--run-dir", str(run_dir))
    assert code == 0
    assert f"{len(files)} trials, 1 of them to do" in err
    again = json.loads(files[0].read_text())
    assert again.pop("seconds") != kept.pop("seconds")
    assert again == kept
    assert {path.name: path.stat().st_mtime_ns for path in files[1:]} == before
    assert json.loads(out)["scores"] == figures["scores"]


def check_diverged(part: str, run_dir: Path, capsys) -> None:
    """A trial without scores is left out, and said; the others are reported."""
    path, *others = sorted((run_dir / "trials").iterdir())
    record = json.loads(path.read_text())
    record["looks"][-1] = {
        name: value if name in ("step", "tokens") else [None] if isinstance(value, list) else None
        for name, value in record["looks"][-1].items()
    }
    path.write_text(json.dumps(record))
    code, out, err = run(capsys, "--parts", part, "--run-dir", str(run_dir))
    assert f"{path.stem} has figures that are no numbers (it diverged): left out" in err
    if not others:
        assert code == 2
        assert "all diverged" in err.splitlines()[-1]
        return
    assert code == 0, err
    assert json.loads(out)["diverged"] == [path.stem]
    assert "1 more diverged" in (run_dir / "report.html").read_text()


def test_bad_input_is_one_line_before_anything_is_trained(tmp_path, capsys):
    for argv, words in (
        (("--parts", "alchemy"), "parts"),
        (("--parts", "arithmetic", "induction"), "in this order"),
        (("--induction.depths", "2", "1"), "different and ascending"),
        (("--copying.widths", "15"), "model_dim=15 is not a multiple of num_heads=2"),
        (("--induction.training.num-looks", "3"), "num_steps=8 is not a multiple of num_looks=3"),
        (("--instructions.num-templates", "8", "16"), "a trend needs 3 numbers"),
        (("--instructions.num-templates", "8", "16", "56"), "are more than 64"),
        (("--arithmetic.num-questions", "0"), "num_questions=0 must be at least 1"),
        (("--induction.rows.longest", "20"), "longest=20 is more than num_symbols=8"),
    ):
        code, out, err = run(capsys, *argv, "--run-dir", str(tmp_path / "run"))
        assert (code, out) == (2, ""), argv
        assert words in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_plan_names_every_trial(tmp_path, capsys):
    code, out, err = run(capsys, "--dry-run", "--run-dir", str(tmp_path / "run"))
    assert code == 0
    assert json.loads(out) == {"num_trials": 9, "by_part": NUM_TRIALS}
    assert "arithmetic-sum-steps-width16-seed0" in err
    assert not (tmp_path / "run").exists()
