"""The answer in what a model wrote: a number, a letter, yes or no, or words; and whether it is the right one.

Where a text says "the answer is", what follows the last such words counts, and of that the first candidate. A text
that stands behind such words already (the second stage of zero-shot chain of thought; Kojima et al. 2022) is read in
the same way. Of any other text the last candidate counts: reasoning names its result at the end.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Form = Literal["number", "letter", "yes_no", "exact", "word"]

TRIGGERS = ("answer is", "answer:", "####", "\\boxed{", "答案是", "答案为", "答案:", "答案：")


@dataclass(frozen=True)
class Extraction:
    """How an answer is read.

    ``number``: compared by value (1,200 = 1200.0; commas between thousands and signs of currency and per cent dropped).
    ``letter``: of a choice, "(B)" or a "B" that stands alone. ``yes_no``: the word, in any case. ``word``: one word,
    without punctuation, in any case. ``exact``: all of the text, white space around it and one full stop at its end
    dropped.
    """

    form: Form
    letters: str = "ABCDE"
    """Of the choices there can be, for ``letter``."""
    triggers: tuple[str, ...] = TRIGGERS
    """What announces an answer, in any case."""

    def read(self, text: str, *, behind_cue: bool = False) -> str | None:
        """The answer in a text, None where it has none. ``behind_cue``: the prompt ended with what announces it.

        >>> Extraction("number").read("3 boxes of 12. The answer is 36 eggs, not 40.")
        '36'
        >>> Extraction("letter").read("(A) is too small, so I take (C).")
        'C'
        >>> Extraction("yes_no").read(" No.", behind_cue=True)
        'no'
        """
        tail = text if behind_cue else _behind_last(text, self.triggers)
        if tail is not None:
            return next(iter(_CANDIDATES[self.form](tail, self.letters)), None)
        # Of reasoning the last letter in brackets, if there is one: an "A" that stands alone may be an article.
        bracketed = re.findall(rf"[(\uff08]([{self.letters}])[)\uff09]", text) if self.form == "letter" else []
        return next(reversed(bracketed or _CANDIDATES[self.form](text, self.letters)), None)

    def agrees(self, found: str | None, gold: str) -> bool:
        """Whether an answer that was read is the right one. Raises ValueError for a gold answer of another form."""
        wanted = _CANDIDATES[self.form](gold, self.letters)
        if not wanted:
            raise ValueError(f"the gold answer {gold!r} is no {self.form}")
        if found is None:
            return False
        return self.value(found) == self.value(wanted[0])

    def value(self, answer: str) -> Decimal | str:
        """What an answer that was read is compared by: the value of a number, else its text."""
        return Decimal(answer) if self.form == "number" else answer


def vote(answers: Sequence[str | None], value: Callable[[str], Hashable] = str) -> str | None:
    """The commonest answer, of equals the earliest (self-consistency; Wang et al. 2023); texts without one do not vote.
    Answers of one ``value`` vote together, and the earliest of them is returned.

    >>> vote(["7", None, "9", "9", "7"])
    '7'
    """
    cast = [answer for answer in answers if answer is not None]
    counts = Counter(map(value, cast))
    return max(cast, key=lambda answer: counts[value(answer)], default=None)


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of the stop strings."""
    return text[: min((place for place in map(text.find, stop) if place >= 0), default=len(text))]


def _behind_last(text: str, triggers: Sequence[str]) -> str | None:
    """What follows the last trigger; None if there is none."""
    found = [match.end() for trigger in triggers for match in re.finditer(re.escape(trigger), text, re.IGNORECASE)]
    return text[max(found) :] if found else None


# A minus is a sign where no digit, letter or bracket stands before it: "10-5" holds 10 and 5. A comma belongs to a
# number where it sets thousands apart: "3,4" holds 3 and 4.
_NUMBER = re.compile(r"(?:(?<![\w)])[-−])?[$€£¥]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+)")
_YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def _numbers(text: str, letters: str) -> list[str]:
    return [re.sub(r"[,$€£¥]", "", one).replace("\u2212", "-") for one in _NUMBER.findall(text)]


def _letters(text: str, letters: str) -> list[str]:
    """Letters that stand alone, in brackets or not; next to Han a letter stands alone too."""
    return re.findall(rf"(?<![A-Za-z0-9_'’])([{letters}])(?![A-Za-z0-9_'’])", text)


def _yes_no(text: str, letters: str) -> list[str]:
    return [one.lower() for one in _YES_NO.findall(text)]


def _whole(text: str, letters: str) -> list[str]:
    said = text.strip().removesuffix(".").strip()
    return [said] if said else []


def _words(text: str, letters: str) -> list[str]:
    return [one.lower() for one in re.findall(r"\w+(?:['’-]\w+)*", text)]


_CANDIDATES = {"number": _numbers, "letter": _letters, "yes_no": _yes_no, "exact": _whole, "word": _words}
"""Form -> all the candidates in a text, in their order."""
