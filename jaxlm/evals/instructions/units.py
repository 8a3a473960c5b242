"""What constraints count: words, sentences, paragraphs, in scripts with spaces and without."""

import re

from jaxlm.text.characters import marks

# A word keeps its marks, apostrophes and hyphens; Han and Kana have no spaces, so each character counts.
_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_RUN = rf"[^\W_{_WIDE}]+(?:[{marks()}]+[^\W_{_WIDE}]*)*"
_WORD = re.compile(rf"[{_WIDE}]|{_RUN}(?:['’-]{_RUN})*")
_IN_WORD = rf"[\w{marks()}]"
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_ENDS = re.compile(r"[.!?]+[\"'”’)\]*_]*(?=\s|$)|[。！？…]+[”’」』）]*")
_SHORT = re.compile(
    r"(?:^|[\s(\"])(?:[ap]\.m|mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|no|jr|sr|inc|p|[a-z])\.$", re.IGNORECASE
)
_BULLET = re.compile(r"^\s*(?:[*•](?!\*)|-(?!-))[ \t]*\S", re.MULTILINE)


def words(text: str) -> list[str]:
    """Words; a Han or Kana character is one.

    >>> words("It's a well-known 故事, no?")
    ["It's", 'a', 'well-known', '故', '事', 'no']
    """
    return _WORD.findall(text)


def han_characters(text: str) -> list[str]:
    """Chinese characters, without punctuation."""
    return _HAN.findall(text)


def sentences(text: str) -> list[str]:
    """Stretches up to a full stop, question or exclamation mark, Western or Chinese; what is left behind the last one
    is one too. Full stops of abbreviations and initials end none.

    >>> sentences("Dr. Lee came. Who? 他来了。好！And then")
    ['Dr. Lee came.', 'Who?', '他来了。', '好！', 'And then']
    """
    found, start = [], 0
    for end in _ENDS.finditer(text):
        piece = text[start : end.end()]
        if end.group() == "." and _SHORT.search(piece):
            continue
        if words(piece):
            found.append(piece.strip())
        start = end.end()
    if words(text[start:]):
        found.append(text[start:].strip())
    return found


def paragraphs(text: str, divider: str | None = None) -> list[str]:
    """Parts with blank lines between, or with lines of ``divider`` ("***") between."""
    between = r"\n\s*\n" if divider is None else rf"\s?{re.escape(divider)}\s?"
    return [part.strip() for part in re.split(between, text) if part.strip()]


def bullets(text: str) -> int:
    """Lines of a list: behind ``*``, ``•`` or ``-``, with a space after it or without (``**bold**`` begins none)."""
    return len(_BULLET.findall(text))


def occurrences(text: str, phrase: str, *, within_words: bool = False) -> int:
    """How often a phrase stands in a text, in any case: as whole words, or also ``within_words``. Where the phrase ends
    in Han or Kana there are no such bounds.

    >>> occurrences("Cats, a cat; 猫和猫", "cat"), occurrences("Cats, a cat", "cat", within_words=True)
    (1, 2)
    """
    pattern = re.escape(phrase)
    if not within_words:
        before = f"(?<!{_IN_WORD})" if bounded(phrase[:1]) else ""
        after = f"(?!{_IN_WORD})" if bounded(phrase[-1:]) else ""
        pattern = f"{before}{pattern}{after}"
    return len(re.findall(pattern, text, re.IGNORECASE))


def bounded(character: str) -> bool:
    """Whether a word that begins or ends with it is told from what stands beside it: not in Han and Kana."""
    return bool(re.match(_IN_WORD, character)) and not re.match(f"[{_WIDE}]", character)
