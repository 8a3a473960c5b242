"""Checksums over the files of a directory, kept inside it: what a manifest lists, and what has changed since.

A manifest may be written in parts by several processes, each hashing its share of the files. Part i of n is
``checksums.<i>-of-<n>.json``: ``{"files": {path: {"bytes", "sha256"}}, "part", "parts", "sha256"}``, where the last is
the digest of the rest. The directory is sealed when all n parts are there.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

_PART = re.compile(r"checksums\.(0|[1-9]\d*)-of-([1-9]\d*)\.json", re.ASCII)
_PARTIAL = ".partial"
"""What follows a part's name while it is written."""
_BLOCK = 1 << 20
_THREADS = 4

Files = dict[str, dict[str, Any]]
"""Path within the directory -> ``{"bytes": its size, "sha256": hexadecimal}``."""


class ManifestError(ValueError):
    """A manifest's part that is not what was written."""


def write_manifest(directory: epath.Path, part: int = 0, parts: int = 1) -> None:
    """Hashes share ``part`` of ``parts`` of the files below a directory and writes it there, whole or not at all.

    File i of the sorted list goes to part i mod ``parts``. Nothing else may change the directory meanwhile. One thread:
    it runs beside training. Raises OSError as the file system does.
    """
    # Other processes may be writing their parts: whole or not, those are no files of the directory.
    paths = sorted(path for path in _walk(directory) if not _PART.fullmatch(path.removesuffix(_PARTIAL)))
    files = {path: _describe(directory / path, sync=_is_local(directory)) for path in paths[part::parts]}
    record = {"files": files, "part": part, "parts": parts}
    _write(directory / part_name(part, parts), _render(record))


def part_name(part: int, parts: int) -> str:
    """The file name of a part."""
    return f"checksums.{part}-of-{parts}.json"


def is_sealed(directory: epath.Path) -> bool:
    """Whether a manifest is there in all its parts. Reads names only: `find_damage` looks inside."""
    return _num_parts(directory) is not None


def digest(directory: epath.Path) -> str:
    """One for all files below a directory, their names included: as its manifest lists them, so that nothing large is
    read; without a whole manifest from the files themselves."""
    parts = _num_parts(directory)
    try:
        if parts is None:
            raise ManifestError("missing")
        files = _read_parts(directory, parts)
    except ManifestError:
        files = {path: _describe(directory / path) for path in _walk(directory) if not _PART.fullmatch(path)}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def unseal(directory: epath.Path) -> None:
    """Removes the manifest: the first thing to go where a directory cannot go at once."""
    for path in list(directory.iterdir()):
        if _PART.fullmatch(path.name):
            path.unlink()


def find_damage(directory: epath.Path, *, contents: bool = True, share: int = 0, shares: int = 1) -> list[str]:
    """What is not as it was sealed, one line for each file, sorted; empty = intact.

    Args:
      contents: False looks at names and sizes alone.
      share: of ``shares``: the files whose contents are looked at here, every so many of the list. Together all
        shares find what one alone does.

    Raises OSError for what may not or cannot be read now: that says nothing of the bytes.
    """
    parts = _num_parts(directory)
    if parts is None:
        return ["the checksums are missing"]
    listed: Files = {}
    faults = []
    for part in range(parts):
        try:
            listed |= _read_part(directory / part_name(part, parts), part, parts)
        except ManifestError as error:
            faults.append(f"{part_name(part, parts)}: {error}")
        except FileNotFoundError:  # gone since it was listed
            faults.append(f"{part_name(part, parts)}: missing")
    own = {part_name(part, parts) for part in range(parts)}
    there = set(_walk(directory)) - own
    if not faults:  # a lost part would make every file that it lists a stranger
        faults += [f"{path}: not in the manifest" for path in there - listed.keys()]

    dealt = sorted(listed, key=lambda path: (-listed[path]["bytes"], path))  # largest first: shares of like size
    ours = set(dealt[share::shares]) if contents else set()

    def check(path: str) -> str | None:
        return _compare(directory / path, listed[path], path in ours) if path in there else "missing"

    with ThreadPoolExecutor(_THREADS) as pool:
        found = zip(listed, pool.map(check, listed), strict=True)
        faults += [f"{path}: {fault}" for path, fault in found if fault is not None]
    return sorted(faults)


def _num_parts(directory: epath.Path) -> int | None:
    """Of how many parts the manifest is, None where one of them is missing."""
    try:
        names = {path.name for path in directory.iterdir()}
    except (FileNotFoundError, NotADirectoryError):  # gone since it was listed, or a stray file
        return None
    totals = {int(match[2]) for match in map(_PART.fullmatch, names) if match}
    whole = [parts for parts in totals if all(part_name(part, parts) in names for part in range(parts))]
    return max(whole, default=None)


def _read_parts(directory: epath.Path, parts: int) -> Files:
    return {
        path: described
        for part in range(parts)
        for path, described in _read_part(directory / part_name(part, parts), part, parts).items()
    }


def _read_part(path: epath.Path, part: int, parts: int) -> Files:
    data = path.read_bytes()
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        raise ManifestError("contents changed") from None
    # Rendered again it must be the same bytes: so a flip is found in blanks and escapes too, not only in values.
    if not isinstance(record, dict) or _render({k: v for k, v in record.items() if k != "sha256"}) != data:
        raise ManifestError("contents changed")
    if (record["part"], record["parts"]) != (part, parts):
        raise ManifestError(f"this is part {record['part']} of {record['parts']}, renamed")
    return record["files"]


def _render(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True)
    record = record | {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    return (json.dumps(record, sort_keys=True, indent=1) + "\n").encode()


def _describe(path: epath.Path, *, sync: bool = False) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            if sync:  # Orbax leaves its small files to the system; a manifest must not outlive a power cut without them
                os.fsync(file.fileno())
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error  # reading names no file
    return {"bytes": size, "sha256": digest.hexdigest()}


def _compare(path: epath.Path, listed: dict[str, Any], contents: bool) -> str | None:
    try:
        size, meant = path.stat().length, listed["bytes"]
        if size != meant:
            return f"truncated to {size} of {meant} bytes" if size < meant else f"grown from {meant} to {size} bytes"
        if contents and _describe(path) != listed:
            return "contents changed"
    except FileNotFoundError:  # gone since it was listed
        return "missing"
    return None


def _walk(directory: epath.Path, above: str = "") -> Iterator[str]:
    """Paths of the files below a directory, with slashes."""
    try:
        paths = list(directory.iterdir())
    except FileNotFoundError:  # gone since it was listed
        return
    for path in paths:
        name = above + path.name
        if path.is_dir():
            yield from _walk(path, f"{name}/")
        else:
            yield name


def _is_local(path: epath.Path) -> bool:
    return "://" not in os.fspath(path)


def _write(path: epath.Path, data: bytes) -> None:
    if not _is_local(path):
        path.write_bytes(data)  # an object appears whole or not at all
        return
    partial = f"{os.fspath(path)}{_PARTIAL}"
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    for directory in (path.parent, path.parent.parent):  # the second holds Orbax's rename, which it does not sync
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
