"""Task files and outputs, as they are published and as they go wrong: one clear line each time."""

import gzip
import json
import math

import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.eval_files.blimp_table import read_table
from jaxlm.io.eval_files.judgements import read_preferences
from jaxlm.io.eval_files.outputs import read_outputs
from jaxlm.io.eval_files.records import as_json, as_number
from jaxlm.io.eval_files.tasks import TASKS, load_task

MMLU_HEAD = "question,choice0,choice1,choice2,choice3,answer\n"
BBH_PROMPT = (
    "canary\n-----\nSay it.\n\nQ: One?\nA: Let's think step by step.\nIt is 1. So the answer is 1.\n\n"
    "Q: Two?\nA: Let's think step by step.\nIt is\n2.\nSo the answer is 2."
)


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def _lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_mmlu_with_names_and_numbers_or_without_and_letters(tmp_path):
    passage = "A passage. " * 30
    _write(
        tmp_path / "mmlu/test/birds_test.csv.gz",
        MMLU_HEAD + f'"{passage}\nWho?",w,x,y,z,3\n"{passage}\nWhy?",w,x,y,z,0\n',
    )
    _write(tmp_path / "mmlu/dev/birds_dev.csv", "Which?,w,x,y,z,B\n")
    task = load_task("mmlu", tmp_path)
    assert [item.gold for item in task.items] == [3, 0]
    assert task.items[0].question.endswith("Who?\nA. w\nB. x\nC. y\nD. z")
    assert task.items[0].cluster == task.items[1].cluster == "mmlu/birds:0"
    assert (task.shots[0].name, task.shots[0].answer) == ("mmlu/birds:dev0", "B")
    assert task.instruction(task.items[0]).endswith("about birds.")
    assert load_task("mmlu", tmp_path / "mmlu").items == task.items


def test_bbh_with_its_worked_examples(tmp_path):
    _write(tmp_path / "tasks/sums.json", json.dumps({"examples": [{"input": "Three?", "target": "3"}]}))
    _write(tmp_path / "cot-prompts/sums.txt", BBH_PROMPT)
    task = load_task("bbh", tmp_path)
    assert [(shot.question, shot.solution, shot.answer) for shot in task.shots] == [
        ("One?", "It is 1. ", "1"),
        ("Two?", "It is\n2.\n", "2"),
    ]
    assert task.instruction(task.items[0]) == "Say it."


def test_word_problems(tmp_path):
    _write(tmp_path / "train.jsonl", _lines({"question": "q", "answer": "2*3=<<2*3=6>>6 eggs.\nSo 6.\n#### 1,006"}))
    (item,) = load_task("gsm8k", tmp_path).items
    assert (item.answer, item.solution) == ("1,006", "2*3=6 eggs. So 6. ")
    assert load_task("gsm8k", tmp_path).split == "train"
    _write(tmp_path / "test.jsonl", _lines({"question": "q", "answer": "#### 1"}))
    tested = load_task("gsm8k", tmp_path)
    assert (tested.split, [shot.name for shot in tested.shots]) == ("test", ["gsm8k:train0"])
    (tmp_path / "train.jsonl").unlink()
    assert load_task("gsm8k", tmp_path).shots == tested.items
    _write(tmp_path / "x_MultiArith.json", json.dumps([{"sQuestion": " How many? ", "lSolutions": [39.0]}]))
    assert load_task("multiarith", tmp_path).items[0].answer == "39"
    options = {"question": "Which?", "options": ["A)1", "B)2)"], "correct": "B"}
    _write(tmp_path / "AQuA_test.json", _lines(options, options | {"rationale": "1 + 1\nis 2."}))
    assert [item.solution for item in load_task("aqua", tmp_path).items] == ["", "1 + 1 is 2. "]
    assert load_task("aqua", tmp_path).items[0].question == "Which? Answer Choices: (A) 1 (B) 2)"


