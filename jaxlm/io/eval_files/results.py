"""Results of a task, item by item, as JSON lines: written as they come, kept over a kill, never mixed with others'."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.config_json import diff_fields
from jaxlm.io.run_dir import json_ready, write_json


class ItemResults:
    """``TASK.jsonl``, an object with ``name`` for each finished item, and ``TASK.settings.json``, how they were made.
    A ``shard`` (i, n) writes ``TASK.shard-i-of-n.jsonl``; what any file of the task holds is finished.

    Raises UserError where items lie there that were made otherwise, and for a line that is no item; the last line may
    be half-written (a kill in the middle of it), and its item is then made again.
    """

    def __init__(self, directory: Path, task: str, settings: Mapping[str, Any], shard: tuple[int, int] | None = None):
        part = "" if shard is None else f".shard-{shard[0]}-of-{shard[1]}"
        self.path, settings_path = directory / f"{task}{part}.jsonl", directory / f"{task}.settings.json"
        directory.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(json_ready(settings)))
        if settings_path.exists():
            differ = diff_fields(json.loads(settings_path.read_text(encoding="utf-8")), wanted)
            if differ:
                how = ", ".join(f"{name} was {old}, now {new}" for name, (old, new) in differ.items())
                raise UserError(f"{self.path} was made otherwise ({how}): name another --out, or remove it")
        elif self.path.exists():
            raise UserError(f"{self.path} has no {settings_path.name} that says how it was made: name another --out")
        else:
            write_json(settings_path, wanted)
        others = sorted({directory / f"{task}.jsonl", *directory.glob(f"{task}.shard-*.jsonl")} - {self.path})
        self.finished = {name: record for path in [*others, self.path] for name, record in _read(path).items()}
        if self.path.exists():
            whole, end, rest = self.path.read_bytes().rpartition(b"\n")
            if rest:
                self.path.write_bytes(whole + end)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes finished items at once."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(json_ready(record), ensure_ascii=False) + "\n" for record in records))
        self.finished.update({record["name"]: dict(record) for record in records})


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The items of a file by name, but for a last line without an end: of a kill, or of one who writes just now."""
    if not path.exists():
        return {}
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(whole.split("\n") if whole else [], start=1):
        try:
            record = json.loads(line)
            found[record["name"]] = record
        except (ValueError, TypeError, KeyError) as error:
            where = f"{path} line {number}"
            raise UserError(f"{where} is no result of an item: remove the line, and its item is made again") from error
    return found
