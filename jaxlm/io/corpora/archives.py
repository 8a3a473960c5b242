"""Files of a source: found in folders, globs and archives, and opened as streams that cannot expand without bound."""

import fnmatch
import functools
import glob
import io
import itertools
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.streams import CHUNK, ExpansionError, Window, reading, unpack

PACKED = (".gz", ".zst")
ZIPS = (".zip",)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.zst")


class SourceFile(NamedTuple):
    """A piece of a source that is read by itself.

    ``member``: of the archive ``path``; "*" for all of a compressed tar. ``size``: bytes as stored (of a TFDS split:
    of its files). ``start`` and ``stop``: the bytes of a plain tar's member or of a large file's piece, which begins
    and ends with a line; or the examples of a TFDS split. ``start`` of a zip's member: its place in the zip's list.
    """

    path: str
    member: str = ""
    size: int = 0
    start: int = 0
    stop: int | None = None

    def __str__(self) -> str:
        if self.member == "*":
            return self.path
        if self.member:
            return f"{self.path}::{self.member}"
        return self.path if self.stop is None else f"{self.path}[{self.start}:]"


@dataclass(frozen=True)
class Input:
    """One file to be read: ``where`` names it in messages and origins, ``name`` is its path within folder or archive.

    ``open`` gives its bytes, decompressed and limited; ``folder`` is where it lies on disk, None in an archive.
    """

    where: str
    name: str
    open: Callable[[], BinaryIO]
    raw: Callable[[], BinaryIO]  # as stored
    root: Path | None = None


# ---- finding


def find_files(source: SourceConfig, suffixes: tuple[str, ...], bad: BadInput) -> list[SourceFile]:
    """The files of ``source.paths`` in order, each once; in folders and archives those with one of ``suffixes``."""
    found: dict[SourceFile, SourceFile] = {}  # by where they really lie: a path has many spellings
    real = functools.cache(os.path.realpath)
    for name in source.paths:
        path, count = Path(name).expanduser(), bad.count
        here: list[SourceFile] = []
        if path.is_dir():
            for one, within in _walk(path):
                if not is_archive(within):
                    here += _pieces(one, source) if _wanted(within, source, suffixes) else []
                elif source.format != "code":  # an archive among sources is what a test unpacks
                    here += _archived(one, source, suffixes, bad)
        else:
            names = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
            if not names:
                bad.add_at(str(path), None, "does not exist")
            for one in (Path(name) for name in names if not os.path.isdir(name)):
                if is_archive(one.name):
                    here += _archived(one, source, suffixes, bad)
                elif _wanted(one.name, source, ()):
                    here += _pieces(one, source)
        if not here and count == bad.count:
            bad.add_at(str(path), None, f"holds no file for format={source.format!r}")
        for file in here:
            found.setdefault(file._replace(path=real(file.path)), file)
    return list(found.values())


def _plain(path: Path) -> SourceFile:
    try:
        return SourceFile(str(path), "", path.stat().st_size)
    except OSError:
        return SourceFile(str(path))  # reading it says what is wrong


def _pieces(path: Path, source: SourceConfig) -> list[SourceFile]:
    """The file, or if it is large and its lines are documents, pieces of it that end with a line."""
    whole, piece = _plain(path), source.limits.piece_bytes
    by_line = source.format == "jsonl" or (source.format == "text" and source.document == "line")
    by_line = by_line or (source.format == "tsv" and not source.header)
    if whole.size <= piece or not by_line or path.name.lower().endswith(PACKED):
        return [whole]
    if source.max_documents is not None:  # the first ones of the file, not of every piece
        return [whole]
    cuts = [0]
    try:
        with path.open("rb") as file:
            for place in range(piece, whole.size, piece):
                file.seek(place - 1)
                ended = file.readline(source.limits.max_document_bytes).endswith(b"\n")
                if ended and cuts[-1] < file.tell() < whole.size:
                    cuts.append(file.tell())
    except OSError:
        return [whole]  # reading it says what is wrong
    ends = [*cuts[1:], whole.size]
    return [SourceFile(str(path), "", b - a, a, b) for a, b in zip(cuts, ends, strict=True)]


def _archived(path: Path, source: SourceConfig, suffixes: tuple[str, ...], bad: BadInput) -> list[SourceFile]:
    """What of an archive is read by itself."""
    if path.name.lower().endswith((*PACKED, ".tgz")):
        return [_plain(path)._replace(member="*")]
    with reading(str(path), bad):
        return list(_members(path, source, suffixes, bad))
    return []


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """(path, path within ``folder``) of all files, sorted by the latter; hidden ones never. Links to folders are
    followed after all else, and each folder is read once."""
    inside: list[Path] = []
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        for at, folders, files in itertools.chain.from_iterable(map(os.walk, waiting)):
            real = os.path.realpath(at)
            folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
            inside += [] if real in seen else [Path(at, name) for name in files if not name.startswith(".")]
            links += [path for name in folders if (path := Path(at, name)).is_symlink()]
            seen.add(real)
        waiting = sorted(links)
    return iter(sorted(((path, path.relative_to(folder).as_posix()) for path in inside), key=lambda pair: pair[1]))