@pytest.mark.parametrize(
    ("task", "file", "text", "match"),
    [
        ("mmlu", "test/a_test.csv", MMLU_HEAD + "q,w,x,y,z,4\n", "line 2: the gold answer '4' is out of range"),
        ("mmlu", "test/a_test.csv", "q,w,x,y,z,E\n", "line 1: the gold answer 'E' is out of range"),
        ("mmlu", "test/a_test.csv", "q,w,x,y,z,\n", "line 1 has no gold answer"),
        ("mmlu", "test/a_test.csv", "q,w,x,y\n", "line 1 has 4 columns"),
        ("cmmlu", "test/a.csv", ",Question,A,B,C,D,Answer\n0,q,w,x,y,z,F\n", "'F' is out of range"),
        ("bbh", "tasks/a.json", '{"examples": [{"input": "q"}]}', "example 1 has no 'target'"),
        ("bbh", "tasks/a.json", '{"examples": [', "no JSON, or only half of it"),
        ("blimp", "a.jsonl", _lines({"sentence_good": "g"}), "line 1 has no 'sentence_bad'"),
        ("lambada", "lambada_test.jsonl", _lines({"text": "word"}), "line 1 has no gold answer"),
        ("lambada", "lambada_test.jsonl", '{"text": "a b"}\n{"text": "a', "line 2 is no JSON, or only half a line"),
        ("svamp", "svamp.jsonl", _lines({"input": "q", "target": None}), "line 1 has no 'target'"),
        ("svamp", "svamp.jsonl", _lines({"input": "q", "target": "many"}), "svamp:0: the gold answer 'many' is no num"),
        ("gsm8k", "train.jsonl", _lines({"question": "q", "answer": "steps"}), "nothing stands behind ####"),
        ("multiarith", "MultiArith.json", '[{"sQuestion": "q"}]', "item 1 has no gold answer under 'lSolutions'"),
        (
            "aqua",
            "AQuA_test.json",
            _lines({"question": "q", "options": ["A)1", "B)2"], "correct": "C"}),
            "'C' is out of range, its choices are A to B",
        ),
        (
            "aqua",
            "AQuA_test.json",
            _lines({"question": "q", "options": ["A)1", "2"], "correct": "A"}),
            "line 1: the option '2' has no letter with a bracket",
        ),
        (
            "ifeval",
            "input_data.jsonl",
            _lines({"prompt": "q", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [[1]]}),
            r"line 1: instruction 'punctuation:no_comma': its arguments \[1\] are no object",
        ),
        ("coin_flip", "coin_flip.json", '{"examples": [{"question": "q", "answer": "maybe"}]}', "neither yes nor no"),
        ("strategyqa", "strategyqa_train.tsv", "q\t\tr\n", "line 1 has no gold answer"),
        ("lambada", "other.jsonl", "", "has no files in .*: looked for icl/lambada/lambada"),
    ],
)
def test_a_bad_task_file_is_refused(tmp_path, task, file, text, match):
    _write(tmp_path / file, text)
    with pytest.raises(UserError, match=match):
        load_task(task, tmp_path)


def test_unknown_tasks_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"unknown task 'mmul'.*mmlu"):
        load_task("mmul", tmp_path)
    with pytest.raises(UserError, match="is no directory"):
        load_task("mmlu", tmp_path / "none")


def test_outputs_in_their_forms(tmp_path):
    records = [
        {"name": "t:0", "output": "The answer is 3.", "target": 3.0},
        {"id": "t:1", "outputs": ["a", "b"], "behind_cue": True},
        {"name": "t:2", "logprobs": [-1.0, -2.0], "is_greedy": [True, False]},
    ]
    found = read_outputs(_write(tmp_path / "o.jsonl.gz", _lines(*records)))
    assert found == [one._replace(where=one.where) for one in found]
    assert (found[0].gold, found[1].written) == ("3", (("a", "b"), True))
    assert [one.is_greedy for one in found[2].likelihoods] == [True, False]
    _write(tmp_path / "bbh/sums.json", json.dumps({"outputs": [{"input": "x\n\nQ: One?\nA:", "prediction": "1"}]}))
    (one,) = read_outputs(tmp_path / "bbh")
    assert (one.name, one.question, one.group) == ("bbh/sums:0", "One?", "sums")


