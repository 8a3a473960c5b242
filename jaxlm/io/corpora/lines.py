"""Bytes of an input as whole documents or as blocks of whole lines, never more of them in memory than is allowed."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.files import BadInput

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20


class Block(NamedTuple):
    """Whole lines, ended by ``\\n`` alone. ``number`` of the first (from 1), ``offset`` of its first byte."""

    number: int
    offset: int
    content: bytes


def read_blocks(stream: BinaryIO, where: str, limit: int, bad: BadInput) -> Iterator[Block]:
    """All lines, about 1 MiB at a time. A line longer than ``limit`` bytes is bad: noted, and skipped unread."""
    number, offset = 1, 0
    rest = b""  # of a line that goes on
    dropped = 0  # bytes of a line that is too long already
    while piece := stream.read(_BLOCK):
        if not offset and not rest and not dropped and piece.startswith(_BOM):
            piece, offset = piece[len(_BOM) :], len(_BOM)
        end = piece.find(b"\n") + 1
        if not end and dropped:
            dropped += len(piece)
            continue
        if dropped:
            bad.add_at(where, offset, _too_long(dropped + end, limit), place=f"line {number}")
            number, offset, piece, dropped = number + 1, offset + dropped + end, piece[end:], 0
        last = piece.rfind(b"\n") + 1
        if not last:
            rest += piece
            if len(rest) > limit:
                dropped, rest = len(rest), b""
            continue
        content = rest + piece[:last]
        rest = piece[last:]
        yield from _checked(Block(number, offset, content), where, limit, bad)
        number, offset = number + content.count(b"\n"), offset + len(content)
    if dropped:
        bad.add_at(where, offset, _too_long(dropped, limit), place=f"line {number}")
    elif rest:
        yield from _checked(Block(number, offset, rest), where, limit, bad)


def _too_long(length: int, limit: int) -> str:
    return f"has {length} bytes, over limits.max_document_bytes={limit}"


def _checked(block: Block, where: str, limit: int, bad: BadInput) -> Iterator[Block]:
    """The block without lines over ``limit``. Only a small limit finds one here: a block is 1 MiB and a line's rest."""
    if len(block.content) <= limit:
        yield block
        return
    for number, offset, line in each_line(block):
        if len(line) > limit:
            bad.add_at(where, offset, _too_long(len(line), limit), place=f"line {number}")
        else:
            yield Block(number, offset, line)


def each_line(block: Block) -> Iterator[Block]:
    """The lines of a block one by one, with their line ends."""
    offset = block.offset
    for number, line in enumerate(_split(block.content), block.number):
        yield Block(number, offset, line)
        offset += len(line)


def _split(content: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def read_whole(
    stream: BinaryIO, where: str, limit: int, bad: BadInput, *, limit_name: str = "max_document_bytes", mend: str = ""
) -> tuple[int, bytes] | None:
    """(offset of the first byte, all bytes without a byte order mark), or None where they are more than ``limit``."""
    pieces, left = [], limit + 1
    while left and (piece := stream.read(min(left, _BLOCK))):  # a read sets aside all that it asks for
        pieces.append(piece)
        left -= len(piece)
    content = b"".join(pieces)
    if len(content) > limit:
        bad.add_at(where, None, f"is one document of more than limits.{limit_name}={limit}{mend}")
        return None
    start = len(_BOM) if content.startswith(_BOM) else 0
    return start, content[start:]


def decode(
    content: bytes, where: str, offset: int, source: SourceConfig, bad: BadInput, *, place: str = ""
) -> str | None:
    """The text of ``content`` in the first of the source's encodings that can read all of it.

    None after noting the first byte that the first encoding cannot read, counted from the start of the input.
    """
    text, error = try_decode(content, source.encodings)
    if error is not None:
        names = " or ".join(source.encodings)
        bad.add_at(where, offset + error.start, f"is not {names}: 0x{content[error.start]:02x}", place=place)
    return text


def try_decode(content: bytes, encodings: tuple[str, ...]) -> tuple[str | None, UnicodeDecodeError | None]:
    """(text, None) in the first encoding that fits, else (None, the first one's error)."""
    first = None
    for encoding in encodings:
        try:
            return content.decode(encoding), None
        except UnicodeDecodeError as error:
            first = first or error
    return None, first
