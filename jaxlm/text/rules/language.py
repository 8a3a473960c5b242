"""Which language a text is in, by lingua: its models lie inside the package, nothing is fetched."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.text.column import TextColumn
from jaxlm.text.steps import Check, Verdicts, decide

CANDIDATES = (
    "ar", "cs", "de", "en", "es", "fa", "fr", "hi", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr", "uk",
    "vi", "zh",
)  # fmt: skip
"""The languages told apart by default: those of most pages."""


@lru_cache(maxsize=4)
def _detector(codes: tuple[str, ...], quick: bool) -> Any:
    try:
        from lingua import Language as Known
        from lingua import LanguageDetectorBuilder
    except ImportError:
        raise UserError("the rule Language needs lingua: pip install 'jaxlm[clean]'") from None
    known = {str(language.iso_code_639_1.name).lower(): language for language in Known.all()}
    unknown = [code for code in codes if code not in known]
    if unknown:
        raise UserError(f"lingua knows no language {', '.join(map(repr, unknown))}: use {', '.join(sorted(known))}")
    builder = LanguageDetectorBuilder.from_languages(*(known[code] for code in codes))
    return (builder.with_low_accuracy_mode() if quick else builder).build()


@dataclass(frozen=True)
class Language:
    """Keeps texts that are most likely in one of ``allowed``, at a confidence of at least ``minimum``.

    Judged by a sample: up to ``sample`` characters from a third of the way in, where navigation has ended. A text
    without a letter is in no language. The confidence is lingua's, relative to the ``candidates``.
    """

    allowed: tuple[str, ...] = ("en",)  # ISO 639-1
    minimum: float = 0.5
    candidates: tuple[str, ...] = CANDIDATES  # with `allowed`; more of them cost time and memory
    sample: int = 300
    quick: bool = True  # trigrams only: as good on samples of 100 characters or more

    def __post_init__(self) -> None:
        if not self.allowed:
            raise ValueError("allowed is empty: name at least one language")
        if not 0.0 <= self.minimum <= 1.0:
            raise ValueError(f"minimum={self.minimum} is outside 0 .. 1")
        if self.sample < 1:
            raise ValueError(f"sample={self.sample} is below 1")
        if len(set(self.allowed + self.candidates)) < 2:
            raise ValueError("candidates must name at least one other language: there is nothing to tell apart")

    @property
    def name(self) -> str:
        """In reports."""
        return "language"

    def judge(self, texts: TextColumn) -> Verdicts:
        """See `Rule`; the value is the confidence in the likeliest language."""
        found = [self.detect(text) for text in texts.texts]
        confidence_n = np.array([confidence for _, confidence in found], np.float64)
        allowed_n = np.array([code in self.allowed for code, _ in found], bool)
        none_n = np.array([code == "" for code, _ in found], bool)
        return decide(
            [
                Check("no language", confidence_n, none_n),
                Check(f"not in {', '.join(self.allowed)}", confidence_n, ~allowed_n),
                Check(f"confidence below {self.minimum:g}", confidence_n, confidence_n < self.minimum),
            ]
        )

    def detect(self, text: str) -> tuple[str, float]:
        """(the likeliest language, confidence), ("", 0.0) if there is none."""
        start = max(0, min(len(text) // 3, len(text) - self.sample))
        piece = text[start : start + self.sample].encode("utf-8", "replace").decode()
        codes = tuple(sorted(set(self.allowed + self.candidates)))
        values = _detector(codes, self.quick).compute_language_confidence_values(piece)
        if not values or not values[0].value or not any(character.isalpha() for character in piece):
            return "", 0.0
        return values[0].language.iso_code_639_1.name.lower(), values[0].value
