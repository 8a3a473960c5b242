"""A task of one's own: what a file may say, and what is refused by its line."""

import json

import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.eval_files.tasks import load_task


def _write(path, *records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return str(path)


def _form(kind, **fields):
    return {"form": {"kind": kind, **fields}}


def test_items_of_every_kind(tmp_path):
    shot = {"question": "Which flies?", "choices": ["cat", "bat"], "answer": "bat", "shot": True}
    asked = {"question": "Which swims?", "choices": ["cod", "cat"], "gold": 0, "group": "fish", "name": "one"}
    task = load_task(_write(tmp_path / "own.jsonl", _form("choice", template={"gap": ""}), shot, asked), None)
    assert (task.name, task.form.template.gap, task.form.template.layout) == ("own", "", "Q: {question}\nA:")
    assert [(one.name, one.answer, one.gold) for one in (*task.items, *task.shots)] == [
        ("one", "cod", 0),
        ("own:0", "bat", 1),
    ]
    form = _form("choice", choices=["yes", "no"], extraction={"form": "yes_no"})
    (item,) = load_task(_write(tmp_path / "said.jsonl", form, {"question": "Is it?", "answer": "no"}), None).items
    assert (item.choices, item.gold) == (("yes", "no"), 1)
    (item,) = load_task(_write(tmp_path / "pair.jsonl", _form("pair"), {"choices": ["it is", "it are"]}), None).items
    assert (item.answer, item.gold) == ("it is", 0)
    number = _form("answer", extraction={"form": "number"})
    task = load_task(_write(tmp_path / "sum.jsonl", number, {"question": "1 and 1?", "answer": 2.0}), None)
    assert (task.items[0].answer, task.shots) == ("2", task.items)
    assert load_task(_write(tmp_path / "t.jsonl", _form("text"), {"question": "To be."}), None).form.kind == "text"


@pytest.mark.parametrize(
    ("records", "match"),
    [
        ([], "my.jsonl has no items"),
        ([_form("cloze")], "my.jsonl has no items"),
        ([{"question": "q", "answer": "a"}], r"line 1 is to say how items are put, as in \{.*; kinds are choice, pair"),
        ([_form("instruction")], "line 1 is to say how items are put"),
        ([_form("cloze", stops=["x"])], "line 1: form has an unknown field 'stops'; did you mean 'stop'"),
        ([_form("cloze", template={"layout": "Q:"})], "line 1: form.template.layout='Q:' has no {question} in it"),
        ([_form("answer", stop=[""])], "line 1: form has an empty stop string"),
        ([_form("answer", extraction={"form": "letter", "letters": "A]"})], "line 1: form.extraction.letters='A]'"),
        ([_form("cloze"), {"question": "q", "anwser": "a"}], "line 2 has an unknown field 'anwser'; did you mean"),
        ([_form("cloze"), {"question": "q", "constraints": []}], "line 2 has an unknown field 'constraints'"),
        ([_form("cloze"), {"question": "q"}], "line 2 has no gold answer"),
        ([_form("cloze"), {"question": " ", "answer": "a"}], "line 2 has no 'question'"),
        ([_form("cloze"), {"question": "q", "answer": True}], "line 2.answer=True is not of type str"),
        ([_form("cloze"), {"question": "\ud83d", "answer": "a"}], "line 2: text holds the lone surrogate"),
        ([_form("cloze"), {"question": "q", "answer": "a", "shot": 1}], "line 2: 'shot' is 1"),
        ([_form("text"), {"answer": "a"}], "line 2 has no 'question'"),
        ([_form("answer", extraction={"form": "number"}), {"question": "q", "answer": "two"}], "'two', which is no"),
        ([_form("choice"), {"question": "q", "choices": ["a", "b"], "gold": 2}], "line 2: my:0: choice 2 is not among"),
        ([_form("choice"), {"question": "q", "choices": ["a", "b"], "answer": "c"}], "does not say which choice"),
        ([_form("choice"), {"question": "q", "choices": ["a"], "gold": 0}], "line 2 has 1 'choices'"),
        ([_form("choice"), {"question": "q", "choices": ["a", ""], "gold": 0}], "line 2 has an empty choice"),
        ([_form("choice"), {"question": "q", "choices": ["a", "b"], "gold": 0, "answer": "b"}], "mend one"),
        ([_form("pair"), {"choices": ["a", "b", "c"]}], "line 2 has 3 'choices'"),
        ([_form("text"), *[{"question": "a", "name": "x"}] * 2], "line 3 has the name 'x' of .*my.jsonl line 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path, records, match):
    with pytest.raises(UserError, match=match):
        load_task(_write(tmp_path / "my.jsonl", *records), None)


def test_a_bad_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none.jsonl cannot be read"):
        load_task(str(tmp_path / "none.jsonl"), None)
    for name in ("mmlu", "my[task]"):
        with pytest.raises(UserError, match=r"can be no task of your own, .*: rename the file"):
            load_task(_write(tmp_path / f"{name}.jsonl", _form("text"), {"question": "a"}), None)
    with pytest.raises(UserError, match="task 'mmlu' is published: --data names the folder"):
        load_task("mmlu", None)
