"""Junk for studies of cleaning: what a page leaves when its tags are taken out, and damage done to good text.

Everything is drawn from the generator given, so the same seed makes the same junk.
"""

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_TAG = re.compile(r"<!--.*?-->|<[^<>]*>", re.DOTALL)
_BLOCK = re.compile(
    r"<(?=/?(?:p|div|li|ul|ol|td|tr|h[1-6]|br|title|pre|dt|dd|table|section|header|footer|nav)\b)", re.I
)
_OPEN_QUOTE = re.compile(r'(^|[\s(\[])"(?=\S)', re.MULTILINE)
_BOASTS = ("best", "cheap", "buy", "free", "online", "top", "deals", "review", "discount", "2024")


class Stripped(NamedTuple):
    """A page as a naive crawler reads it."""

    lines: list[str]
    """Every line that is not blank, of scripts and styles too."""
    furniture: list[str]
    """Those whose text does not stand in the page's main text: menus, tables of contents, styles, footers."""


def strip_page(source: str, main_text: str) -> Stripped:
    """Takes the tags out of a page and leaves all else."""
    broken = _BLOCK.sub("\n<", source)
    plain = html.unescape(_TAG.sub("", broken)).replace("\u00a0", " ")
    lines = [line.strip() for line in plain.split("\n") if line.strip()]
    known = "".join(main_text.split())
    return Stripped(lines, [line for line in lines if "".join(line.split()) not in known])


def typographic(text: str) -> str:
    """Curly quotation marks, apostrophes and dashes, as word processors set them."""
    text = _OPEN_QUOTE.sub("\\1\u201c", text).replace('"', "\u201d").replace("'", "\u2019")
    return text.replace(" -- ", " \u2014 ").replace("...", "\u2026")


def misread(text: str) -> str:
    """UTF-8 read as Windows-1252, as browsers do: an apostrophe becomes three characters.

    Bytes that have no character there become C1 controls.
    """
    return "".join(_WINDOWS[byte] for byte in text.encode("utf-8", "replace"))


def _windows(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


_WINDOWS = [_windows(byte) for byte in range(256)]


def tagged(text: str, rng: np.random.Generator) -> str:
    """Paragraphs in tags, some words as links, special characters as entities: markup that was left over."""
    parts = []
    for line in text.split("\n"):
        words = html.escape(line).split(" ")
        for place in np.flatnonzero(rng.random(len(words)) < 0.04).tolist():
            if words[place]:
                style = ('<a href="/page/{0}.html" class="internal">{1}</a>', "<b>{1}</b>", "<code>{1}</code>")
                words[place] = style[int(rng.integers(3))].format(int(rng.integers(1000)), words[place])
        joined = "&nbsp;".join(words) if rng.random() < 0.05 else " ".join(words)
        parts.append(f'<p class="text">{joined}</p>' if line.strip() else "<br/>")
    return "<div>\n" + "\n".join(parts) + "\n</div>"


def spam(key_words: Sequence[str], size: int, rng: np.random.Generator) -> str:
    """A few key words over and over, in phrases and with boasts, about ``size`` characters."""
    keys = [key_words[i] for i in rng.choice(len(key_words), 4, replace=False)]
    parts: list[str] = []
    length = 0
    while length < size:
        count = int(rng.integers(2, 6))
        pool = [*keys, _BOASTS[int(rng.integers(len(_BOASTS)))]]
        phrase = " ".join(pool[i] for i in rng.integers(len(pool), size=count))
        phrase += (", ", ". ", " | ", "!\n", " ")[int(rng.integers(5))]
        parts.append(phrase)
        length += len(phrase)
    return "".join(parts).strip()


def numbers(size: int, rng: np.random.Generator) -> str:
    """A list of numbers, dates or hexadecimal sums, one to four a line."""
    kind, columns = int(rng.integers(3)), int(rng.integers(1, 5))
    lines: list[str] = []
    length = 0
    while length < size:
        drawn = rng.integers(0, 1 << 31, (columns, 4)).tolist()
        if kind == 0:
            cells = [f"{row[0] % 100000}.{row[1] % 100:02}" for row in drawn]
        elif kind == 1:
            cells = [f"{1990 + row[0] % 35}-{1 + row[1] % 12:02}-{1 + row[2] % 28:02}" for row in drawn]
        else:
            cells = ["".join(f"{part:08x}" for part in row) for row in drawn]
        lines.append("  ".join(cells))
        length += len(lines[-1]) + 1
    return "\n".join(lines)


def near_copy(text: str, rate: float, key_words: Sequence[str], rng: np.random.Generator) -> str:
    """The text with a share ``rate`` of its words replaced by ``key_words``; white space stays."""
    parts = re.split(r"(\s+)", text)
    for place in np.flatnonzero(rng.random(len(parts)) < rate).tolist():
        if parts[place].strip():
            parts[place] = key_words[int(rng.integers(len(key_words)))]
    return "".join(parts)


def shuffled(text: str, rng: np.random.Generator) -> str:
    """The characters of a text in an order of chance: which there are can be learnt, and nothing else."""
    return "".join(text[place] for place in rng.permutation(len(text)).tolist())
