"""The command that grades what other systems wrote."""

import json

import pytest

from jaxlm.core.errors import UserError
from jaxlm.run.cli import run_main
from tools.score import main

RECORDS = [{"name": f"svamp:{i}", "output": f"It is {i}. The answer is {i + (i == 2)}.", "target": i} for i in range(4)]


def _write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_grades_and_writes_every_item(tmp_path, capsys):
    outputs, items = _write(tmp_path / "o.jsonl", RECORDS), tmp_path / "items.jsonl"
    worse = _write(tmp_path / "w.jsonl", [{**record, "output": "none"} for record in RECORDS])
    assert main(["svamp", "--outputs", outputs, "--items", str(items), "--against", worse]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["accuracy"]["value"] == 0.75
    assert 0 < found["accuracy"]["lower"] < 0.75 < found["accuracy"]["upper"] < 1
    assert found["against"]["difference"] == 0.75
    rows = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()]
    assert [row["answer"] for row in rows] == ["0", "1", "3", "3"]


def test_items_that_stand_in_the_training_text_are_scored_apart(tmp_path, capsys):
    asked = [
        "A farmer with two sheep buys as many again; how many has he then?",
        "If each of nine trains carries forty people, what is the number of all passengers?",
        "Mary reads ten pages a day of a book with two hundred pages: when is it done?",
    ]
    rows = [{"question": q, "output": f"{i}", "target": min(i, 1)} for i, q in enumerate(asked)]
    outputs = _write(tmp_path / "o.jsonl", rows)
    corpus = _write(tmp_path / "c.jsonl", [{"text": f"It was asked: {asked[1]} Nobody knew."}, {"text": "Other text."}])
    assert main(["svamp", "--outputs", outputs, "--corpus", corpus]) == 0
    flags = json.loads(capsys.readouterr().out)["flags"]
    assert (flags["flagged"]["num_items"], flags["flagged"]["accuracy"]["value"]) == (1, 1.0)
    assert (flags["clean"]["num_items"], flags["clean"]["accuracy"]["value"]) == (2, 0.5)


