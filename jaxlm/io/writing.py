"""Before and after writing: places that can be written, directories whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
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


@contextlib.contextmanager
def new_directory(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A directory that takes its name when all has gone well, and is removed otherwise.

    ``replace``: what has the name makes way. It is moved aside, to ``.NAME.PID.old``, and deleted once the new one
    stands: a kill in between loses neither.

    Raises UserError where the name is taken, and for whatever cannot be written.
    """
    try:
        place = Path(os.path.realpath(path))  # "." has no name to stand beside
        if is_taken(place) and not replace:
            raise UserError(f"{path} is there already: name a new directory")
        if place.is_dir() and (place.samefile(os.curdir) or place.is_mount()):
            raise UserError(f"{path} is the working directory or a mount point, which stays: name a directory in it")
        partial, aside = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("partial", "old"))
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
        shutil.rmtree(aside, ignore_errors=True)
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
        shutil.rmtree(partial, ignore_errors=True)
