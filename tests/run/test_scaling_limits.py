"""`experiments.scaling limits` on a table of scores."""

import json

import numpy as np
import pytest

from jaxlm.run import scaling
from jaxlm.run.cli import run_main

SIZES = np.geomspace(1e7, 1e10, 8)
COLUMNS = "task=task,n=n,score=acc*0.01,error=se*0.01,loss=loss"


def _table(tmp_path, tasks, name="scores.csv"):
    lines = ["task,n,acc,se,loss"]
    for task, scores in tasks.items():
        loss = np.linspace(4.0, 2.0, len(scores))
        lines += [f"{task},{n:.9g},{100 * s:.9g},1,{x:.9g}" for n, s, x in zip(SIZES, scores, loss, strict=False)]
    path = tmp_path / name
    path.write_text("\n".join(lines))
    return path


def test_shapes_and_the_error_of_the_largest_model(tmp_path, capsys):
    loss = np.linspace(4.0, 2.0, 8)
    tasks = {
        "up": 0.25 + 3 * np.exp(-1.2 * loss),
        "down": np.linspace(0.6, 0.4, 8),
        "valley": 0.4 + 0.02 * np.abs(np.arange(8) - 3.0),
        "flat": np.full(8, 0.3),
    }
    argv = ["limits", "--csv", str(_table(tmp_path, tasks)), "--columns", COLUMNS, "--resamples", "200"]
    assert run_main(scaling.main, argv) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert {task: one["shape"] for task, one in figures["tasks"].items()} == {
        "up": "rises", "down": "falls", "valley": "U", "flat": "no trend",
    }  # fmt: skip
    assert figures["inverse"] == figures["inverse_among_all_tasks"] == ["down"]
    assert figures["tasks"]["valley"]["turn"] == pytest.approx(SIZES[3])
    told = figures["tasks"]["up"]["from_loss"]
    assert told["predicted_error"] == pytest.approx(told["observed_error"], abs=1e-3)
    assert "down: no error from the loss: the error does not fall" in err
    assert "falls (inverse)" in err


def test_an_error_as_the_score_turns_the_verdict(tmp_path, capsys):
    path = _table(tmp_path, {"bias": np.linspace(0.1, 0.4, 8)})
    argv = ["limits", "--csv", str(path), "--columns", "n=n,score=acc*0.01,error=se*0.01", "--lower-is-better"]
    assert run_main(scaling.main, argv) == 0
    assert json.loads(capsys.readouterr().out)["inverse"] == ["all"]


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        ("n=n,score=acc", (), "no error=COLUMN"),
        ("n=n,score=acc,error=se,size=n", (), "roles are task"),
        ("n=n,score=acc,error=sd", (), "no column 'sd'"),
        ("task=name,n=n,score=acc,error=se", (), "no column 'name'"),
        ("task=task,n=n,score=acc,error=se*0", (), "line 2: se*0 is 0, which is no number above 0"),
        ("task=task,n=n,score=acc,error=se", (), "task 'short': needs at least 3 sizes"),
        ("task=task,n=n,score=acc,error=se", ("--resamples", "9"), "too few"),
        ("task=task,n=n,score=acc,error=se", ("--scatter", "-1"), "--scatter: -1 must be"),
        ("task=task,n=n,score=acc,error=se", ("--chance", "75"), "--chance: 75 must be above 0 and at most 1"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, columns, more, message):
    path = _table(tmp_path, {"short": np.array([0.3, 0.4])})
    assert run_main(scaling.main, ["limits", "--csv", str(path), "--columns", columns, *more]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert not out


def test_a_loss_that_is_none_is_refused(tmp_path, capsys):
    path = _table(tmp_path, {"up": np.linspace(0.3, 0.5, 8)})
    path.write_text(path.read_text().removesuffix(",2") + ",-2\n")
    assert run_main(scaling.main, ["limits", "--csv", str(path), "--columns", COLUMNS]) == 2
    assert "scores.csv line 9: loss is -2, which is no number above 0" in capsys.readouterr().err


def test_a_row_twice_is_no_second_seed(tmp_path, capsys):
    path = _table(tmp_path, {"up": np.linspace(0.3, 0.5, 8)})
    path.write_text(path.read_text() + "\n" + path.read_text().splitlines()[1] + "\n")
    assert run_main(scaling.main, ["limits", "--csv", str(path), "--columns", COLUMNS]) == 2
    assert "scores.csv line 10 is a row that was there before" in capsys.readouterr().err


def test_seeds_that_score_the_same_are_told_apart_by_any_column(tmp_path, capsys):
    header, *rows = _table(tmp_path, {"up": np.linspace(0.3, 0.5, 8)}).read_text().split()
    path = tmp_path / "seeds.csv"
    path.write_text("\n".join([f"{header},seed", *(f"{row},{seed}" for row in rows for seed in (0, 1))]) + "\n")
    columns = "task=task,n=n,score=acc,error=se"
    assert run_main(scaling.main, ["limits", "--csv", str(path), "--columns", columns]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]["up"]["shape"] == "rises"
