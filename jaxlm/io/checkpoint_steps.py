"""The step directories of a checkpoint directory: which of them count, which go, and how they go."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator

import orbax.checkpoint as ocp
from etils import epath

from jaxlm.io.checkpoint_format import UNSEALED_VERSION
from jaxlm.io.checksums import is_sealed, unseal

STATE, META, TRASH, UNFINISHED = "state", "meta", ".deleted", ".unfinished"
TEMPORARY = ".orbax-checkpoint-tmp"
"""What follows the step in the name that Orbax writes it under. It removes those too, at leisure and not always."""


def committed_steps(directory: epath.Path) -> list[int]:
    """The steps that count, ascending: those with checksums, and whole ones of a version that wrote none."""
    numbered = _numbered(directory)
    sealed = [step for step in numbered if is_sealed(directory / str(step))]
    rest = [step for step in numbered if step not in sealed and saved_version(directory / str(step)) is not None]
    return sorted(sealed + [step for step in rest if _is_whole_old_step(directory, step)])


def saved_version(path: epath.Path) -> int | None:
    """The format version that a step's record names; None where the record is missing or is none.

    Raises OSError for what may not or cannot be read now."""
    try:
        version = json.loads((path / META / "metadata").read_bytes())["format_version"]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return version if isinstance(version, int) else None


def is_old(path: epath.Path) -> bool:
    """Whether a step is of a version that wrote no checksums."""
    version = saved_version(path)
    return version is not None and version <= UNSEALED_VERSION


def mark_unfinished(directory: epath.Path, step: int) -> None:
    """Says that what lies under a step's name may go, until it is sealed: a save of it, or its removal, has begun."""
    _mark(directory, step).touch()


def unmark(directory: epath.Path, step: int) -> None:
    """Takes the mark away: what lies there without checksums has lost them."""
    _mark(directory, step).unlink(missing_ok=True)


def clear_unsealed(directory: epath.Path, say: Callable[[str], None]) -> None:
    """Takes what Orbax committed and nothing sealed out of the list, so that its step can be saved again.

    What a killed process left is marked as unfinished: it goes to the trash. Anything else has lost its checksums some
    other way, and is only renamed.
    """
    marked = _marked(directory)
    for step in sorted(_numbered(directory) - set(committed_steps(directory))):
        if step in marked:
            discard(directory, step)
            say(f"checkpoint {step} of {directory} was not finished when its process ended: removed")
        else:
            name = set_aside(directory, step)
            say(f"checkpoint {step} of {directory} is not whole, or its checksums are missing: renamed to {name}")
    for step in marked:
        for path in list(directory.glob(f"{step}{TEMPORARY}*")):
            _throw_away(directory, path)
        unmark(directory, step)


def name_unsealed(directory: epath.Path, say: Callable[[str], None]) -> None:
    """Names what `clear_unsealed` would rename; changes nothing. A save under way elsewhere is none of them."""
    marked = _marked(directory)  # first: a step is sealed before its mark goes

    def unsealed() -> set[int]:
        return _numbered(directory) - set(committed_steps(directory)) - marked

    for step in sorted(unsealed() & unsealed()):  # twice: one that is retired between two looks is none of them
        say(f"checkpoint {step} of {directory} is not whole, or its checksums are missing: passed over")


def set_aside(directory: epath.Path, step: int) -> str:
    """Renames a step to ``<step>.damaged``, numbered where that is taken, and returns the name. Deletes nothing."""
    name, number = f"{step}.damaged", 1
    while (directory / name).exists():
        number += 1
        name = f"{step}.damaged.{number}"
    (directory / str(step)).rename(directory / name)
    return name


def discard(directory: epath.Path, step: int) -> None:
    """Takes a step out of the list for good. Killed at any moment, it leaves the step whole or not listed."""
    path = directory / str(step)
    if not _renames_at_once(directory):
        mark_unfinished(directory, step)
        unseal(path)
    _throw_away(directory, path)
    if not _renames_at_once(directory):
        unmark(directory, step)


def purge(directory: epath.Path) -> None:
    """Empties the trash in threads: unlinking gigabytes takes time."""
    trash = directory / TRASH
    if not trash.exists():
        return
    busy = {thread.name for thread in purging(directory)}
    for child in trash.iterdir():
        name = f"{trash}/{child.name}"
        if name not in busy:
            threading.Thread(target=shutil.rmtree, args=(child, True), name=name, daemon=True).start()


def purging(directory: epath.Path) -> Iterator[threading.Thread]:
    """The threads that empty the trash."""
    return (thread for thread in threading.enumerate() if thread.name.startswith(f"{directory / TRASH}/"))


def _renames_at_once(directory: epath.Path) -> bool:
    """Object stores do not: they copy and delete, object by object."""
    return "://" not in os.fspath(directory)


def _throw_away(directory: epath.Path, path: epath.Path) -> None:
    """To the trash, or gone where there is none."""
    if _renames_at_once(directory):
        (directory / TRASH).mkdir(exist_ok=True)
        path.rename(directory / TRASH / f"{path.name}-{time.time_ns()}")
    else:
        path.rmtree()


def _mark(directory: epath.Path, step: int) -> epath.Path:
    return directory / f"{step}{UNFINISHED}"


def _marked(directory: epath.Path) -> set[int]:
    if not directory.exists():
        return set()
    names = [path.name.removesuffix(UNFINISHED) for path in directory.iterdir() if path.name.endswith(UNFINISHED)]
    return {int(name) for name in names if name.isascii() and name.isdecimal()}


def _numbered(directory: epath.Path) -> set[int]:
    if not directory.exists():
        return set()
    names = [path.name for path in directory.iterdir()]
    return {int(name) for name in names if name.isascii() and name.isdecimal() and str(int(name)) == name}


def _is_whole_old_step(directory: epath.Path, step: int) -> bool:
    path = directory / str(step)
    if not is_old(path):
        return False
    parts = all((path / name).exists() for name in ("_CHECKPOINT_METADATA", STATE, META))
    return parts and step in ocp.path.step.checkpoint_steps(directory)