def is_archive(name: str) -> bool:
    """Whether a file of this name is opened as a folder."""
    return name.lower().endswith(ZIPS + TARS)


def without_packing(name: str) -> str:
    """A file's name in lower case, without what says that it is compressed."""
    plain = name.lower()
    for packed in PACKED:
        plain = plain.removesuffix(packed)
    return plain


def _wanted(name: str, source: SourceConfig, suffixes: tuple[str, ...]) -> bool:
    name = _within(name)
    base = name.rsplit("/", 1)[-1]
    if suffixes and not without_packing(base).endswith(suffixes):
        return False

    def among(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(name, p) or fnmatch.fnmatchcase(base, p) for p in patterns)

    return (not source.include or among(source.include)) and not among(source.exclude)


def _members(path: Path, source: SourceConfig, suffixes: tuple[str, ...], bad: BadInput) -> Iterator[SourceFile]:
    """The members of a zip or a plain tar that count, in stored order."""
    stored = path.stat().st_size
    if path.name.lower().endswith(ZIPS):
        infos = _open_zip(str(path), os.stat(path).st_mtime_ns, os.getpid()).infolist()
        declared = sum(info.file_size for info in infos)
        if declared > source.limits.expanded(stored):  # also where members share their bytes
            raise ExpansionError(f"{declared} bytes declared by {stored}")
        files = [
            SourceFile(str(path), info.filename, info.compress_size, place)
            for place, info in enumerate(infos)
            if not info.is_dir()
        ]
        encrypted = {place for place, info in enumerate(infos) if info.flag_bits & 1}
    else:
        files = []
        with reading(str(path), bad), tarfile.open(path, mode="r:") as tar:  # what stands before a damage is kept
            for i in tar:
                if i.isreg():
                    files.append(SourceFile(str(path), i.name, i.size, i.offset_data, i.offset_data + i.size))
        encrypted = set()
    for file in files:
        name = file.member
        if _hidden(name) or not _wanted(name, source, suffixes):
            continue
        if file.start in encrypted:
            bad.add_at(str(file), None, "is encrypted")
            continue
        if is_archive(name):
            bad.add_at(str(file), None, "is an archive inside an archive, which is not opened")
            continue
        yield file


def _hidden(name: str) -> bool:
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _within(name: str) -> str:
    """A member's path: an archive made of "." has "./" before all names."""
    while name.startswith("./"):
        name = name[2:]
    return name


# ---- opening


def inputs(file: SourceFile, source: SourceConfig, suffixes: tuple[str, ...], bad: BadInput) -> Iterator[Input]:
    """What ``file`` stands for: itself, or every member of a compressed tar, one after the other."""
    limits = source.limits
    if file.member != "*":
        name = _within(file.member) or os.path.basename(file.path)
        raw = functools.partial(_open_stored, file)
        root = None if file.member else Path(file.path).parent
        yield Input(str(file), name, lambda: unpack(raw(), name, file.size, limits), raw, root)
        return
    count = 0
    packed = f"{file.path}.gz" if file.path.lower().endswith(".tgz") else file.path
    stored = Path(file.path).open("rb")  # noqa: SIM115  (closed with what unpacks it)
    with unpack(stored, packed, file.size, limits) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for info in tar:
            if not info.isreg() or _hidden(info.name) or not _wanted(info.name, source, suffixes):
                continue
            where = f"{file.path}::{info.name}"
            if is_archive(info.name):
                bad.add_at(where, None, "is an archive inside an archive, which is not opened")
                continue
            count += 1

            def raw_member(info: tarfile.TarInfo = info) -> BinaryIO:
                return cast(BinaryIO, tar.extractfile(info))

            def member(info: tarfile.TarInfo = info, raw: Callable[[], BinaryIO] = raw_member) -> BinaryIO:
                return unpack(raw(), info.name, info.size, limits)

            yield Input(where, _within(info.name), member, raw_member)
    if not count:
        bad.pass_over(f"archive without a file for format={source.format!r}", file.path)


@functools.lru_cache(maxsize=2)
def _open_zip(path: str, mtime_ns: int, pid: int) -> zipfile.ZipFile:
    """Kept open: its table of contents is read once for all members, not once for each. A fork opens its own."""
    return zipfile.ZipFile(path)


def _open_stored(file: SourceFile) -> BinaryIO:
    if file.member and file.stop is None:
        archive = _open_zip(file.path, os.stat(file.path).st_mtime_ns, os.getpid())
        try:
            infos = archive.infolist()[file.start : file.start + 1]
            named = infos and infos[0].filename == file.member  # of two members of one name, the name gives the last
            return cast(BinaryIO, archive.open(infos[0] if named else file.member))
        except (RuntimeError, KeyError) as error:  # a flag or a name that the damage changed
            raise zipfile.BadZipFile(str(error)) from None
    stream = Path(file.path).open("rb")  # noqa: SIM115  (the caller closes it)
    if file.stop is None:
        return stream
    stream.seek(file.start)
    return cast(BinaryIO, io.BufferedReader(Window(stream, file.stop - file.start), CHUNK))
