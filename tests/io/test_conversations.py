"""Files of conversations and preferences: every form, and one clear line for what is none."""

import gzip
import json

import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.chat_templates import find_template, read_template
from jaxlm.io.conversations import read_conversations, read_judged, read_rankings
from jaxlm.text.chat.messages import Message
from jaxlm.text.chat.templates import TEMPLATES

USER, ANSWER = Message("user", "One?"), Message("assistant", "Two.")


@pytest.fixture
def write(tmp_path):
    def written(*records, name="data.jsonl"):
        path = tmp_path / name
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return written


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


FORMS = [
    ({"messages": turns(USER, ANSWER), "id": 7}, (USER, ANSWER)),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "On"}, {"text": "e?"}]}, *turns(ANSWER)]},
        (USER, ANSWER),
    ),
    ({"conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "Two."}]}, (USER, ANSWER)),
    (
        {"system": "S", "conversations": [{"from": "user", "value": "One?"}, {"from": "gpt", "value": "Two."}]},
        (Message("system", "S"), USER, ANSWER),
    ),
    ({"instruction": "One?", "input": "", "output": "Two."}, (USER, ANSWER)),
    (
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        (Message("user", "Add.\n\n1 2"), Message("assistant", "3")),
    ),
    ({"prompt": "One?", "completion": "Two."}, (USER, ANSWER)),
    ({"prompt": turns(USER), "completion": turns(ANSWER)}, (USER, ANSWER)),
]


@pytest.mark.parametrize(("record", "wanted"), FORMS)
def test_every_form_gives_the_messages(write, record, wanted):
    (found,) = read_conversations(write(record))
    assert found.messages == wanted
    assert found.where.endswith("data.jsonl line 1")


def test_forms_may_mix_and_blank_lines_and_arrays_do(write):
    path = write(*(record for record, _ in FORMS), "", "  ")
    assert [c.messages for c in read_conversations(path)] == [wanted for _, wanted in FORMS]
    array = write(json.dumps([record for record, _ in FORMS]), name="data.json")
    found = list(read_conversations(array))
    assert [c.messages for c in found] == [wanted for _, wanted in FORMS]
    assert found[2].where.endswith("data.json item 3")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": []}, r"line 2 has no messages"),
        ({"messages": turns(USER)}, "line 2 has no assistant turn"),
        ({"messages": turns(("bot", "x"))}, "line 2: message 1 has the role 'bot'"),
        ({"messages": turns(("system", "a"), ("system", "b"), ANSWER)}, "line 2: message 2 is a second system turn"),
        ({"messages": turns(USER, ("assistant", ""))}, r"line 2: message 2 \(assistant\) is empty"),
        ({"messages": turns(USER, ("assistant", None))}, "line 2: message 2 has content of type NoneType"),
        ({"messages": "x"}, "line 2: the messages are no list"),
        ({"messages": [{"content": "x"}]}, "line 2: message 1 has no role"),
        ({"messages": [{"role": "user", "content": [{"image": 1}]}]}, "line 2: message 1 has parts that are no text"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "line 2: message 1 calls tools"),
        ({"conversations": [{"from": "dog", "value": "x"}]}, "line 2: turn 1 is from 'dog'"),
        ({"conversations": [{"from": "gpt"}]}, "line 2: turn 1: 'value' is of type NoneType"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, r"line 2: turn 1 is from \['human'\]"),
        ({"conversations": {}}, "line 2: 'conversations' is no list"),
        ({"instruction": "x", "output": 3}, "line 2: 'output' is of type int"),
        ({"text": "x"}, r"line 2 is no conversation \(it has text\)"),
        ({}, r"line 2 is no conversation \(it has no fields\)"),
        ("[1]", "line 2 holds no object"),
        ("{", "line 2 is no JSON, or only half a line: Expecting"),
    ],
)
def test_bad_conversations_end_in_one_line_with_their_place(write, record, message):
    with pytest.raises(UserError, match=message) as caught:
        list(read_conversations(write(FORMS[0][0], record)))
    assert "\n" not in str(caught.value)


