"""Results of a task, item by item, as JSON lines: written as they come, kept over a kill, never mixed with others'."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.config_json import diff_fields
from jaxlm.io.eval_files.records import as_json, as_number
from jaxlm.io.run_dir import write_json

Check = Callable[[Mapping[str, Any]], None]
"""Raises ValueError for an item that lacks something."""


class ItemResults:
    """``TASK.jsonl``, an object for each finished item, with ``name``, ``scores`` and ``truncated``, and
    ``TASK.settings.json``, how they were made; without an item it counts for nothing.
    A ``shard`` (i, n) writes ``TASK.shard-i-of-n.jsonl``; what any file of the task holds is finished.

    Raises UserError where items lie there that were made otherwise, and for a line that is no item, or not by
    ``check``; the last line may be half-written (a kill in the middle of it), and its item is then made again.
    """

    def __init__(
        self,
        directory: Path,
        task: str,
        settings: Mapping[str, Any],
        shard: tuple[int, int] | None = None,
        *,
        check: Check = lambda record: None,
    ):
        part = "" if shard is None else f".shard-{shard[0]}-of-{shard[1]}"
        self.path, self._settings_path = directory / f"{task}{part}.jsonl", directory / f"{task}.settings.json"
        self._settings = json.loads(json.dumps(as_json(settings)))
        self._directory, self._task, self._is_agreed = directory, task, False
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{directory} cannot be a folder of results ({error.strerror}): name another") from error
        self._agree()
        self.finished = {name: record for path in self._paths() for name, record in _read(path, check).items()}
        if self.path.exists():
            whole, end, rest = self.path.read_bytes().rpartition(b"\n")
            if rest:
                self.path.write_bytes(whole + end)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes finished items at once."""
        if not self._is_agreed and not self._agree():
            write_json(self._settings_path, self._settings)
        self._is_agreed = True
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(as_json(record), ensure_ascii=False) + "\n" for record in records))
        self.finished.update({record["name"]: dict(record) for record in records})

    def _paths(self) -> list[Path]:
        """The task's files, this one last."""
        others = {self._directory / f"{self._task}.jsonl", *self._directory.glob(f"{self._task}.shard-*.jsonl")}
        return [*sorted(others - {self.path}), self.path]

    def _agree(self) -> bool:
        """Whether items lie there. Raises UserError where they were made otherwise, or nothing says how."""
        held = [path for path in self._paths() if _has_a_line(path)]
        if not held:
            return False
        items = ", ".join(map(str, held))
        remove = f"name another --out, or remove {items} and {self._settings_path}"
        if not self._settings_path.exists():
            raise UserError(f"{items} has no {self._settings_path.name} that says how it was made: {remove}")
        try:
            old = json.loads(self._settings_path.read_text(encoding="utf-8"))
            if not isinstance(old, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise UserError(f"{self._settings_path} is no JSON object, or only half of one: {remove}") from error
        differ = diff_fields(old, self._settings)
        if differ:
            how = ", ".join(f"{name} was {old}, now {new}" for name, (old, new) in differ.items())
            raise UserError(f"{items} was made otherwise ({how}): {remove}")
        return True


def _has_a_line(path: Path) -> bool:
    if not path.exists():
        return False
    with open(path, "rb") as file:
        return file.readline().endswith(b"\n")


def _read(path: Path, check: Check) -> dict[str, dict[str, Any]]:
    """The items of a file by name, but for a last line without an end: of a kill, or of one who writes just now."""
    if not path.exists():
        return {}
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(whole.split("\n") if whole else [], start=1):
        try:
            record = _item(json.loads(line))
            check(record)
        except (ValueError, RecursionError) as error:
            where = f"{path} line {number}"
            raise UserError(f"{where} is no result of an item: remove the line, and its item is made again") from error
        found[record["name"]] = record
    return found


def _item(record: Any) -> dict[str, Any]:
    """What every item has, its scores as numbers again. Raises ValueError where something is missing."""
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        raise ValueError("no name")
    if not isinstance(record.get("truncated"), int) or not isinstance(record.get("scores"), dict):
        raise ValueError("no scores")
    scores = {name: as_number(value) for name, value in record["scores"].items()}
    if None in scores.values():
        raise ValueError("a score that is no number")
    return {**record, "scores": scores}
