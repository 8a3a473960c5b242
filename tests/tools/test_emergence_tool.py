"""The command of emergence: tables, items, and what is no ladder."""

import json

import numpy as np
import pytest

from jaxlm.evals.emergence_simulated import late_power
from jaxlm.run.cli import run_main
from tools.emergence import main


def test_a_table_of_two_tasks(tmp_path, capsys):
    ladder = late_power(np.random.default_rng(0))
    lines = ["task,size,metric,score,error"]
    for i, size in enumerate(ladder.sizes):
        em, nats = ladder.exact_match.values[i], -ladder.nats.values[i]
        lines.append(f"late,{size},exact_match,{em},{0.0 if em == 0 else ladder.exact_match.errors[i]}")
        lines.append(f"late,{size},nats,{nats},{ladder.nats.errors[i]}")
        lines.append(f"flat,{size},accuracy,{0.25 + 0.01 * (i % 2)},0.02")
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    columns = "task=task,size=size,metric=metric,score=score,error=error"
    assert main(["--table", str(path), "--columns", columns, "--resamples", "20"]) == 0
    out = capsys.readouterr()
    tasks = json.loads(out.out)["tasks"]
    assert {name: one["verdict"] for name, one in tasks.items()} == {
        "late": "smooth once measured continuously",
        "flat": "flat",
    }
    assert "exact_match: rises, late" in out.err


def test_items_of_written_answers(tmp_path, capsys):
    rng = np.random.default_rng(0)
    files = []
    for i, size in enumerate(np.geomspace(1e6, 1e9, 8)):
        # Of a five-digit answer each digit is right with a probability that grows smoothly.
        p = 0.2 + 0.75 * i / 7
        records = []
        for number in range(200):
            gold = "".join(map(str, rng.integers(0, 10, 5)))
            said = "".join(d if rng.random() < p else str((int(d) + 1) % 10) for d in gold)
            scores = {"accuracy": float(said == gold), "answered": 1.0}
            records.append({"name": f"n:{number}", "outputs": [said], "answer": said, "gold": gold, "scores": scores})
        path = tmp_path / f"{i}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
        files.append(f"{size}={path}")
    assert main(["--items", *files, "--resamples", "20"]) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]["items"]
    assert found["verdict"] == "smooth once measured continuously"
    assert set(found["curves"]) == {"accuracy", "token_edit_distance"}


@pytest.mark.parametrize(
    ("files", "arguments", "says"),
    [
        ({}, [], "give one of --results"),
        ({"a.json": "{}"}, ["--results", "."], "a.json in . is no MODEL_stepN.json"),
        ({"x_step1.json": '{"results": {}}'}, ["--results", "."], "'x' says no size like 70m"),
        ({"70m_step1.json": "{}"}, ["--results", "."], "has no 'results'"),
        ({"t.csv": "a,b\n1,2\n"}, ["--table", "t.csv"], "--table needs --columns"),
        (
            {"t.csv": "size,metric,score,error\n1,acc,0,0\n2,acc,0,0\n"},
            ["--table", "t.csv", "--columns", "size=size,metric=metric,score=score,error=error"],
            "every error is 0",
        ),
        ({"i.jsonl": '{"name": "a"}'}, ["--items", "1=i.jsonl"], "has no 'name' with 'scores'"),
        ({}, ["--items", "i.jsonl"], "write SIZE=FILE"),
        ({}, ["--items", "32=a.jsonl", "32.0=b.jsonl"], "has the size 32.0 twice"),
        ({}, ["--simulated", "0"], "--simulated 0 must be at least 1"),
        ({}, ["--scatter", "-1"], "--scatter: -1 must be a number of 0 or more"),
        ({}, ["--scatter", "nan"], "--scatter: nan must be a number of 0 or more"),
        ({}, ["--resamples", "-1"], "--resamples: -1 must be a whole number of 0 or more"),
        ({}, ["--seed", "-1"], "--seed: -1 must be a whole number"),
        ({}, ["--simulated", "1", "--out", "nowhere/x.html"], "cannot write nowhere/x.html"),
        (
            {"t.csv": "size,metric,score,error\n1,acc,0.5,0.1\n2,acc,nan,0.1\n"},
            ["--table", "t.csv", "--columns", "size=size,metric=metric,score=score,error=error"],
            "t.csv line 3: acc is nan",
        ),
        (
            {"t.csv": "size,metric,score,error\n1,acc,0.5,-0.1\n"},
            ["--table", "t.csv", "--columns", "size=size,metric=metric,score=score,error=error"],
            "with an error of -0.1",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, files, arguments, says):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert run_main(main, arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert says in said[0]
