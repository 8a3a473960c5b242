"""Before and after writing: places that can be written, directories whole or not at all."""

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxlm.core.errors import UserError, is_full_disk


def is_taken(path: str | Path) -> bool:
    """Whether something lies there that is no empty directory."""
    path = Path(path)
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def check_new_file(path: str | Path) -> None:
    """Raises UserError where no file of that name can be written, before the work that fills it."""
    path = Path(path)
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: it is a directory, name a file in it")
    if path.exists() and not path.is_file():  # it would be replaced: a pipe, or /dev/null for the whole machine
        raise UserError(f"cannot write {path}: it is a device or a pipe, name a file")
    if not os.path.isdir(path.parent):
        raise UserError(f"cannot write {path}: {path.parent} is no directory, name a file in one that is there")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: {path.parent} may not be written to, name another directory")


def check_directory(path: str | Path) -> None:
    """Raises UserError where no directory of that name is or can be made, before the work that fills it."""
    path = Path(path)
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise UserError(f"cannot write into {path}: {there} is a file, name a directory")
    if not os.access(there, os.W_OK):
        raise UserError(f"cannot write into {path}: {there} may not be written to, name another directory")


_held: set[str] = set()  # names of the siblings that this process is writing; no two are alike


def hold_sibling(place: Path, ending: str = "") -> Path:
    """A name beside ``place`` that no other process has, ``.NAME.HOST.PID.RANDOM`` and the ending; nothing is made.

    `dead_siblings` leaves it alone until `drop_sibling`.
    """
    path = place.with_name(f".{place.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}{ending}")
    _held.add(path.name)
    return path


def drop_sibling(path: Path) -> None:
    """Removes what is left of it."""
    shutil.rmtree(path, ignore_errors=True)  # gone already if it was renamed
    _held.discard(path.name)


def dead_siblings(place: Path) -> list[Path]:
    """The siblings of ``place`` that killed processes of this host have left."""
    prefix = f".{place.name}.{socket.gethostname()}."
    try:
        found = sorted(path for path in place.parent.iterdir() if path.name.startswith(prefix))
    except OSError:  # not there yet, or not to be listed
        return []
    return [path for path in found if _is_dead(path.name, path.name.removeprefix(prefix).split(".")[0])]


def _is_dead(name: str, process: str) -> bool:
    if not process.isdecimal():
        return False
    if int(process) == os.getpid():  # in a container each process is the first, so this may be another's
        return name not in _held
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        pass
    return False


def remove_all(directories: Iterable[Path]) -> None:
    """Removes directories, as far as it may."""
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def new_directory(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A directory that takes its name when all has gone well, and is removed otherwise.

    ``replace``: what has the name makes way. It is moved aside, to ``.NAME.HOST.PID.RANDOM.old``, and deleted once the
    new one stands: a kill in between loses neither. What killed processes of this host have left is removed: at once
    where that cannot be the only copy, else once the new one stands.

    Raises UserError where the name is taken, and for whatever cannot be written.
    """
    try:
        place = Path(os.path.realpath(path))  # "." has no name to stand beside
        if is_taken(place) and not replace:
            raise UserError(f"{path} is there already: name a new directory")
        if place.is_dir() and (place.samefile(os.curdir) or place.is_mount()):
            raise UserError(f"{path} is the working directory or a mount point, which stays: name a directory in it")
        left = dead_siblings(place)
        if not any(one.name.endswith(".old") for one in left):
            remove_all(left)
        partial, aside = (hold_sibling(place, end) for end in (".partial", ".old"))
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}: name another directory") from error
    try:
        yield partial
        if replace and is_taken(place):
            place.rename(aside)
        try:
            os.replace(partial, place)
        except OSError:
            if aside.exists():
                aside.rename(place)
            raise
        remove_all([aside, *left])
    except Exception as error:
        if is_full_disk(error) and not isinstance(error, UserError):
            raise UserError(f"no space left for {path}: free space; nothing was kept") from error
        if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
            raise
        why, name = error.strerror or error, error.filename
        ours = tuple(map(str, (partial, place, aside)))
        if name is not None and not os.path.abspath(os.fsdecode(name)).startswith(ours):
            raise UserError(f"cannot read {os.fsdecode(name)}: {why}") from error
        raise UserError(f"cannot write {path}: {why}") from error
    finally:
        drop_sibling(partial)
        _held.discard(aside.name)  # but what lies there may be the only copy
