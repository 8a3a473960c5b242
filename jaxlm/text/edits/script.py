"""Traditional and simplified Chinese characters, by OpenCC."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from jaxlm.core.errors import UserError


@lru_cache(maxsize=4)
def _converter(table: str) -> Any:
    try:
        from opencc import OpenCC
    except ImportError:
        raise UserError("UnifyScript needs OpenCC: pip install 'jaxlm[clean]'") from None
    return OpenCC(table)


@dataclass(frozen=True)
class UnifyScript:
    """Writes Chinese in one script. It loses distinctions (t2s maps several characters to one), so no preset has it.

    A second run may change a few characters more (s2t chooses by neighbours).
    """

    to: Literal["simplified", "traditional"] = "simplified"

    @property
    def name(self) -> str:
        """In reports."""
        return "unify_script"

    def edit(self, text: str) -> tuple[str, int]:
        """Changes: characters that differ."""
        if text.isascii():
            return text, 0
        safe = text.encode("utf-8", "replace").decode()  # OpenCC takes no lone surrogates
        new = _converter("t2s" if self.to == "simplified" else "s2t").convert(safe)
        if new == text:
            return text, 0
        changed = sum(a != b for a, b in zip(text, new, strict=False)) + abs(len(text) - len(new))
        return new, changed
