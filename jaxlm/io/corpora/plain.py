"""Plain text, and text whose words carry tags."""

import re
from collections.abc import Iterator

from jaxlm.data.corpus import Document
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.archives import Input
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.lines import Block, decode, each_line, read_blocks, read_whole, try_decode

_NO_SPACE_BEFORE = re.compile(r" (?=[.,;:?!%)\]}”]|n't\b|'(?:s|re|ve|ll|d|m)\b)")
_NO_SPACE_AFTER = re.compile(r"(?<=[(\[{“$]) ")


def read_text(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """Documents of plain text: the whole file, its paragraphs (between blank lines), or its lines."""
    limit = source.limits.max_document_bytes
    with given.open() as stream:
        if source.document == "file":
            whole = read_whole(stream, given.where, limit, bad, mend=": set document to 'paragraph' or 'line'")
            text = whole and decode(whole[1], given.where, whole[0], source, bad)
            if text and not text.isspace():
                yield Document(text, given.where)
            return
        lines = _lines(read_blocks(stream, given.where, limit, bad), given.where, source, bad)
        if source.document == "line":
            for number, line in lines:
                if line and not line.isspace():
                    yield Document(line, f"{given.where}:{number}")
            return
        yield from _paragraphs(lines, given.where, limit, bad)


def _lines(blocks: Iterator[Block], where: str, source: SourceConfig, bad: BadInput) -> Iterator[tuple[int, str]]:
    for block in blocks:
        text, error = try_decode(block.content, source.encodings)
        if text is not None and error is None:  # a whole block at once
            lines = text.split("\n")
            if not lines[-1]:
                lines.pop()
            for number, line in enumerate(lines, block.number):
                yield number, line.removesuffix("\r")
            continue
        for number, offset, content in each_line(block):
            line = decode(content, where, offset, source, bad, place=f"line {number}")
            if line is not None:
                yield number, line.removesuffix("\n").removesuffix("\r")


def _paragraphs(lines: Iterator[tuple[int, str]], where: str, limit: int, bad: BadInput) -> Iterator[Document]:
    """A line that could not be read is left out of its paragraph, and has been noted."""
    held: list[str] = []
    first, size = 1, 0  # of the paragraph so far
    for number, line in lines:
        if not line or line.isspace():
            if held:
                yield Document("\n".join(held), f"{where}:{first}")
            elif size > limit:
                bad.add_at(where, None, _long_paragraph(size, limit), place=f"line {first}")
            held, size = [], 0
            continue
        if not size:
            first = number
        size += len(line) + 1
        if size > limit:
            held = []
        else:
            held.append(line)
    if held:
        yield Document("\n".join(held), f"{where}:{first}")
    elif size > limit:
        bad.add_at(where, None, _long_paragraph(size, limit), place=f"line {first}")


def _long_paragraph(size: int, limit: int) -> str:
    return f"begins a paragraph of {size} characters, over limits.max_document_bytes={limit}"


def read_tagged(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """One document a file of word/TAG text: the words, with the spacing of ordinary text.

    A line is a sentence; blank lines part paragraphs. The tag is what follows the last slash of a token.
    """
    with given.open() as stream:
        whole = read_whole(stream, given.where, source.limits.max_document_bytes, bad)
    if whole is None:
        return
    text = decode(whole[1], given.where, whole[0], source, bad)
    if text is None:
        return
    paragraphs: list[list[str]] = [[]]
    offset = whole[0]
    for line in text.split("\n"):
        tokens = line.split()
        words = [token.rsplit("/", 1)[0] for token in tokens if "/" in token]
        if len(words) != len(tokens):
            token = next(token for token in tokens if "/" not in token)
            at = offset + len(line[: line.index(token)].encode(source.encodings[0], "replace"))
            bad.add_at(given.where, at, f"has the word {token[:40]!r} without a tag")
            return
        if words:
            paragraphs[-1].append(" ".join(words))
        elif paragraphs[-1]:
            paragraphs.append([])
        offset += len(line.encode(source.encodings[0], "replace")) + 1
    yield Document("\n\n".join(_respaced(" ".join(sentences)) for sentences in paragraphs if sentences), given.where)


def _respaced(text: str) -> str:
    """``` `` Yes '' , he said . ``` -> ``“Yes”, he said.``"""
    text = text.replace("``", "“").replace("''", "”")
    return _NO_SPACE_AFTER.sub("", _NO_SPACE_BEFORE.sub("", text))
