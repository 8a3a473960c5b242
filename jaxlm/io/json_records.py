"""Records of JSON files, packed (.gz) or not, each with its place: objects on lines (.jsonl) or in an array (.json)."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError


def read_bytes(path: Path) -> bytes:
    """What a file holds, unpacked. Raises UserError where it cannot be read."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line that is not blank stands ("FILE line 3"), and its object; one line at a time is in memory.

    Raises UserError where the file cannot be read, and for a line that is no object.
    """
    where = str(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                where = f"{path} line {number}"
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise UserError(f"{where} holds no object {{...}}")
                yield where, record
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no UTF-8 text: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON, or only half a line: {error}") from error


def json_items(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each item of the array that the file holds stands ("FILE item 3"), and its object. Raises UserError for
    anything else."""
    try:
        items = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(items, list):
        raise UserError(f"{path} holds no array [...]: put one object on each line and name it .jsonl")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise UserError(f"{path} item {number}: no object {{...}}")
        yield f"{path} item {number}", item


def json_records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each record stands, and the record, of a .jsonl or .json file (.gz)."""
    path = Path(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in (".jsonl", ".json"):
        raise UserError(f"{path}: name a .jsonl file (an object a line) or a .json file (an array of objects)")
    return json_lines(path) if suffix == ".jsonl" else json_items(path)


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, EOFError | zlib.error):
        return UserError(f"{path} is not a whole gzip file ({error}): copy it again")
    return UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
