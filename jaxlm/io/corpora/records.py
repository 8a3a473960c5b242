"""Records of JSON and JSONL files, and how a record becomes one text."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from jaxlm.data.corpus import Document
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.archives import Input
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.lines import decode, each_line, read_blocks

_CHUNK = 1 << 20
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


SET_FIELDS = "name the one that holds the text (fields of a source, corpus.text_field of a run)"
"""What to do where the named field is not there."""


class FieldError(ValueError):
    """A record whose text cannot be made: the message goes after the record's place."""


def text_of(record: Any, source: SourceConfig) -> str:
    """The fields of ``record``, joined. FieldError says which one is missing or is no text."""
    if not isinstance(record, dict):
        raise FieldError(f"is a JSON {type(record).__name__}, not an object")
    parts = []
    for field in source.fields:
        name = field.removesuffix("?")
        if name in record:
            value = record[name]
        else:
            value = _dig(record, name.split("."), name, optional=name != field)
        if isinstance(value, list):
            value = "\n".join(_checked(item, name) for item in value)
        if value is None and name != field:
            continue
        if _checked(value, name) or name == field:
            parts.append(value)
    text = parts[0] if len(parts) == 1 else source.separator.join(parts)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise FieldError(f"holds the lone surrogate U+{ord(text[error.start]):04X}") from None
    return text


def _dig(value: Any, path: list[str], name: str, *, optional: bool) -> Any:
    """What stands at ``path``; None for an optional field that is not there."""
    for depth, key in enumerate(path, 1):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key == "*":
            items = [_dig(item, path[depth:], name, optional=optional) for item in value]
            return [item for item in items if item is not None] if optional else items
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif optional:
            return None
        else:
            near = ", ".join(list(value)[:8]) if isinstance(value, dict) else type(value).__name__
            raise FieldError(f"has no field {name!r} (it has {near or 'nothing'}): {SET_FIELDS}")
    return value


