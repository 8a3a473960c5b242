"""The line rules of C4 (Raffel et al. 2020, section 2.2). Its page rules are `rules.c4`."""

import re
from dataclasses import dataclass

_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


@dataclass(frozen=True)
class C4Lines:
    """Keeps the lines that read like sentences; drops Wikipedia's citation marks.

    A line goes if it does not end in a terminal mark or ends in an ellipsis, has fewer than ``min_words`` words, a word
    of more than ``max_word`` characters, or one of ``forbidden``. Between kept lines at most one blank line is left.
    """

    ends: tuple[str, ...] | None = (".", "?", "!", '"', "'")  # None: a line may end as it likes
    min_words: int = 3
    max_word: int = 1000
    forbidden: tuple[str, ...] = ("javascript", *POLICY)  # lower case
    citations: bool = True  # drop "[3]", "[edit]" and "[citation needed]"

    def __post_init__(self) -> None:
        if self.min_words < 0 or self.max_word < 1:
            raise ValueError(f"min_words={self.min_words} is below 0 or max_word={self.max_word} below 1")

    @property
    def name(self) -> str:
        """In reports."""
        return "c4_lines"

    def edit(self, text: str) -> tuple[str, int]:
        """Changes: lines dropped and citations taken out."""
        changes = 0
        if self.citations and "[" in text:
            text, changes = _CITATION.subn("", text)
        kept: list[str] = []
        for line in text.split("\n"):
            stripped = line.strip()
            if not stripped:
                if kept and kept[-1]:
                    kept.append("")
            elif self._keeps(stripped):
                kept.append(stripped)
            else:
                changes += 1
        return ("\n".join(kept).strip(), changes) if changes else (text, 0)

    def _keeps(self, line: str) -> bool:
        if self.ends is not None and (not line.endswith(self.ends) or line.endswith("...")):
            return False
        if len(line.split(None, self.min_words)) < self.min_words:
            return False
        if len(line) > self.max_word and max(map(len, line.split())) > self.max_word:
            return False
        low = line.lower()
        return not any(phrase in low for phrase in self.forbidden)
