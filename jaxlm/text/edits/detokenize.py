"""Text whose words and signs were set apart by a tokenizer (Penn Treebank, WikiText), as it is written."""

import re
from dataclasses import dataclass

_JOINED = re.compile(r"(?<=\S) @([-,.])@ (?=\S)")
"""Inside a word, as WikiText marks them: ``17 @-@ match``."""
_SUFFIX = re.compile(r"(?<=\w) +(?=(?:n't|['’](?:s|t|d|m|ll|re|ve))(?!\w))", re.IGNORECASE)
_PLURAL = re.compile(r"(?<=\ws) +(?=['’](?=\s|$))")
_BEFORE = re.compile(r"(?<=\S) +(?=(?:\.{2,3}|[.,;:!?%)\]}…])(?:[\s.,;:!?\"'’”]|$))")
_BEHIND = re.compile(r"(?<!\S)([(\[{]) +(?=\S)|(?<![^\s(\[{\"])([$£€]) +(?=\d)")
_BETWEEN = re.compile(r"(?<=\d) ([–:]) (?=\d)|(?<=\b[OD]) (['’])(?=[A-Z])")
"""``2013 – 14``, ``06 : 07``, ``O 'Brien``."""
_SPACED = (
    (_JOINED, r"\1"), (_BETWEEN, r"\1\2"), (_SUFFIX, ""), (_PLURAL, ""), (_BEFORE, ""), (_BEHIND, r"\1\2")
)  # fmt: skip
_QUOTE = re.compile(r"(?<!\S)\"(?!\S)")


@dataclass(frozen=True)
class Detokenize:
    """Takes out the spaces that a tokenizer put in: before ``. , ; : ! ? % )``, behind ``( [ {`` and signs of currency,
    round ``@-@ @,@ @.@``, in ``do n't``, ``she 's``, ``O 'Brien``, ``the players '``, ``2013 – 14``, ``06 : 07``, and
    inside pairs of ``"`` of a line.

    By form alone, for English. A lone quotation mark stays as it is; so do headings (``= = History = =``) and dashes.
    """

    @property
    def name(self) -> str:
        """In reports."""
        return "detokenize"

    def edit(self, text: str) -> tuple[str, int]:
        """Changes: places joined."""
        count, lines = 0, text.split("\n")
        for i, line in enumerate(lines):
            if '"' in line:
                lines[i], found = _paired(line)
                count += found
        text = "\n".join(lines)
        for pattern, kept in _SPACED:
            text, found = pattern.subn(kept, text)
            count += found
        return text, count


def _paired(line: str) -> tuple[str, int]:
    """The line with every second of its standing quotation marks closing what the one before opens."""
    marks = [match.start() for match in _QUOTE.finditer(line)]
    parts, done = [], 0
    for opening, closing in zip(marks[::2], marks[1::2], strict=False):
        inside = line[opening + 1 : closing].strip(" ")
        parts += [line[done:opening], f'"{inside}"']
        done = closing + 1
    return "".join([*parts, line[done:]]), len(parts) // 2
