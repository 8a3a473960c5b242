"""``tools.judge``: by a function, by a model that writes; what it leaves on disk; what is refused."""

import json

import pytest

from jaxlm.run.cli import run_main
from tools.judge import main
from tools.score import main as score

JUDGE = """
def length(prompts, answers, records):
    return [len(answer) for answer in answers]
"""


def _write(path, answers):
    lines = (json.dumps({"prompt": f"q{i}", "output": one}) for i, one in enumerate(answers))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def _files(tmp_path):
    ours = _write(tmp_path / "ours.jsonl", ["x" * (1 + i % 5) for i in range(20)])
    theirs = _write(tmp_path / "theirs.jsonl", ["yyy"] * 19)
    return ["--answers", ours, "--reference", theirs]


def test_a_function_judges_and_the_judgements_are_read_again(tmp_path, capsys):
    (tmp_path / "judge.py").write_text(JUDGE)
    out = tmp_path / "judged.json"
    assert main([*_files(tmp_path), "--judge", f"{tmp_path / 'judge.py'}:length", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["wins"], found["draws"], found["losses"], found["num_without_a_pair"]) == (7, 4, 8, 1)
    assert score(["alpaca_eval", "--outputs", str(out)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["win_rate"] == found["win_rate"]
    assert again["length_controlled"]["value"] == found["length_controlled"]["value"]


def test_a_model_that_writes_is_asked_in_both_orders(tmp_path, capsys, make_run):
    make_run(tmp_path / "run")
    template = tmp_path / "ask.txt"
    template.write_text("{prompt} A {first} B {second}:")
    files = _files(tmp_path)
    code = run_main(main, [*files, "--judge", str(tmp_path / "run"), "--template", str(template)])
    said = capsys.readouterr()
    # Untrained bytes name a letter or none; either is said.
    if code == 0:
        assert json.loads(said.out)["num_pairs"] == 19
    else:
        assert "no pair was judged" in said.err


def test_bad_input_is_one_line(tmp_path, capsys):
    files = _files(tmp_path)
    (tmp_path / "bad.txt").write_text("{first} {second}")
    (tmp_path / "other.jsonl").write_text('{"prompt": "z", "output": "a"}\n')
    (tmp_path / "half.jsonl").write_text('{"prompt": "z"}\n')
    (tmp_path / "surrogate.jsonl").write_text('{"prompt": "q0", "output": "hello \\ud83d"}\n')
    (tmp_path / "judge.py").write_text(JUDGE)
    judge = ["--judge", f"{tmp_path / 'judge.py'}:length"]
    for argv, says in (
        ([*files, "--judge", "x", "--template", str(tmp_path / "bad.txt")], "lacks {prompt}"),
        ([*files, "--judge", "nothing"], "names no function"),
        ([*files[:3], str(tmp_path / "other.jsonl"), *judge], "share no prompt"),
        ([*files[:3], str(tmp_path / "half.jsonl"), *judge], "has no text under 'output'"),
        ([*files[:3], str(tmp_path / "surrogate.jsonl"), *judge], "line 1: text holds the lone surrogate U+D83D"),
        ([*files, *judge, "--template", str(tmp_path / "none.txt")], "cannot read --template"),
        ([*files, *judge, "--margin", "-1"], "--margin: -1 must be a number of 0 or more"),
        ([*files, *judge, "--margin", "nan"], "--margin: nan must be a number of 0 or more"),
        ([*files, *judge, "--seed", "-1"], "--seed: -1 must be a whole number"),
        ([*files, *judge, "--out", str(tmp_path / "nowhere" / "o.json")], "nowhere is no directory"),
    ):
        assert run_main(main, argv) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert says in said[0]


@pytest.mark.parametrize("names", [("instruction", "response"), ("question", "completion")])
def test_other_names_of_fields(tmp_path, capsys, names):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({names[0]: f"q{i}", names[1]: "y" * i}) + "\n" for i in range(4)))
    (tmp_path / "judge.py").write_text(JUDGE)
    argv = ["--answers", str(path), "--reference", str(path), "--judge", f"{tmp_path / 'judge.py'}:length"]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["draws"] == 4