def _checked(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise FieldError(f"has a field {name!r} that is {type(value).__name__}, not text")
    return value


def read_jsonl(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """One document a line that holds a JSON object; blank lines are nothing."""
    where = given.where
    with given.open() as stream:
        for block in read_blocks(stream, where, source.limits.max_document_bytes, bad):
            for number, offset, content in each_line(block):
                try:
                    yield Document(text_of(json.loads(content.decode()), source), f"{where}:{number}")
                except UnicodeDecodeError:  # a ValueError too: before it
                    line = decode(content, where, offset, source, bad, place=f"line {number}")
                    if line is not None:
                        yield from _one(line, source, bad, where, number, offset)
                except (ValueError, RecursionError):
                    if content.strip():
                        yield from _one(content.decode(), source, bad, where, number, offset)


def _one(line: str, source: SourceConfig, bad: BadInput, where: str, number: int, offset: int) -> Iterator[Document]:
    """The document of one line, or a note of what is wrong with it."""
    try:
        yield Document(text_of(json.loads(line), source), f"{where}:{number}")
    except FieldError as error:
        bad.add_at(where, offset, str(error), place=f"line {number}")
    except ValueError as error:
        bad.add_at(where, offset, f"is not JSON ({error})", place=f"line {number}")
    except RecursionError:
        bad.add_at(where, offset, "is nested too deeply", place=f"line {number}")


def read_json(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """The documents of a JSON array of objects, or of one object, read a record at a time.

    After a record that is not JSON nothing of the file can be told apart: the rest of it is one bad record.
    """
    where, number = given.where, 0
    with given.open() as stream:
        try:
            for number, offset, record in _records(stream, source):
                if source.records:
                    yield from _inside(record, source, bad, where, offset)
                    continue
                try:
                    yield Document(text_of(record, source), f"{where}:{number}")
                except FieldError as error:
                    bad.add_at(where, offset, str(error), place=f"record {number}")
        except UnicodeDecodeError as error:
            bad.add_at(where, error.start, f"is not {source.encodings[0]}", place=f"after record {number}")
        except _BadJsonError as error:
            bad.add_at(where, error.offset, f"is not JSON ({error})", place=f"after record {number}")


def _inside(record: Any, source: SourceConfig, bad: BadInput, where: str, offset: int) -> Iterator[Document]:
    """The records of the array in a field of a file's one object."""
    found = record.get(source.records) if isinstance(record, dict) else None
    if not isinstance(found, list):
        bad.add_at(where, offset, f"has no array {source.records!r}: set records")
        return
    for number, one in enumerate(found, 1):
        try:
            yield Document(text_of(one, source), f"{where}:{number}")
        except FieldError as error:
            bad.add_at(where, offset, str(error), place=f"record {number}")


class _BadJsonError(Exception):
    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class _Text:
    """A stream of text of which a window is held: ``text[at:]`` is what lies ahead, ``offset`` the byte of ``at``."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream, self._encoding = stream, encoding
        utf8 = codecs.lookup(encoding).name == "utf-8"
        self._decoder = codecs.getincrementaldecoder("utf-8-sig" if utf8 else encoding)()
        self._read = 0  # bytes
        self.text, self.at, self.offset, self.ended = "", 0, 0, False

    def more(self, size: int = _CHUNK) -> bool:
        """Reads on; False at the end. The ``start`` of a UnicodeDecodeError counts from the stream's start."""
        if self.ended:
            return False
        piece = self._stream.read(size)
        self.ended = not piece
        held = len(self._decoder.getstate()[0])  # bytes of a character that was cut
        try:
            self.text = self.text[self.at :] + self._decoder.decode(piece, final=self.ended)
        except UnicodeDecodeError as error:
            error.start += self._read - held
            raise
        self.at = 0
        self._read += len(piece)
        return not self.ended

    def advance(self, to: int) -> None:
        """Moves ``at``."""
        self.offset += len(self.text[self.at : to].encode(self._encoding))
        self.at = to

    def skip_space(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            for place in range(self.at, len(self.text)):
                if self.text[place] not in _SPACE:
                    self.advance(place)
                    return self.text[place]
            self.advance(len(self.text))
            if not self.more():
                return ""

    def value(self, limit: int) -> Any:
        """The JSON value that begins here; moves behind it."""
        while True:
            ahead = len(self.text) - self.at
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # a number at the edge may go on
                    self.advance(end)
                    return value
            except RecursionError:
                raise _BadJsonError("nested too deeply", self.offset) from None
            except json.JSONDecodeError as error:
                if self.ended:
                    place = self.offset + len(self.text[self.at : error.pos].encode(self._encoding))
                    raise _BadJsonError(error.msg, place) from None
                if ahead > limit:
                    message = f"{error.msg}, or a record over limits.max_document_bytes={limit}"
                    raise _BadJsonError(message, self.offset) from None
            except ValueError as error:  # a number of more digits than Python reads
                raise _BadJsonError(str(error).partition(";")[0], self.offset) from None
            self.more(max(_CHUNK, ahead))


def _records(stream: BinaryIO, source: SourceConfig) -> Iterator[tuple[int, int, Any]]:
    """(number from 1, offset, value) of every item of the array in ``stream``, or of its one value."""
    text, limit = _Text(stream, source.encodings[0]), source.limits.max_document_bytes
    first = text.skip_space()
    if first == "[":
        text.advance(text.at + 1)
        number, following = 0, text.skip_space()
        while following != "]":
            number, offset = number + 1, text.offset
            yield number, offset, text.value(limit)
            following = text.skip_space()
            if following == ",":
                text.advance(text.at + 1)
                text.skip_space()
            elif following != "]":
                raise _BadJsonError("expecting ',' or ']' after a record", text.offset)
        text.advance(text.at + 1)
    elif first:
        yield 1, text.offset, text.value(limit)
    if text.skip_space():
        raise _BadJsonError("text after the end", text.offset)