def test_files_that_are_none(write, tmp_path):
    with pytest.raises(UserError, match="holds no conversations"):
        list(read_conversations(write("", "")))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_conversations(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match=r"name a \.jsonl file"):
        list(read_conversations(tmp_path / "data.csv"))
    with pytest.raises(UserError, match="holds no array"):
        list(read_conversations(write('{"a": 1}', name="one.json")))
    (tmp_path / "bytes.jsonl").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match=r"bytes\.jsonl line 1 is no UTF-8 text"):
        list(read_conversations(tmp_path / "bytes.jsonl"))


def test_bad_records_may_be_passed_over(write):
    bad: list[UserError] = []
    found = read_conversations(write({"text": "x"}, FORMS[0][0], {"messages": []}), on_bad=bad.append)
    assert [c.messages for c in found] == [(USER, ANSWER)]
    assert ["line 1" in str(bad[0]), "line 3" in str(bad[1])] == [True, True]
    with pytest.raises(UserError, match="holds no conversations"):
        list(read_conversations(write({"text": "x"}), on_bad=bad.append))


def test_rankings_in_every_form(write):
    path = write(
        {"prompt": "One?", "chosen": "Two.", "rejected": "No.", "margin": 1, "source": "me"},
        {"chosen": turns(USER, ANSWER), "rejected": turns(USER, ("assistant", "No."))},
        {"prompt": turns(("system", "S"), USER), "chosen": turns(ANSWER), "rejected": turns(("assistant", "No."))},
        {"prompt": "One?", "answers": ["a", "b", "c"]},
        {"prompt": "One?", "answers": ["a", "b", "c"], "ranks": [2, 0, 0], "margins": [0, 2.5, 2]},
    )
    found = list(read_rankings(path))
    assert [r.answers for r in found] == [("Two.", "No.")] * 3 + [("a", "b", "c")] * 2
    assert [r.ranks for r in found] == [(0, 1)] * 3 + [(0, 1, 2), (2, 0, 0)]
    assert [r.prompt for r in found] == [(USER,), (USER,), (Message("system", "S"), USER), (USER,), (USER,)]
    assert [r.margins for r in found] == [(1.0, 0.0), (), (), (), (0.0, 2.5, 2.0)]
    assert (found[0].source, found[1].source) == ("me", path.stem)


def test_comparisons_are_rankings(write):
    asked = {"output_1": "Two.", "output_2": "No."}
    path = write(
        {"input": "One?", **asked, "label": 1},
        {"instruction": "One?", **asked, "preference": "2", "generator_2": "model", "generator_1": "reference"},
        {"instruction": "One?", "input": "", **asked, "preference": 1.4},
        {"instruction": "One?", **asked, "preference": 0},
        {"instruction": "One?", **asked, "preference": None},
    )
    bad: list[UserError] = []
    found = list(read_rankings(path, on_bad=bad.append))
    assert [r.answers for r in found] == [("Two.", "No."), ("No.", "Two."), ("Two.", "No.")]
    assert {(r.prompt, r.ranks, r.margins) for r in found} == {((USER,), (0, 1), ())}
    assert [r.source for r in found] == [path.stem, "model", path.stem]
    assert ["line 4 is a draw" in str(bad[0]), "line 5 has no 'label'" in str(bad[1])] == [True, True]


