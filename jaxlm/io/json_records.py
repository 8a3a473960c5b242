"""Records of JSON files, each with its number: objects on lines (.jsonl), or in one array (.json)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of each line that is not blank. Raises UserError for a line that is none."""
    number = 0
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError("no object {...}")
                    yield number, record
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise UserError(f"{path} line {number}: {error}") from error


def json_items(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and object of each item of the array that the file holds. Raises UserError for anything else."""
    try:
        items = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(items, list):
        raise UserError(f"{path} holds no array [...]: put one object on each line and name it .jsonl")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise UserError(f"{path} item {number}: no object {{...}}")
        yield number, item


def json_records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each record stands ("FILE line 3", "FILE item 3"), and the record, of a .jsonl or .json file."""
    path = Path(path)
    if path.suffix not in (".jsonl", ".json"):
        raise UserError(f"{path}: name a .jsonl file (an object a line) or a .json file (an array of objects)")
    lines = path.suffix == ".jsonl"
    for number, record in json_lines(path) if lines else json_items(path):
        yield f"{path} {'line' if lines else 'item'} {number}", record
