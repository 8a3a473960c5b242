"""Mends text that was decoded wrongly or carries characters nobody sees."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from jaxlm.core.errors import UserError

_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters
    "\u00ad\u200b\u200e\u200f\u2060-\u2064\ufeff"  # soft hyphen, zero widths, direction marks
    "\u202a-\u202e\u2066-\u206f\ufff9-\ufffb]"
)
_PLAIN = re.compile(r"[\t\n\x20-\x7e]*")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")


_BYTES = "\x80-\u04ff\u2010-\u2122\u2202-\u25ff"  # what bytes from 0x80 on become in the code pages that ftfy knows
_SUSPECT = re.compile(f"[\x80-\x9f]|[{_BYTES}][{_BYTES}\ufffd]|[ÂÃÐÑà] ")
"""Mojibake is two such characters in a row, or one whose second became a space; all else is no work for ftfy."""


@cache
def _fixer() -> Any:
    try:
        import ftfy
    except ImportError:
        raise UserError("RepairUnicode mends mojibake with ftfy: pip install 'jaxlm[clean]'") from None
    return ftfy.fix_encoding


@dataclass(frozen=True)
class RepairUnicode:
    """Mojibake (ftfy, line by line), lone surrogates, line breaks, unseen characters, odd spaces, normal form.

    Zero-width joiners stay: Persian, Indian scripts and emoji are written with them. So do the ideographic space and
    full-width signs. A second run may find mojibake inside mojibake.
    """

    mojibake: bool = True
    form: Literal["NFC", "NFKC"] | None = "NFC"

    @property
    def name(self) -> str:
        """In reports."""
        return "repair_unicode"

    def edit(self, text: str) -> tuple[str, int]:
        """Changes: characters and line breaks replaced or dropped, lines of mojibake mended, 1 for the normal form."""
        if _PLAIN.fullmatch(text):
            return text, 0
        text, changes = _SURROGATES.subn("\ufffd", text)
        # Before the unseen go: in mojibake, control characters are bytes of what is meant.
        if self.mojibake and _SUSPECT.search(text):
            lines = text.split("\n")
            fixed = [_fixer()(line) if _SUSPECT.search(line) else line for line in lines]
            mended = sum(old != new for old, new in zip(lines, fixed, strict=True))
            if mended:
                text, changes = "\n".join(fixed), changes + mended
        for pattern, instead in ((_BREAKS, "\n"), (_HIDDEN, ""), (_SPACES, " ")):
            text, count = pattern.subn(instead, text)
            changes += count
        if self.form and not unicodedata.is_normalized(self.form, text):
            text, changes = unicodedata.normalize(self.form, text), changes + 1
        return text, changes
