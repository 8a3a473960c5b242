"""The constraints that can be checked: id -> what arguments it takes, and whether a text keeps to it."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxlm.evals.instructions.languages import LANGUAGES, is_in
from jaxlm.evals.instructions.units import bounded, bullets, han_characters, occurrences, paragraphs, sentences, words

_RANGE = {"at_least": int, "at_most": int, "exactly": int}


class Check(NamedTuple):
    """One kind of constraint."""

    holds: Callable[..., bool]
    """``holds(text, **arguments)``."""
    needed: Mapping[str, type] = {}
    """Arguments that must be there."""
    optional: Mapping[str, type] = {}

    @property
    def counts(self) -> bool:
        """Whether it takes ``at_least``, ``at_most`` or ``exactly``, at least one of them."""
        return "at_least" in self.optional


def _counted(count: Callable[..., int], needed: Mapping[str, type] | None = None, **optional: type) -> Check:
    def holds(
        text: str, *, at_least: int | None = None, at_most: int | None = None, exactly: int | None = None, **rest: Any
    ) -> bool:
        number = count(text, **rest)
        return (
            (at_least is None or number >= at_least)
            and (at_most is None or number <= at_most)
            and (exactly is None or number == exactly)
        )

    return Check(holds, needed or {}, {**_RANGE, **optional})


def _letter_count(text: str, *, letter: str) -> int:
    return text.lower().count(letter.lower())


def _highlights(text: str) -> int:
    """Stretches in single or double asterisks."""
    double = re.findall(r"\*\*([^*\n]+)\*\*", text)
    single = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text)
    return sum(1 for one in double + single if one.strip())


def _capital_words(text: str) -> int:
    return sum(1 for word in words(text) if any(map(str.isalpha, word)) and word.isupper())


def _sections(text: str, *, marker: str) -> int:
    """Headings such as "Section 1"."""
    return len(re.findall(rf"(?<!\w){re.escape(marker)}\s?\d+", text))


def _is_json(text: str) -> bool:
    """All of it, a fence of backquotes aside."""
    bare = re.sub(r"^\s*```(?:json|JSON)?\s*\n?|\n?\s*```\s*$", "", text.strip())
    try:
        value = json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)


def _keywords(text: str, *, words: list[str], within_words: bool = False) -> bool:
    return all(occurrences(text, word, within_words=within_words) for word in words)


def _in_order(text: str, *, phrases: list[str]) -> bool:
    """Each behind the one before, in any case."""
    place, lower = 0, text.lower()
    for phrase in phrases:
        found = lower.find(phrase.lower(), place)
        if found < 0:
            return False
        place = found + len(phrase)
    return True


def _sorted_lines(text: str) -> bool:
    lines = [
        re.sub(r"^\s*(?:[*•-]|\d+[.)])\s*", "", line).strip().lower() for line in text.splitlines() if line.strip()
    ]
    return len(lines) > 1 and lines == sorted(lines)


_PAIRS = {'"': '"', "“": "”", "「": "」", "『": "』"}


def _quoted(text: str) -> bool:
    said = text.strip()
    return len(said) > 1 and said[0] in _PAIRS and said[-1] == _PAIRS[said[0]]


def _starts(text: str, *, phrase: str) -> bool:
    return text.strip().lower().startswith(phrase.strip().lower())


def _ends(text: str, *, phrase: str) -> bool:
    return text.strip().strip("\"'”").strip().lower().endswith(phrase.strip().strip("\"'”").lower())


def _postscript(text: str, *, marker: str) -> bool:
    letters = [one for one in marker if one.isalpha()]
    if not letters:
        return marker in text
    # "P. S." and "P.S" are postscripts where "P.S." was asked for, "P.P.S." is not; "**P.S.**" is one too.
    spelt = "[.]?[ ]?".join(map(re.escape, letters))
    before, after = (r"(?<![\w.])" if bounded(letters[0]) else ""), (r"(?!\w)" if bounded(letters[-1]) else "")
    return re.search(f"{before}{spelt}{after}", text, re.IGNORECASE) is not None


def _responses(text: str, *, divider: str = "******", exactly: int = 2) -> bool:
    parts = [part.strip() for part in text.split(divider)]
    parts = [part for i, part in enumerate(parts) if part or 0 < i < len(parts) - 1]
    return len(parts) == exactly and all(parts) and len(set(parts)) == len(parts)


def _paragraph_start(text: str, *, paragraph: int, word: str, of: int) -> bool:
    parts = paragraphs(text)
    if len(parts) != of or not 1 <= paragraph <= of:
        return False
    asked = [one.lower() for one in words(word)]  # of a Chinese word, each character
    return bool(asked) and [one.lower() for one in words(parts[paragraph - 1])[: len(asked)]] == asked


def _upper(text: str) -> bool:
    return any(map(str.isupper, text)) and not any(map(str.islower, text))


def _lower(text: str) -> bool:
    return any(map(str.islower, text)) and not any(map(str.isupper, text))


def _title(text: str) -> bool:
    return any(one.strip("<> ") for one in re.findall(r"<<[^\n]+>>", text))


CHECKS: dict[str, Check] = {
    "words": _counted(lambda text: len(words(text))),
    "characters": _counted(lambda text: len(text.strip())),
    "han_characters": _counted(lambda text: len(han_characters(text))),
    "sentences": _counted(lambda text: len(sentences(text))),
    "paragraphs": _counted(lambda text, divider=None: len(paragraphs(text, divider)), divider=str),
    "lines": _counted(lambda text: sum(1 for line in text.splitlines() if line.strip())),
    "bullets": _counted(bullets),
    "sections": _counted(_sections, {"marker": str}),
    "highlights": _counted(_highlights),
    "placeholders": _counted(lambda text: len(re.findall(r"\[[^\[\]]+\]", text))),
    "capital_words": _counted(_capital_words),
    "keyword_count": _counted(
        lambda text, word, within_words=False: occurrences(text, word, within_words=within_words),
        {"word": str},
        within_words=bool,
    ),
    "letter_count": _counted(_letter_count, {"letter": str}),
    "keywords": Check(_keywords, {"words": list}, {"within_words": bool}),
    "forbidden": Check(lambda text, *, words: not any(occurrences(text, word) for word in words), {"words": list}),
    "order": Check(_in_order, {"phrases": list}),
    "sorted_lines": Check(_sorted_lines),
    "json": Check(_is_json),
    "title": Check(_title),
    "uppercase": Check(_upper),
    "lowercase": Check(_lower),
    "no_comma": Check(lambda text: not re.search(r"[,，]", text)),
    "quoted": Check(_quoted),
    "starts_with": Check(_starts, {"phrase": str}),
    "ends_with": Check(_ends, {"phrase": str}),
    "paragraph_start": Check(_paragraph_start, {"paragraph": int, "word": str, "of": int}),
    "postscript": Check(_postscript, {"marker": str}),
    "one_of": Check(lambda text, *, phrases: any(phrase in text for phrase in phrases), {"phrases": list}),
    "responses": Check(_responses, {}, {"divider": str, "exactly": int}),
    "language": Check(lambda text, *, language: is_in(text, language), {"language": str}),
}
"""A number of ... is given by ``at_least``, ``at_most`` or ``exactly``."""


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for an unknown constraint, and for arguments that are missing, unknown or of another type."""
    if name not in CHECKS:
        raise ValueError(f"constraint {name!r} is unknown (there are {', '.join(CHECKS)})")
    check = CHECKS[name]
    known = {**check.optional, **check.needed}
    for argument, value in arguments.items():
        if argument not in known:
            raise ValueError(f"constraint {name!r} has no argument {argument!r} (it has {', '.join(known) or 'none'})")
        kind = known[argument]
        if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 0)):
            raise ValueError(f"constraint {name!r}: {argument}={value!r} is no {_KINDS[kind]}")
        if kind is list and not (value and all(isinstance(one, str) and one for one in value)):
            raise ValueError(f"constraint {name!r}: {argument}={value!r} is no list of texts")
        if kind is str and not value:
            raise ValueError(f"constraint {name!r}: {argument} is empty")
    missing = [argument for argument in check.needed if argument not in arguments]
    if missing:
        raise ValueError(f"constraint {name!r} lacks {missing[0]!r}")
    if check.counts and not set(_RANGE) & set(arguments):
        raise ValueError(f"constraint {name!r} says no number: give at_least, at_most or exactly")
    if name == "language" and arguments["language"] not in LANGUAGES:
        raise ValueError(f"language {arguments['language']!r} is none of {', '.join(LANGUAGES)}")


_KINDS = {int: "whole number from 0 on", str: "text", list: "list of texts", bool: "true or false"}
