"""GSM8K, SVAMP, MultiArith and AQuA: questions in words whose answer is a number, or the letter of one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.extraction import Extraction
from jaxlm.evals.tasks.task import Item
from jaxlm.io.eval_files.records import Content, field, find_files, json_objects, stem
from jaxlm.io.json_records import json_lines

LETTERS = "ABCDE"
_NUMBER = Extraction("number")
_MARK = re.compile(r"<<[^<>]*>>")


def load_gsm8k(data: Path) -> Content:
    """Objects with ``question`` and ``answer``: steps, with <<...>> of a calculator in them, and ``#### 72``. The test
    set, if it is there, with examples from the training set beside it, else the training set."""
    path, *others = find_files("gsm8k", data, ("reasoning/gsm8k", "gsm8k", ""), "test.jsonl", "train.jsonl")
    content = _checked(list(_gsm8k(path, "gsm8k:")))._replace(split=stem(path))
    train = next((one for one in others if stem(one) == "train" != stem(path)), None)
    return content if train is None else content._replace(shots=_checked(list(_gsm8k(train, "gsm8k:train"))).items)


def _gsm8k(path: Path, prefix: str) -> Iterator[Item]:
    for number, (where, record) in enumerate(json_lines(path)):
        steps, mark, answer = field(record, "answer", where).partition("####")
        if not mark or not answer.strip():
            raise UserError(f"{where} has no gold answer: nothing stands behind ####")
        solution = " ".join(_MARK.sub("", steps).split()) + " "
        yield Item(f"{prefix}{number}", field(record, "question", where), answer.strip(), solution=solution)


def load_svamp(data: Path) -> Content:
    """SVAMP (Patel et al. 2021): objects with ``input`` and ``target``."""
    return _checked(list(_inputs("svamp", data, "svamp.jsonl")))


def load_multiarith(data: Path) -> Content:
    """MultiArith (Roy and Roth 2015): objects with ``sQuestion`` and ``lSolutions``, or ``input`` and ``target``."""
    folders = ("reasoning/zero_shot_cot", "zero_shot_cot", "dataset/MultiArith", "reasoning/pal", "pal", "")
    path = find_files("multiarith", data, folders, "*MultiArith.json", "mawpsmultiarith.jsonl")[0]
    if ".jsonl" in path.suffixes:
        return _checked(list(_inputs("multiarith", data, "mawpsmultiarith.jsonl")))
    items = []
    for where, record in json_objects(path):
        solutions = record.get("lSolutions")
        if not isinstance(solutions, list) or not solutions:
            raise UserError(f"{where} has no gold answer under 'lSolutions'")
        answer = field({"lSolutions": solutions[0]}, "lSolutions", where)
        items.append(Item(f"multiarith:{len(items)}", field(record, "sQuestion", where).strip(), answer))
    return _checked(items)


def load_aqua(data: Path) -> Content:
    """AQuA (Ling et al. 2017): objects with ``question``, ``options`` ("A)21", ...), ``correct``, and the steps under
    ``rationale``, if known."""
    items = []
    folders = ("reasoning/zero_shot_cot", "zero_shot_cot", "dataset/AQuA", "aqua", "")
    path = find_files("aqua", data, folders, "*AQuA*.json", "test.json")[0]
    for where, record in json_lines(path):
        options = record.get("options")
        if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
            raise UserError(f"{where} has no list of 2 to {len(LETTERS)} 'options'")
        answer = field(record, "correct", where)
        if len(answer) != 1 or answer not in LETTERS[: len(options)]:
            raise UserError(f"{where}: the gold answer {answer!r} is out of range, its choices are A to "
                            f"{LETTERS[len(options) - 1]}")  # fmt: skip
        bare = next((option for option in options if ")" not in str(option)), None)
        if bare is not None:
            raise UserError(f"{where}: the option {bare!r} has no letter with a bracket, as in 'A)21', in front")
        listed = " ".join("({}) {}".format(*map(str.strip, str(option).split(")", 1))) for option in options)
        items.append(
            Item(
                name=f"aqua:{len(items)}",
                question=f"{field(record, 'question', where).strip()} Answer Choices: {listed}",
                answer=answer,
                choices=tuple(LETTERS[: len(options)]),
                gold=LETTERS.index(answer),
                solution=_rationale(record),
            )
        )
    return Content(items, items)


def _rationale(record: dict[str, Any]) -> str:
    steps = record.get("rationale")
    return " ".join(steps.split()) + " " if isinstance(steps, str) and steps.strip() else ""


def _inputs(task: str, data: Path, name: str) -> Iterator[Item]:
    path = find_files(task, data, ("reasoning/pal", "pal", ""), name)[0]
    for number, (where, record) in enumerate(json_lines(path)):
        yield Item(f"{task}:{number}", field(record, "input", where), field(record, "target", where))


def _checked(items: list[Item]) -> Content:
    for item in items:
        if _NUMBER.read(item.answer, behind_cue=True) is None:
            raise UserError(f"{item.name}: the gold answer {item.answer!r} is no number")
    return Content(items, items)
