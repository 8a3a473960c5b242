"""Streams of bytes that cannot expand without bound, and what can go wrong while they are read."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from jaxlm.core.errors import UserError
from jaxlm.data.source import ReadLimits
from jaxlm.io.corpora.files import BadInput

CHUNK = 1 << 16
_PIECE = 1024


class ExpansionError(Exception):
    """A compressed input that grows beyond the stated limit."""


def unpack(stream: BinaryIO, name: str, stored: int, limits: ReadLimits) -> BinaryIO:
    """``stream``, decompressed if its name says so; raises ExpansionError when more comes out than is allowed."""
    name = name.lower()
    if name.endswith(".gz"):
        inner: Any = gzip.GzipFile(fileobj=stream)
    elif name.endswith(".zst"):
        inner = _Zstandard(stream)
    else:
        return stream
    limited = _Limited(inner, limits.expanded(stored), stored, stream)
    return cast(BinaryIO, io.BufferedReader(limited, CHUNK))


class Window(io.RawIOBase):
    """The next ``size`` bytes of a stream, which it owns."""

    def __init__(self, inner: BinaryIO, size: int) -> None:
        self._inner, self._left = inner, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._inner.read(min(len(buffer), self._left))
        if not data and self._left and len(buffer):
            raise EOFError
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._inner.close()
        super().close()


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than ``limit`` bytes. Closing it closes what it was made from."""

    def __init__(self, inner: Any, limit: int, stored: int, *also: BinaryIO) -> None:
        self._inner, self._left, self._stored, self._also = inner, limit, stored, also
        self._limit = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._inner.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise ExpansionError(f"more than {self._limit} bytes out of {self._stored}")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            for stream in (self._inner, *self._also):
                stream.close()
        super().close()


class _Zstandard:
    """Reads Zstandard frames; unlike the library's own reader it tells an end from a truncation.

    Its input goes in by the kibibyte: a kibibyte gives at most 32 MiB (blocks of 4 bytes stand for up to 128 KiB).
    """

    def __init__(self, stream: BinaryIO) -> None:
        try:
            import zstandard
        except ImportError:
            raise UserError("files that end in .zst need the zstandard package: pip install 'jaxlm[clean]'") from None
        self._stream = stream
        self._make = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj
        self._frame = self._make()
        self._in_frame = False
        self._out = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._out:
            piece = self._stream.read(_PIECE)
            if not piece:
                if self._in_frame:
                    raise EOFError
                return b""
            self._out = memoryview(self._feed(piece))
        taken, self._out = self._out[:size], self._out[size:]
        return bytes(taken)

    def _feed(self, piece: bytes) -> bytes:
        parts = []
        while piece:
            self._in_frame = True
            parts.append(self._frame.decompress(piece))
            if not self._frame.eof:
                break
            piece, self._frame, self._in_frame = self._frame.unused_data, self._make(), False
        return b"".join(parts)

    def close(self) -> None:
        """Nothing of its own to close."""


@contextmanager
def reading(where: str, bad: BadInput) -> Iterator[None]:
    """Turns what can go wrong while ``where`` is opened, unpacked and read into one bad input."""
    try:
        yield
    except EOFError:
        bad.add_at(where, None, "is truncated: it ends early")
    except ExpansionError as error:
        bad.add_at(where, None, f"expands beyond limits.max_expansion ({error}): a bomb, or raise it")
    except (gzip.BadGzipFile, zlib.error) as error:
        bad.add_at(where, None, f"is not a whole gzip file ({error})")
    except zipfile.BadZipFile as error:
        bad.add_at(where, None, f"is not a whole zip file ({error})")
    except tarfile.TarError as error:
        bad.add_at(where, None, f"is not a whole tar file ({error})")
    except (UnicodeDecodeError, struct.error) as error:
        # Names and sizes of a damaged archive.
        bad.add_at(where, None, f"is damaged ({' '.join(str(error).split())[:120]})")
    except NotImplementedError as error:  # what zipfile raises for a compression it lacks
        bad.add_at(where, None, f"is compressed in a way that is not known here ({error})")
    except OSError as error:
        bad.add_at(where, None, f"cannot be read: {error.strerror or error}")
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # an optional package: its class is known only where it is installed
            raise
        bad.add_at(where, None, f"is not a whole Zstandard file ({' '.join(str(error).split())})")