def test_a_task_that_is_answered_in_part(tmp_path, capsys):
    data = _write(tmp_path / "svamp.jsonl", [{"input": f"q{i}", "target": i} for i in range(4)])
    outputs = _write(tmp_path / "o.jsonl", RECORDS[:3])
    asked = ["svamp", "--outputs", outputs, "--data", str(tmp_path)]
    with pytest.raises(UserError, match="lacks 1 of the 4 items of svamp: finish it, or score"):
        main(asked)
    assert main([*asked, "--partial"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_items"], found["num_missing"]) == (3, 1)
    assert data.endswith("svamp.jsonl")


@pytest.mark.parametrize(
    ("task", "text", "says"),
    [
        ("svamp", '{"name": "svamp:0", "output": "3"', "only half a line"),
        ("svamp", '{"name": "svamp:0", "output": "3"}', "says no gold answer: name the task's files with --data"),
        ("svamp", '{"name": "svamp:0", "output": "3", "target": "three"}', "'three' is no number"),
        ("swamp", "", "unknown task 'swamp'"),
        ("alpaca_eval", '{"preference": 5}', "neither 0 (a draw) nor in 1 .. 2"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, task, text, says):
    path = tmp_path / "o.jsonl"
    path.write_text(text, encoding="utf-8")
    assert run_main(main, [task, "--outputs", str(path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert says in said[0]


def test_what_lines_do_not_say_is_no_figure(tmp_path, capsys):
    """Log-probabilities alone: no accuracy of a cloze, none per byte or token; with the fields they are there."""
    _write(tmp_path / "lambada_test.jsonl", [{"text": "a b"}, {"text": "a c"}])
    asked = {"question": "Which?", "options": ["A)1", "B)2"], "correct": "B"}
    _write(tmp_path / "AQuA_test.json", [asked, asked])
    rows = {
        "lambada": [{"name": f"lambada:{i}", "logprobs": [-0.01]} for i in range(2)],
        "aqua": [{"name": f"aqua:{i}", "logprobs": [-2.0, -1.0]} for i in range(2)],
    }
    beside = {
        "lambada": {"is_greedy": [True], "num_bytes": [1]},
        "aqua": {"num_bytes": [1, 1], "num_tokens": [1, 1]},
    }
    more = {"lambada": {"accuracy", "nats_per_byte"}, "aqua": {"accuracy_per_byte", "accuracy_per_token"}}
    items = tmp_path / "items.jsonl"
    for task, lines in rows.items():
        bare = _write(tmp_path / "o.jsonl", lines)
        full = _write(tmp_path / "f.jsonl", [line | beside[task] for line in lines])
        mixed = _write(tmp_path / "m.jsonl", [lines[0] | beside[task], *lines[1:]])
        found = []
        for path in (bare, full, mixed):
            assert main([task, "--outputs", path, "--data", str(tmp_path), "--items", str(items)]) == 0
            found.append(json.loads(capsys.readouterr().out))
            if path == bare:
                assert not more[task] & json.loads(items.read_text().splitlines()[0])["scores"].keys()
            items.unlink()
        assert found[1].keys() - found[0].keys() == more[task]
        assert found[2].keys() == found[0].keys()
        assert main([task, "--outputs", full, "--data", str(tmp_path), "--against", bare]) == 0
        assert json.loads(capsys.readouterr().out)["against"]["of"] == {"lambada": "nats", "aqua": "accuracy"}[task]
    written = _write(tmp_path / "w.jsonl", [{"name": f"lambada:{i}", "output": "b"} for i in range(2)])
    bare = _write(tmp_path / "o.jsonl", rows["lambada"])
    with pytest.raises(UserError, match="have no figure in common: compare files of one kind"):
        main(["lambada", "--outputs", bare, "--data", str(tmp_path), "--against", written])


def test_figures_beyond_all_floats_stay_json(tmp_path, capsys):
    _write(tmp_path / "lambada_test.jsonl", [{"text": "a b"}, {"text": "a c"}])
    for second, value in ((-130.0, 2.8e28), (-2000.0, "Infinity"), ("-Infinity", "Infinity")):
        rows = [{"name": f"lambada:{i}", "logprobs": [one]} for i, one in enumerate((-1.0, second))]
        outputs, items = _write(tmp_path / "o.jsonl", rows), tmp_path / "items.jsonl"
        assert main(["lambada", "--outputs", outputs, "--data", str(tmp_path), "--items", str(items)]) == 0
        found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["perplexity"]
        assert found["value"] == (value if isinstance(value, str) else pytest.approx(value, rel=0.01))
        assert found.get("upper", "Infinity") == "Infinity"
        last = [json.loads(line, parse_constant=pytest.fail) for line in items.read_text().splitlines()][1]
        assert last["scores"]["nats"] == (-second if isinstance(second, float) else "Infinity")


@pytest.mark.parametrize("value", ["2", "0", "1", "nan", "x"])
def test_a_confidence_lies_between_0_and_1(tmp_path, value):
    outputs = _write(tmp_path / "o.jsonl", RECORDS)
    with pytest.raises(UserError, match=f"{value} must be a number between 0 and 1"):
        main(["svamp", "--outputs", outputs, "--confidence", value])


def test_items_that_cannot_be_written_are_refused_first(tmp_path):
    for path in (tmp_path / "none" / "items.jsonl", tmp_path):
        with pytest.raises(UserError, match=f"cannot write {path}"):
            main(["svamp", "--outputs", str(tmp_path / "no.jsonl"), "--items", str(path)])


def test_the_split_is_said(tmp_path, capsys):
    _write(tmp_path / "train.jsonl", [{"question": "q", "answer": "So 6.\n#### 6"}])
    outputs = _write(tmp_path / "o.jsonl", [{"name": "gsm8k:0", "output": "6"}])
    assert main(["gsm8k", "--outputs", outputs, "--data", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["split"] == "train"
    assert said.err.splitlines() == ["gsm8k: 1 items, those of its train split"]


def test_words_and_against_go_together(tmp_path, capsys):
    records = [
        {"name": f"svamp:{i}", "question": question, "output": f"{i}", "target": i}
        for i, question in enumerate(["Two sheep?", "Nine trains?", "A sheep and two trains?"])
    ]
    outputs = _write(tmp_path / "o.jsonl", records)
    worse = _write(tmp_path / "w.jsonl", [{**record, "output": "none"} for record in records])
    known = _write(tmp_path / "words.jsonl", [{"text": "a two sheep and trains"}])
    assert main(["svamp", "--outputs", outputs, "--against", worse, "--words", known]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["num_items"] == found["against"]["num_items"] == 2


def test_judgements_take_a_level_of_confidence_and_nothing_else(tmp_path, capsys):
    path = tmp_path / "judged.json"
    path.write_text(json.dumps([{"preference": 1.0 + i % 2, "instruction": str(i)} for i in range(30)]))
    widths = []
    for level in ("0.95", "0.5"):
        assert main(["alpaca_eval", "--outputs", str(path), "--confidence", level]) == 0
        rate = json.loads(capsys.readouterr().out)["win_rate"]
        widths.append(rate["upper"] - rate["lower"])
    assert widths[1] < 0.5 * widths[0]
    assert run_main(main, ["alpaca_eval", "--outputs", str(path), "--against", str(path)]) == 2
    assert "--against is of tasks with items" in capsys.readouterr().err


def test_null_is_an_absent_field(tmp_path, capsys):
    rows = [{**record, "outputs": None, "group": None, "logprobs": None} for record in RECORDS]
    assert main(["svamp", "--outputs", _write(tmp_path / "o.jsonl", rows)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["accuracy"]["value"] == 0.75
    assert "groups" not in found
