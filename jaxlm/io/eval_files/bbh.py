"""BIG-Bench Hard (Suzgun et al. 2022): subtasks of one JSON file each, with three worked examples for all prompts."""

import re
from collections.abc import Iterator
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.evals.tasks.task import Item
from jaxlm.io.eval_files.records import Content, field, find_files, read_json, read_text, stem

LEAD = "So the answer is "
_LEAD = re.compile(r"[Ss]o the answer is ")


def load_bbh(data: Path) -> Content:
    """``tasks/NAME.json`` with ``examples`` of ``input`` and ``target``, and ``cot-prompts/NAME.txt``."""
    folders = ("icl/bbh", "bbh", "")
    items: list[Item] = []
    for path in find_files("bbh", data, folders, "tasks/*.json", "bbh/*.json"):
        items += _examples(path)
    shots: list[Item] = []
    instructions: dict[str, str] = {}
    for path in find_files("bbh", data, folders, "cot-prompts/*.txt"):
        instructions[stem(path)], worked = read_prompt(path)
        shots += worked
    return Content(items, shots, instructions)


def _examples(path: Path) -> Iterator[Item]:
    value = read_json(path)
    examples = value.get("examples") if isinstance(value, dict) else None
    if not isinstance(examples, list):
        raise UserError(f"{path} holds no object with a list of 'examples'")
    for number, record in enumerate(examples):
        where = f"{path} example {number + 1}"
        if not isinstance(record, dict):
            raise UserError(f"{where} is no object {{...}}")
        name = stem(path)
        answer = field(record, "target", where)
        yield Item(f"bbh/{name}:{number}", field(record, "input", where), answer, group=name)


def read_prompt(path: Path) -> tuple[str, list[Item]]:
    """(instruction, worked examples) of a prompt file: a canary, a line of dashes, then parts with empty lines between,
    of which all but the first are ``Q: ...``, ``A: Let's think step by step.``, steps and ``So the answer is ...``."""
    whole = read_text(path)
    text = whole.partition("\n-----\n")[2] or whole
    instruction, *parts = re.split(r"\n\n(?=Q: )", text.strip())
    items = []
    for number, part in enumerate(parts):
        question, mark, worked = part.removeprefix("Q: ").partition("\nA: Let's think step by step.\n")
        found = list(_LEAD.finditer(worked))
        if not mark or not found:
            raise UserError(f"{path} example {number + 1} has no gold answer behind {LEAD.strip()!r}")
        name = f"bbh/{stem(path)}:shot{number}"
        answer = worked[found[-1].end() :].strip().removesuffix(".")
        items.append(Item(name, question, answer, solution=worked[: found[-1].start()], group=stem(path)))
    return instruction, items
