"""Files of labelled data: JSONL (an object a line) and TSV (names in the first line). Errors name file and line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.data.examples import Example
from jaxlm.io.config_json import near_names
from jaxlm.io.json_records import json_lines


def read_examples(path: str | Path, text_columns: tuple[str, ...], label_column: str, *, words: bool) -> list[Example]:
    """The examples of a ``.jsonl`` or ``.tsv`` file.

    ``words``: the one text column holds a list of words and the label column a list of as many tags (in TSV, both with
    single spaces between); else texts are text and labels a text or a number.

    Raises:
      UserError: no such file, no example in it, a line that does not parse, a column that is missing, empty or of
        another type.
    """
    path = Path(path)
    examples = []
    for where, record in _records(path):
        for name in (*text_columns, label_column):
            if record.get(name) is None:
                raise UserError(f"{where} has no {name!r}{near_names(name, record)} (it has {', '.join(record)})")
        if words:
            columns = [_list(record[name], name, where) for name in (text_columns[0], label_column)]
            if len(columns[0]) != len(columns[1]):
                raise UserError(f"{where} has {len(columns[0])} words and {len(columns[1])} tags: give one for each")
            examples.append(Example(columns[0], columns[1], where))
        else:
            texts = tuple(_text(record[name], name, where) for name in text_columns)
            examples.append(Example(texts, (_label(record[label_column], label_column, where),), where))
    if not examples:
        raise UserError(f"{path} holds no examples: put one on each line")
    return examples


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line that is not blank stands ("FILE line 3"), and its columns."""
    if path.suffix not in (".jsonl", ".tsv"):
        raise UserError(f"{path} is no labelled data: name a .jsonl or .tsv file")
    if path.suffix == ".jsonl":
        yield from json_lines(path)
        return
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    names: list[str] | None = None
    for number, raw in enumerate(lines, start=1):
        where = f"{path} line {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
            if not line.strip():
                continue
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: {error}") from error
        cells = line.split("\t")
        if names is None:
            names = cells
            continue
        if len(cells) != len(names):
            raise UserError(f"{where} has {len(cells)} columns, the first line names {len(names)}")
        yield where, dict(zip(names, cells, strict=True))


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {name!r} is of type {type(value).__name__}, not text")
    return value


def _label(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str | int | float) or value == "":
        raise UserError(f"{where}: {name!r} is {value!r}, neither a text nor a number")
    return value if isinstance(value, str) else json.dumps(value)


def _list(value: Any, name: str, where: str) -> tuple[str, ...]:
    items = value.split(" ") if isinstance(value, str) else value
    if not isinstance(items, list) or not items or not all(isinstance(item, str) and item for item in items):
        raise UserError(f"{where}: {name!r} is not a list of words")
    return tuple(items)
