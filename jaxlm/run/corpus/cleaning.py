"""A recipe at work on a batch of documents: every step's account, and the note of every removed document."""

import dataclasses
import functools
import hashlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.data.ledger import Ledger
from jaxlm.io.shards import Record, Removal, removal
from jaxlm.text.recipe import run_steps
from jaxlm.text.steps import Recipe, Step


class Stopwatch:
    """Processor time by name, over the bytes that it was spent on: ``spent[name]`` is [seconds, bytes]."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self._start = time.process_time()

    def start(self) -> None:
        """What is lapped next begins here."""
        self._start = time.process_time()

    def lap(self, name: str, num_bytes: int) -> None:
        """Notes the time since the start, or the last lap."""
        now = time.process_time()
        total = self.spent.setdefault(name, [0.0, 0])
        total[0] += now - self._start
        total[1] += num_bytes
        self._start = now


class Cleaner:
    """Runs recipes over batches and keeps the account. Times differ from run to run: they stand apart from it."""

    def __init__(self, ledger: Ledger, note: Callable[[Removal], None], watch: Stopwatch) -> None:
        self._watch = watch
        self._ledger = ledger
        self._note = note

    def clean(self, records: Sequence[Record], recipe: Recipe) -> list[Record]:
        """The documents that pass, as edited. All are of one source; the batch should hold 1 to 4 MB."""
        texts = [record.text for record in records]
        sizes = [len(text.encode()) for text in texts]
        alive = list(range(len(texts)))
        self._watch.start()
        for result in run_steps(texts, recipe):
            if not result.before:
                break
            name, size_in = recipe[result.place].name, sum(sizes[i] for i in result.before)
            self._watch.lap(name, size_in)
            account = self._ledger.at(records[0].source, name)
            account.documents_in += len(result.before)
            account.bytes_in += size_in
            account.changed += len(result.changes)
            account.changes += sum(result.changes.values())
            for i in result.changes:
                sizes[i] = len(texts[i].encode())
            for i, why in result.removed.items():
                # An edit that leaves nothing: the excerpt is of what there was.
                gone = records[i]._replace(text=texts[i] or records[i].text)
                note = removal(gone, name, why.reason, why.value)
                account.remove(why.reason, sample_of(note))
                self._note(note)
            alive = result.after
            account.documents_out += len(alive)
            account.bytes_out += sum(sizes[i] for i in alive)
            self._watch.start()
        return [records[i]._replace(text=texts[i]) for i in alive]


def sample_of(note: Removal) -> dict[str, object]:
    """A removed document as a ledger shows it."""
    value = None if math.isnan(note.value) else round(note.value, 6)
    return {"origin": note.origin, "value": value, "detail": note.detail, "excerpt": note.excerpt[:160]}


def describe(step: Step) -> dict[str, object]:
    """A step as plain values: its name and its thresholds."""
    fields = getattr(step, "__dataclass_fields__", {})
    described: dict[str, object] = {"step": step.name}
    return described | {name: plain(getattr(step, name)) for name in fields}


def plain(value: Any) -> Any:
    """Any value of a config as JSON data, the same in every process: dataclasses by their fields, arrays by their
    hash, functions (a score) by their names and what they are bound to."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list | set | frozenset):
        return [plain(one) for one in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"{value.dtype}{list(value.shape)} {digest[:16]}"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, functools.partial):
        return {"function": plain(value.func), "of": plain([*value.args, value.keywords])}
    name = getattr(value, "__qualname__", None)
    if name is None:
        return f"a {type(value).__module__}.{type(value).__qualname__}"  # not its repr, which may be its address
    owner = getattr(value, "__self__", None)
    bound = owner is not None and not isinstance(owner, type(sys))  # a builtin's is its module
    return {"function": name, "of": plain(owner)} if bound else f"{value.__module__}.{name}"
