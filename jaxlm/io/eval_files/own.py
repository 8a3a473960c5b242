"""A task of your own, as one file of JSON lines: how its items are put on the first, an item on each of the others.

    {"form": {"kind": "choice", "template": {"layout": "Q: {question}\\nA:"}}}
    {"question": "Which is a bird?", "choices": ["crow", "cow"], "gold": 0, "group": "animals"}

``form`` has the fields of `evals.tasks.task.Form`, of which ``kind`` alone must be there; an item those of `Item`, and
``"shot": true`` where it is an example for prompts and not asked.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.tasks.task import Form, Item, Task
from jaxlm.io.config_json import config_to_dict, decode_config, near_names
from jaxlm.io.eval_files.records import number_text, stem
from jaxlm.io.json_records import json_lines
from jaxlm.text.tokenizer import check_text

KINDS = ("choice", "pair", "cloze", "text", "answer")
"""Those that such a file can be of; instructions have files of their own (`io.eval_files.instructions`)."""
_FIELDS = ("name", "question", "answer", "choices", "gold", "solution", "group", "cluster")


def is_own(name: str) -> bool:
    """Whether the name of a task is that of a file."""
    return name.endswith((".jsonl", ".jsonl.gz"))


def load_own(path: Path, *, taken: Mapping[str, Any]) -> Task:
    """The task of a file, named as the file is. Raises UserError, by file and line, for what is no such task, and for
    the name of one that is ``taken``."""
    name = stem(path)
    if name in taken or not re.fullmatch(r"[\w-]+", name):
        raise UserError(
            f"{path}: {name!r} can be no task of your own, it is published or holds other signs than letters, digits, "
            "- and _: rename the file"
        )
    form: Form | None = None
    items: list[Item] = []
    shots: list[Item] = []
    lines: dict[str, str] = {}
    for where, record in json_lines(path):
        if form is None:
            form = _form(record, where)
            continue
        is_shot = record.pop("shot", False)
        if not isinstance(is_shot, bool):
            raise UserError(f"{where}: 'shot' is {is_shot!r}: write true for an example, or leave it out")
        item = _item(record, form, f"{name}:{len(lines)}", where)
        if item.name in lines:
            raise UserError(f"{where} has the name {item.name!r} of {lines[item.name]}: give each another")
        lines[item.name] = where
        (shots if is_shot else items).append(item)
    if form is None or not items:
        raise UserError(f"{path} has no items: the first line says how they are put, each other holds one")
    return Task(name, form, tuple(items), tuple(shots or items))


def _form(record: dict[str, Any], where: str) -> Form:
    given = record.get("form")
    if not isinstance(given, dict) or given.get("kind") not in KINDS or len(record) > 1:
        raise UserError(
            f'{where} is to say how items are put, as in {{"form": {{"kind": "choice"}}}}; kinds are {", ".join(KINDS)}'
        )
    default = config_to_dict(Form(given["kind"]))
    parts = {
        name: default[name] | value if isinstance(value, dict) and isinstance(default.get(name), dict) else value
        for name, value in given.items()
    }
    form: Form = decode_config(Form, default | parts, f"{where}: form")
    if form.kind != "pair" and "{question}" not in form.template.layout:
        raise UserError(f"{where}: form.template.layout={form.template.layout!r} has no {{question}} in it: say where")
    if not all((*form.stop, *(form.steps_stop or ()))) or min(form.max_new_tokens, form.max_reasoning_tokens) < 1:
        raise UserError(f"{where}: form has an empty stop string, or fewer new tokens than 1: leave it out")
    if not form.extraction.letters.isalnum():
        raise UserError(f"{where}: form.extraction.letters={form.extraction.letters!r} is to be letters, as in 'ABCD'")
    return form


def _item(record: dict[str, Any], form: Form, name: str, where: str) -> Item:
    """An item that has all that its kind needs, its answer and the place of it each filled in from the other."""
    unknown = next((key for key in record if key not in _FIELDS), None)
    if unknown is not None:
        raise UserError(f"{where} has an unknown field {unknown!r}{near_names(unknown, _FIELDS)}")
    record = {key: value for key, value in record.items() if value is not None}
    answer, choices, gold = record.get("answer"), record.get("choices"), record.get("gold")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        record["answer"] = answer = number_text(float(answer)) if isinstance(answer, float) else str(answer)
    if form.kind == "choice" and choices is None and form.choices:
        record["choices"] = choices = list(form.choices)
    if isinstance(choices, list):
        if gold is None:
            gold = 0 if form.kind == "pair" else next((i for i, one in enumerate(choices) if one == answer), None)
            record["gold"] = gold
        if answer is None and type(gold) is int and 0 <= gold < len(choices):
            record["answer"] = choices[gold]
    item: Item = decode_config(Item, config_to_dict(Item(name, "")) | record, where)
    for text in (item.name, item.question, item.answer, item.solution, *item.choices):
        _check_characters(text, where)
    fault = _fault(item, form)
    if fault:
        raise UserError(f"{where} {fault}")
    return item


def _check_characters(text: str, where: str) -> None:
    try:
        check_text(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _fault(item: Item, form: Form) -> str:
    """What an item lacks, "" for nothing."""
    if not item.name.strip():
        return "has an empty 'name': leave it out"
    if form.kind != "pair" and not item.question.strip():
        return "has no 'question'"
    if form.kind in ("choice", "pair"):
        if len(item.choices) < 2 or (form.kind == "pair" and len(item.choices) > 2):
            return f"has {len(item.choices)} 'choices': a pair has two, a choice two or more"
        if item.gold is None:
            return f"does not say which choice is right: give 'gold' (0 = first); 'answer' is {item.answer!r}"
        if not all(choice.strip() for choice in item.choices):
            return "has an empty choice"
        if item.answer != item.choices[item.gold]:
            return f"has the answer {item.answer!r}, and choice {item.gold} is {item.choices[item.gold]!r}: mend one"
    elif form.kind != "text" and not item.answer.strip():
        return "has no gold answer: give 'answer'"
    if form.kind == "answer" and form.extraction.read(item.answer, behind_cue=True) is None:
        return f"has the answer {item.answer!r}, which is no {form.extraction.form}"
    return ""
