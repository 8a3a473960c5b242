"""Where a corpus is built: a directory for each task of each stage, whole or not there.

A task writes into a hidden directory of its own, which takes its name when all is flushed. So a stage can be stopped
anywhere, run again, run on several machines at once, and each task's output stands exactly once.
"""

import dataclasses
import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.data.ledger import Ledger, merged

LEDGER = "ledger.json"
TIMES = "times.json"
"""What differs from run to run stands apart from what may not."""


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The stages of one corpus under ``root``; picklable, so that tasks carry it to other processes."""

    root: Path

    def stage(self, name: str) -> Path:
        """The directory of a stage."""
        return self.root / "stages" / name

    def task(self, name: str, number: int) -> Path:
        """The directory of a task."""
        return self.stage(name) / f"{number:05d}"

    def is_done(self, name: str, number: int) -> bool:
        """Whether the task's output stands."""
        return self.task(name, number).is_dir()

    def unfinished(self, name: str, num_tasks: int) -> list[int]:
        """The tasks of a stage that are still to be done."""
        return [number for number in range(num_tasks) if not self.is_done(name, number)]

    def paths(self, name: str, num_tasks: int, file: str) -> list[Path]:
        """One file of every task of a stage."""
        return [self.task(name, number) / file for number in range(num_tasks)]

    def ledger(self, name: str, num_tasks: int) -> Ledger:
        """What the tasks of a stage did, added up."""
        return merged(read_ledger(path) for path in self.paths(name, num_tasks, LEDGER))

    def remove_partial(self) -> None:
        """Removes what killed tasks have left. Only while no other process builds here."""
        for path in (self.root / "stages").glob("*/.*.partial"):
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def writing(self, name: str, number: int) -> Iterator[Path]:
        """A directory for the output of a task, which takes its name at the end. Should another process have finished
        the same task meanwhile, its output stays: both are the same."""
        place = self.task(name, number)
        # Two machines of a cluster may have processes of one number.
        partial = place.with_name(f".{place.name}.{socket.gethostname()}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for path in [*partial.rglob("*"), partial]:
                flush(path)
            try:
                os.rename(partial, place)
            except OSError:
                if not place.is_dir():
                    raise
            flush(place.parent)
        except (OSError, RuntimeError) as error:
            if _says_full(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _says_full(error: Exception) -> bool:
    """Whether a library says in words of its own that the disk is full: ArrayRecord's, NumPy's."""
    if isinstance(error, OSError) and error.errno is not None:
        return False  # it speaks for itself
    text = str(error)
    short = re.search(r"(\d+) requested and (\d+) written", text)
    return "No space left on device" in text or "Disk quota exceeded" in text or short is not None


def flush(path: Path) -> None:
    """Has the disk hold what was written, before a rename says so."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A step of the whole build, cut into tasks that know nothing of each other and can be done in any order."""

    name: str
    num_tasks: int
    work: Callable[[int, Path], None]
    """``work(number, directory)`` writes the task's output into the directory. Picklable, and a function of its number
    and of what earlier stages wrote."""
    doing: str = ""
    """For the person who waits."""

    def run(self, workspace: Workspace, number: int) -> None:
        """Does one task, unless it is done."""
        if not workspace.is_done(self.name, number):
            try:
                with workspace.writing(self.name, number) as directory:
                    self.work(number, directory)
            except Exception as error:
                error.add_note(f"in task {number} of stage {self.name}")
                raise


def require_documents(workspace: Workspace, stage: str, num_shards: int) -> None:
    """Raises UserError where a stage has left no document, with what took the most of them."""
    if any(json.loads(path.read_bytes())["documents"] for path in workspace.paths(stage, num_shards, "count.json")):
        return
    ledger = workspace.ledger(stage, num_shards)
    reasons = {
        (name, step, reason): count
        for name, steps in ledger.sources.items()
        for step, account in steps.items()
        for reason, count in account.reasons.items()
    }
    if not reasons:
        raise UserError("no document is left: the files of all sources are empty")
    (name, step, reason), count = max(reasons.items(), key=lambda item: item[1])
    raise UserError(
        f"no document is left: {sum(reasons.values())} went, the most of them ({count} of {name!r}) in step {step} "
        f"for {reason!r}: see bad.json and removed.parquet under {workspace.stage(stage)}, mend sources or recipe"
    )


def write_json(path: Path, data: Any) -> None:
    """The same data always gives the same bytes."""
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_ledger(path: Path) -> Ledger:
    """A task's ledger."""
    return Ledger.from_dict(json.loads(path.read_bytes()))