LOG = "*************************\n1st data\nQ: One?\nA: The answer is 3\npred_before :  3\npred_after : 3\nGT : 3\n"


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("o.jsonl", '{"name": "t:0", "output": "x"}\n{"name": "t:1", "out', "line 2 is no JSON, or only half a line"),
        ("o.jsonl", "", "holds no outputs"),
        ("o.jsonl", _lines({"name": "t:0"}), "line 1 has neither a text under 'output'"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": [1.0], "is_greedy": []}), "'is_greedy' is no list of 1 values"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": 3}), "line 1: 'logprobs' is 3, no list of numbers"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": []}), "line 1: 'logprobs' is .*, no list of numbers"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": None}), "line 1 has neither a text under 'output'"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": [-1.0, None]}), "'logprobs' holds None, which is no number"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": [float("nan")]}), "'logprobs' holds nan, which is no number"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": ["Infinity"]}), "'logprobs' holds 'Infinity', which is no num"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": [-(10**400)]}), "'logprobs' holds -10*, which is no number"),
        ("o.jsonl", _lines({"name": "t:0", "logprobs": [-1], "num_tokens": ["-Infinity"]}), "'num_tokens' holds"),
        ("o.json", "[1]", "item 1 is no object"),
        ("o.log", LOG, "half-written"),
        ("o.log", LOG.replace("GT : 3\n", "") + "accuracy : 1\n", "item 1 has no gold answer"),
        ("o.log", "accuracy : 1\n", "holds no item"),
        ("o.jsonl.gz", None, "not a whole gzip file"),
    ],
)
def test_bad_outputs_are_refused(tmp_path, file, text, match):
    path = tmp_path / file
    if text is None:
        path.write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    else:
        _write(path, text)
    with pytest.raises(UserError, match=match):
        read_outputs(path)


def test_infinite_numbers_are_read_as_they_are_written(tmp_path):
    values = [-math.inf, math.inf, -1.5, 0]
    written = json.dumps(as_json({"a": values, "b": math.nan}), allow_nan=False)
    assert json.loads(written)["b"] is None
    assert [as_number(one) for one in json.loads(written)["a"]] == values
    assert as_number("1") is as_number(None) is None
    (one,) = read_outputs(_write(tmp_path / "o.jsonl", _lines({"name": "t:0", "logprobs": as_json([-math.inf, -1])})))
    assert [reply.logprob for reply in one.likelihoods] == [-math.inf, -1]


def test_a_log_of_zero_shot_chain_of_thought(tmp_path):
    (one,) = read_outputs(_write(tmp_path / "o.log", LOG + "*************************\naccuracy : 100.0\n"))
    assert (one.question, one.gold, one.written) == ("One?", "3", ((" 3",), True))
    # Its own reader dropped every comma, and the published figures are so.
    text = LOG.replace("pred_before :  3", "pred_before :  3,4, or 3") + "accuracy : 0.0\n"
    assert read_outputs(_write(tmp_path / "o.log", text))[0].written == ((" 34, or 3",), True)


def test_judgements_and_tables(tmp_path):
    judged = [{"preference": value} for value in (1, 2.0, "2", 0, None)]
    assert read_preferences(_write(tmp_path / "j.json", json.dumps(judged))) == [1, 2, 2, 0, None]
    with pytest.raises(UserError, match="item 1 has no 'preference'"):
        read_preferences(_write(tmp_path / "j.json", '[{"preference": "better"}]'))
    row = {"UID": "a", "linguistics_term": "b", "ngram": 0.5, "lstm": 0.5, "txl": 0.5, "gpt2": 1.5}
    with pytest.raises(UserError, match=r"'gpt2' is 1\.5, not in 0"):
        read_table(_write(tmp_path / "t.jsonl", _lines(row)))


def test_the_published_files_hold_what_their_authors_say(shared_data):
    """Items and guessing, of the sets that are quick to read."""
    sizes = {
        "aqua": 254,
        "bbh": 4261,
        "coin_flip": 500,
        "multiarith": 600,
        "svamp": 1000,
        "lambada": 2576,
        "cmmlu": 5664,
    }
    for name, size in sizes.items():
        task = load_task(name, shared_data)
        assert len(task.items) == size
    assert load_task("mmlu", shared_data).chance == 0.25
    cmmlu = load_task("cmmlu", shared_data)
    assert all("关于" in cmmlu.instruction(item) for item in cmmlu.items)
    assert set(TASKS) > set(sizes)


def test_cmmlu_names_the_subject_in_chinese(tmp_path):
    for name in ("agronomy", "my_own"):
        for folder in ("test", "dev"):
            (tmp_path / "cmmlu" / folder).mkdir(parents=True, exist_ok=True)
            _write(tmp_path / "cmmlu" / folder / f"{name}.csv", ",Question,A,B,C,D,Answer\n0,q,w,x,y,z,B\n")
    task = load_task("cmmlu", tmp_path)
    known, own = task.items
    assert task.instruction(known) == "以下是关于农学的单项选择题，请直接给出正确答案的选项。"
    assert task.instruction(own) == "以下是单项选择题，请直接给出正确答案的选项。"
