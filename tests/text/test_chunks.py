"""Laws of cutting long texts."""

import pytest

from jaxlm.text.chunks import chunk_text


@pytest.mark.parametrize(
    "text", ["", "x", "a" * 1000, "字" * 999, " " * 500, "\n" * 500, "word " * 300, "line\nline two\n\n" * 99]
)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_parts_join_to_the_text_and_are_bounded(text, size):
    parts = list(chunk_text(text, size))
    assert "".join(parts) == text
    assert all(0 < len(part) <= 2 * size for part in parts)


def test_cuts_stand_before_line_breaks_then_before_spaces():
    assert list(chunk_text("aaaa bbbb\ncccc dddd", 4)) == ["aaaa bbbb"[:4], " bbbb\ncccc dddd"[:5], "\ncccc", " dddd"]