def test_packed_files_read_as_they_are(write, tmp_path):
    path = write({"prompt": "One?", "chosen": "Two.", "rejected": "No."})
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [r.answers for r in read_rankings(packed)] == [r.answers for r in read_rankings(path)]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UserError, match="is not a whole gzip file"):
        list(read_rankings(packed))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a", "chosen": "x", "rejected": "x"}, "line 1: answers 1 and 2 are identical"),
        ({"prompt": "a", "chosen": "x", "rejected": " "}, "line 1: answer 2 is empty"),
        ({"prompt": " ", "chosen": "x", "rejected": "y"}, r"line 1: message 1 \(user\) is empty"),
        ({"prompt": "a", "answers": ["x"]}, "line 1 has 1 answers"),
        ({"input": "a", "output_1": "x", "output_2": "y", "label": 3}, r"line 1 has no 'label' or 'preference' \(3\)"),
        ({"input": "a", "output_1": "x", "output_2": "y", "label": True}, r"'preference' \(True\): write 1 or 2"),
        ({"output_1": "x", "output_2": "y", "label": 1}, "line 1 has no 'instruction' or 'input'"),
        ({"prompt": "a", "answers": ["x", "y"], "ranks": [0]}, "2 answers and 1 ranks"),
        ({"prompt": "a", "answers": ["x", "y"], "ranks": [1, 1]}, "the same rank"),
        ({"prompt": "a", "answers": ["x", "y"], "ranks": [1, "b"]}, "'ranks' is"),
        ({"prompt": "a", "answers": "xy"}, "'answers' is no list of texts"),
        ({"prompt": "a", "chosen": "x", "rejected": "y", "margin": -1}, "'margin' is -1"),
        ({"prompt": "a", "answers": ["x", "y"], "margins": "high"}, "'margins' is 'high'"),
        ({"prompt": "a", "chosen": "x", "rejected": "y", "margin": 10**400}, "'margin' is 1000"),
        ({"prompt": "a", "chosen": "x", "rejected": "y", "margin": 1e300}, r"'margin' is 1e\+300"),
        ({"prompt": "a", "answers": ["x", "y"], "ranks": [0, 2**31]}, "'ranks' is"),
        ({"input": "a", "output_1": "x", "output_2": "y", "label": 10**400}, r"'preference' \(1000"),
        ({"prompt": "a", "answers": ["x", "y"], "margins": [1]}, "2 answers and 1 margins"),
        ({"prompt": "a", "answers": ["x", "y"], "margins": [0, 1]}, "the better one has the lower margin"),
        ({"prompt": turns(USER, ANSWER), "chosen": "x", "rejected": "y"}, "the prompt ends with the assistant"),
        ({"chosen": turns(USER, ANSWER), "rejected": turns(ANSWER)}, "do not answer the same turns"),
        ({"chosen": turns(ANSWER, USER), "rejected": turns(ANSWER, USER)}, "do not both end with the assistant"),
        ({"prompt": "a"}, r"is no ranking \(it has prompt\)"),
    ],
)
def test_bad_rankings_end_in_one_line(write, record, message):
    with pytest.raises(UserError, match=message):
        list(read_rankings(write(record)))


def test_judged_answers(write):
    (found,) = read_judged(write({"prompt": "One?", "completion": "Two.", "label": False}))
    assert (found.prompt, found.answer, found.desirable) == ((USER,), "Two.", False)
    for record, message in (
        ({"prompt": "a", "completion": "b", "label": 1}, "'label' is 1"),
        ({"prompt": "a", "completion": "", "label": True}, "the answer is empty"),
        ({"prompt": "a", "completion": "b"}, "is no judged answer"),
    ):
        with pytest.raises(UserError, match=message):
            list(read_judged(write(record)))


def test_published_pairs_are_read(shared_data):
    files = sorted((shared_data / "sft" / "t0_templates").glob("*.jsonl"))
    assert sum(1 for path in files for _ in read_conversations(path)) == 3491
    (outputs,) = (shared_data / "sft" / "alpaca_eval").glob("text_davinci_003*.json")
    bad: list[UserError] = []
    assert sum(1 for _ in read_conversations(outputs, on_bad=bad.append)) == 552
    assert [str(error).partition("outputs.json ")[2] for error in bad] == [
        "item 248: message 2 (assistant) is empty: leave it out or write it"
    ]


def test_templates_by_name_and_file(tmp_path):
    assert find_template("gemma") is TEMPLATES["gemma"]
    (tmp_path / "t.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert find_template(str(tmp_path / "t.jinja")).source == "{{ messages }}"
    (tmp_path / "t.jinja").write_text("{{ messages }}", encoding="utf-8-sig")
    assert find_template(str(tmp_path / "t.jinja")).source == "{{ messages }}"
    with pytest.raises(UserError, match="'gema' is none of chatml"):
        find_template("gema")
    with pytest.raises(UserError, match="has neither"):
        read_template(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    for value, wanted in (
        ("one", "one"),
        ([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "two"}], "two"),
        ([{"name": ["x"], "template": "no"}, {"name": "default", "template": "two"}], "two"),
    ):
        config.write_text(json.dumps({"chat_template": value}), encoding="utf-8")
        assert read_template(tmp_path).source == wanted
    config.write_text('{"chat_template": [{"name": ["x"]}]}', encoding="utf-8")
    with pytest.raises(UserError, match="has no chat_template"):
        read_template(tmp_path)
    config.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="has no chat_template"):
        read_template(tmp_path)
    config.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="no JSON"):
        read_template(tmp_path)
