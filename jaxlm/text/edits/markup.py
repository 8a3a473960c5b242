"""Left-over HTML in text that should have none."""

import html
import re
from dataclasses import dataclass

from jaxlm.text.edits.between import replace_between

_BLOCKS = "address article aside blockquote br dd div dl dt figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol option p pre section select table tbody td tfoot th thead tr ul"  # fmt: skip  # noqa: E501
_INLINE = "a abbr acronym b bdi bdo big body button center cite code del dfn em font head html i iframe img input ins kbd label link mark meta noscript q s samp small source span strike strong sub sup svg textarea title tt u var video"  # fmt: skip  # noqa: E501
_REST = r"(?:\s[^<>]{0,2000})?\s?/?>"
_UNSEEN = tuple(
    (re.compile(opening, re.I), re.compile(closing, re.I))
    for opening, closing in (
        ("<!--", "-->"),
        ("<!DOCTYPE", ">"),
        (r"<script(?=[\s>])", r"</script\s{0,9}>"),
        (r"<style(?=[\s>])", r"</style\s{0,9}>"),
    )
)
_BLOCK_TAG = re.compile(rf"</?(?:{'|'.join(_BLOCKS.split())}){_REST}", re.I)
_INLINE_TAG = re.compile(rf"</?(?:{'|'.join(_INLINE.split())}){_REST}", re.I)
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,31}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_GAP = re.compile(r"\n\s*\n\s*\n+")


@dataclass(frozen=True)
class StripMarkup:
    """Takes out HTML tags by name, comments, scripts and styles; spells out entities that end in a semicolon.

    A block's tag becomes a line break. Only names of HTML count as tags, so "a < b" and "List<int>" stay. Tags first: a
    page *about* HTML writes ``&lt;b&gt;``, and a single run leaves it ``<b>``. Not for code.
    """

    entities: bool = True

    @property
    def name(self) -> str:
        """In reports."""
        return "strip_markup"

    def edit(self, text: str) -> tuple[str, int]:
        """Changes: tags, comments, blocks and entities."""
        changes = 0
        if "<" in text and ">" in text:
            for opening, closing in _UNSEEN:
                text, count = replace_between(text, opening, closing, "")
                changes += count
            for pattern, instead in ((_BLOCK_TAG, "\n"), (_INLINE_TAG, "")):
                text, count = pattern.subn(instead, text)
                changes += count
            if changes:
                text = _GAP.sub("\n\n", text).strip()
        if self.entities and "&" in text:
            text, count = _ENTITY.subn(_spell, text)
            changes += count
        return text, changes


def _spell(match: re.Match[str]) -> str:
    return html.unescape(match[0]).replace("\u00a0", " ")
