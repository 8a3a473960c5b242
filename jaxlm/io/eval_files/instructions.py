"""Prompts with constraints that a program can check: our own files, and those of IFEval (Zhou et al. 2023).

Ours has an object on a line: ``prompt``, ``constraints`` (a list of objects with ``id`` and the constraint's
arguments), and if wanted ``name`` and ``group``. IFEval's: ``key``, ``prompt``, ``instruction_id_list``, ``kwargs``.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.instructions.grading import Constraint
from jaxlm.evals.instructions.ifeval import constraint_of
from jaxlm.evals.tasks.task import Item
from jaxlm.io.eval_files.records import Content, field, find_files
from jaxlm.io.json_records import json_lines
from jaxlm.io.run_dir import write_text


def load_instructions(data: Path) -> Content:
    """Our files, ``instructions*.jsonl``."""
    items = []
    for where, record in _lines("instructions", data, ("instructions", ""), "instructions*.jsonl"):
        listed = record.get("constraints")
        if not isinstance(listed, list) or not all(isinstance(one, dict) and "id" in one for one in listed):
            raise UserError(f"{where} has no list of 'constraints', each with an 'id'")
        constraints = [
            _made(where, lambda one: Constraint(one["id"], {k: v for k, v in one.items() if k != "id"}), one)
            for one in listed
        ]
        name, group = record.get("name"), record.get("group")
        name = f"instructions:{len(items)}" if name is None else str(name)
        items.append(_item(name, field(record, "prompt", where), constraints, "" if group is None else str(group)))
    return Content(items, ())


def load_ifeval(data: Path) -> Content:
    """IFEval's ``input_data.jsonl``, or files of its form."""
    items = []
    names: set[str] = set()
    folders = ("ifeval", "instruction_following_eval/data", "")
    for where, record in _lines("ifeval", data, folders, "*input_data.jsonl", "ifeval*.jsonl"):
        ids, arguments = record.get("instruction_id_list"), record.get("kwargs")
        if not isinstance(ids, list) or not isinstance(arguments, list) or len(ids) != len(arguments):
            raise UserError(f"{where}: 'instruction_id_list' and 'kwargs' are no lists of one length")
        constraints = [
            _made(where, lambda pair: constraint_of(*pair), (name, {} if given is None else given))
            for name, given in zip(ids, arguments, strict=True)
        ]
        name = f"ifeval:{record.get('key', len(items))}"
        if name in names:  # a published file has one key twice
            name = f"{name}-{len(items)}"
        names.add(name)
        items.append(_item(name, field(record, "prompt", where), constraints))
    return Content(items, ())


def write_instructions(path: Path, items: Sequence[Item]) -> None:
    """A file of our form."""
    lines = [
        {
            "name": item.name,
            "prompt": item.question,
            "group": item.group,
            "constraints": [{"id": one.name, **one.arguments} for one in item.constraints],
        }
        for item in items
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _lines(task: str, data: Path, folders: Sequence[str], *patterns: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in find_files(task, data, folders, *patterns):
        yield from json_lines(path)


def _made(where: str, make: Callable[[Any], Constraint], given: Any) -> Constraint:
    try:
        return make(given)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error


def _item(name: str, prompt: str, constraints: list[Constraint], group: str = "") -> Item:
    return Item(name, prompt, constraints=tuple(constraints), group=group)
