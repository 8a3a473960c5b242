"""Cut long texts where a tokenizer would cut them anyway."""

from collections.abc import Iterator


def chunk_text(text: str, size: int) -> Iterator[str]:
    """Consecutive parts of ``text`` of about ``size`` characters, at most ``2 * size``; joined they are ``text``.

    A cut falls before the first line break after ``size`` characters, else before the first space, else at
    ``2 * size``. Both begin a new word for SentencePiece (a space stands at the head of its word), so a cut costs
    next to no tokens. The cuts depend on the text alone.
    """
    start, end = 0, len(text)
    while end - start > 2 * size:
        low, high = start + size, start + 2 * size
        cut = text.find("\n", low, high)
        if cut < 0:
            cut = text.find(" ", low, high)
        if cut < 0:
            cut = high
        yield text[start:cut]
        start = cut
    if start < end:
        yield text[start:]
