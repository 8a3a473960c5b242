"""What a general-purpose compressor makes of the same text: a floor that any language model should beat."""

import lzma
from collections.abc import Iterable

_SEPARATOR = b"\0"
"""Between documents, as a model's end-of-document token is: both pay for saying where a document ends."""


def primed_xz_bits_per_byte(train: Iterable[str], held_out: Iterable[str]) -> float:
    """Bits that ``xz -9e`` spends on each byte of the held-out texts once it has read the training texts.

    ``8 (|xz(train + held_out)| - |xz(train)|) / |held_out|``, the held-out size in UTF-8 bytes without separators,
    as in the models' bits per byte. xz looks back 64 MiB at most, so longer training texts prime it with their end
    alone. Raises ValueError for an empty held-out set.
    """
    prefix = b"".join(text.encode() + _SEPARATOR for text in train)
    held_out_bytes = [text.encode() for text in held_out]
    num_bytes = sum(map(len, held_out_bytes))
    if not num_bytes:
        raise ValueError("no held-out text to compress")
    suffix = b"".join(text + _SEPARATOR for text in held_out_bytes)
    return 8 * (_xz_size(prefix + suffix) - _xz_size(prefix)) / num_bytes


def _xz_size(data: bytes) -> int:
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME))
