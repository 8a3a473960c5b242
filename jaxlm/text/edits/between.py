"""Replacing what lies between two marks, in one pass: a regular expression would try each opening to the text's end."""

import re


def replace_between(text: str, opening: re.Pattern[str], closing: re.Pattern[str], instead: str) -> tuple[str, int]:
    """(text with each stretch from an opening through the next closing replaced, their number).

    An opening that nothing closes stays, and so does all that follows it.
    """
    parts: list[str] = []
    done = count = 0
    while begin := opening.search(text, done):
        end = closing.search(text, begin.end())
        if end is None:
            break
        parts += [text[done : begin.start()], instead]
        done, count = end.end(), count + 1
    return ("".join([*parts, text[done:]]), count) if count else (text, 0)
