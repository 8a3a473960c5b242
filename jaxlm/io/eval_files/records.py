"""Reading evaluation files, packed (.gz) or not: whole texts, JSON, JSON lines, CSV; a field that must be there."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.evals.tasks.task import Item
from jaxlm.io.json_records import json_lines, read_bytes
from jaxlm.io.run_dir import json_ready


class Content(NamedTuple):
    """What the files of a task hold."""

    items: Sequence[Item]
    shots: Sequence[Item] = ()
    instructions: Mapping[str, str] = {}
    """By group."""
    split: str = ""
    """Which part of the published set it is, where there is a choice."""


def read_text(path: Path) -> str:
    """The text of a file. Raises UserError where it cannot be read, unpacked or decoded."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error}") from error


def read_json(path: Path) -> Any:
    """The value that a JSON file holds."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON, or only half of it: {error}") from error


def json_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `json_lines`, of a file that is one array of objects or has an object a line."""
    if ".jsonl" in path.suffixes:
        yield from json_lines(path)
        return
    value = read_json(path)
    for number, record in enumerate(value if isinstance(value, list) else [value], start=1):
        if not isinstance(record, dict):
            raise UserError(f"{path} item {number} is no object {{...}}")
        yield f"{path} item {number}", record


def csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where each row ends ("FILE line 3") and its cells; empty rows are left out."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            if row:
                yield f"{path} line {reader.line_num}", row
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: {error}") from error


def field(record: dict[str, Any], name: str, where: str) -> str:
    """A text or number under ``name``, as text. Raises UserError where it is missing or empty."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        there = ", ".join(map(str, record))
        raise UserError(f"{where} has no {name!r} ({value!r}; it has {there}): mend or remove it")
    return number_text(value) if isinstance(value, float) else str(value)


def number_text(value: float) -> str:
    """A number as people write it: 39.0 is "39"."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def as_json(value: Any) -> Any:
    """The same for JSON, which has no such numbers: infinite ones as "Infinity" and "-Infinity", NaN as None."""
    return json_ready(value, _INFINITE)


def as_number(value: Any) -> float | None:
    """A number that JSON holds, infinite ones as `as_json` writes them; None for NaN, and for what is no number."""
    if isinstance(value, str):
        return next((number for number, text in _INFINITE.items() if value == text), None)
    try:
        return float(value) if isinstance(value, int | float) and not math.isnan(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


_INFINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


def find_files(task: str, data: Path, folders: Sequence[str], *patterns: str) -> list[Path]:
    """Files of a task below ``data``, sorted by name: of the first folder ("" = ``data`` itself) that has any which
    fits a pattern, packed or not. Raises UserError where none has."""
    if not data.is_dir():
        raise UserError(f"--data {data} is no directory: name the one that holds the task files")
    for folder in folders:
        found = {path for pattern in patterns for end in ("", ".gz") for path in (data / folder).glob(pattern + end)}
        if found:
            return sorted(found)
    places = ", ".join(f"{folder or '.'}/{patterns[0]}[.gz]" for folder in folders)
    raise UserError(f"task {task!r} has no files in {data}: looked for {places}")


def stem(path: Path) -> str:
    """A file's name up to its first dot."""
    return path.name.partition(".")[0]
