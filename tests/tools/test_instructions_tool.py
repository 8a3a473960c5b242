"""Prompts that are written, answered and graded; IFEval's files; what is no such file."""

import json

import pytest

from jaxlm.evals.instructions.made_up import made_up
from jaxlm.io.eval_files.tasks import load_task
from jaxlm.run.cli import run_main
from tools.instructions import main
from tools.score import main as score


def _write(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_written_prompts_are_those_that_are_read_and_graded(tmp_path, capsys):
    assert main(["--count", "20", "--seed", "1", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["num_prompts"] == 20
    assert list(load_task("instructions", tmp_path).items) == made_up(20, 1)
    outputs = _write(tmp_path / "o.jsonl", [{"name": one.name, "output": "天 one two"} for one in made_up(20, 1)])
    worse = _write(tmp_path / "w.jsonl", [{"name": one.name, "output": ""} for one in made_up(20, 1)])
    assert score(["instructions", "--outputs", outputs, "--data", str(tmp_path), "--against", worse]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt_strict"]["value"] <= found["prompt_loose"]["value"]
    assert 0 < found["instruction_loose"]["value"] < 1
    assert found["against"]["difference"] == found["prompt_strict"]["value"]
    assert set(found["groups"]) == {"en", "zh"}


def test_ifevals_files(tmp_path, capsys):
    prompts = [
        {"key": 7, "prompt": "Two words.",
         "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
         "kwargs": [{"num_words": 3, "relation": "less than"}, {}]},
        {"key": 7, "prompt": "In JSON.", "instruction_id_list": ["detectable_format:json_format"], "kwargs": [None]},
    ]  # fmt: skip
    _write(tmp_path / "input_data.jsonl", prompts)
    said = [{"prompt": "Two words.", "response": "Just, two"}, {"prompt": "In JSON.", "response": "Here:\n[1]"}]
    outputs = _write(tmp_path / "said.jsonl", said)
    assert score(["ifeval", "--outputs", outputs, "--data", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["prompt_strict"]["value"], found["prompt_loose"]["value"]) == (0.0, 0.5)
    assert found["instruction_strict"]["value"] == pytest.approx(1 / 3)
    assert found["constraints"]["json"]["loose"]["value"] == 1.0


@pytest.mark.parametrize(
    ("task", "record", "says"),
    [
        ("instructions", {"prompt": "a"}, "no list of 'constraints'"),
        ("instructions", {"prompt": "a", "constraints": [{"id": "wrods"}]}, "line 1: constraint 'wrods' is unknown"),
        ("instructions", {"prompt": "", "constraints": [{"id": "json"}]}, "has no 'prompt'"),
        ("instructions", {"prompt": "a", "constraints": []}, "has no constraints"),
        ("ifeval", {"prompt": "a", "instruction_id_list": ["x"], "kwargs": []}, "no lists of one length"),
        ("ifeval", {"prompt": "a", "instruction_id_list": ["x"], "kwargs": [{}]}, "none of IFEval's 25"),
    ],
)
def test_bad_files_are_one_line(tmp_path, capsys, task, record, says):
    _write(tmp_path / f"{task}.jsonl", [record])
    outputs = _write(tmp_path / "said.jsonl", [{"prompt": "a", "response": "b"}])
    assert run_main(score, [task, "--outputs", outputs, "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert says in said[0]
