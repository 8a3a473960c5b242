"""Personal data and secrets, replaced by placeholders: mail addresses, telephone numbers, IP addresses, keys."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxlm.text.edits.between import replace_between

_MAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b", re.ASCII)
_PHONE = re.compile(
    r"(?<![\w.,+/$€£-])(?:"
    r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}"  # +44 20 7946 0958
    r"|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}|(?:1[ .-])?\d{3}([.-])\d{3}\1\d{4}"  # (212) 555-0100, 212-555-0100
    r"|1[3-9]\d{9}|0\d{2,3}-\d{7,8}"  # China: mobile, land line
    r")(?![\w-]|[.,]\d)",
    re.ASCII,
)
_FOUR = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)", re.ASCII)
_SIX = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])", re.ASCII)
_VERSION = re.compile(r"(?:\bversion|\bv|\brelease|\brev)\.?\s*$", re.I)
_PRIVATE_KEY = (
    re.compile(r"-----BEGIN (?:[A-Z]{1,12} ){0,3}PRIVATE KEY-----"),
    re.compile(r"-----END (?:[A-Z]{1,12} ){0,3}PRIVATE KEY-----"),
)
_KEY = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{22,255}\b|\bglpat-[\w-]{20,64}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,200}\b|\bAIza[\w-]{35}\b|\bhf_[A-Za-z0-9]{30,64}\b"
    r"|\bsk-[A-Za-z0-9_-]{20,200}|\b[rs]k_live_[A-Za-z0-9]{16,99}\b"
    r"|\beyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,1000}",  # JSON web token
    re.ASCII,
)
_SECRET = re.compile(
    r"\b(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|password|passwd)[\"']?\s{0,3}[:=]\s{0,3}"
    r"[\"']?(?=[\w+/=.-]{0,80}\d)(?=[\w+/=.-]{0,80}[A-Za-z])(?P<secret>[\w+/=.-]{12,200})",
    re.ASCII | re.I,
)

# Patterns that begin with a look-behind try every character. These find where to look, ten times faster.
_DIGITS = re.compile(r"\d[\d ().-]{5,}\d", re.ASCII)
_DOTS = re.compile(r"\d\.\d{1,3}\.\d", re.ASCII)
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_KEY_HINTS = tuple(
    re.compile(re.escape(head))
    for head in (
        "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "AIza", "hf_",
        "sk_live_", "rk_live_", "eyJ",
    )
) + (re.compile(r"sk-[\w-]{20}"),)  # fmt: skip
_VALUES = re.compile(r"[:=][\"']?\s{0,3}[\"']?[\w+/=.-]{12}", re.ASCII)

Replace = Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class ScrubPII:
    """Puts a placeholder in the place of each find; a placeholder of None leaves that kind alone.

    By form alone: names and street addresses are not found. Loopback, private and unspecified addresses stay, and so do
    four numbers after "version". Telephone numbers need an international prefix, North American grouping, or the form
    of a Chinese number, so prices, dates and plain long numbers stay.
    """

    mail: str | None = "<EMAIL>"
    phone: str | None = "<PHONE>"
    ip: str | None = "<IP>"
    key: str | None = "<KEY>"

    @property
    def name(self) -> str:
        """In reports."""
        return "scrub_pii"

    def edit(self, text: str) -> tuple[str, int]:
        """Changes: finds."""
        text, counts = self.scrub(text)
        return text, sum(counts.values())

    def scrub(self, text: str) -> tuple[str, dict[str, int]]:
        """The new text and the finds by kind: "mail", "phone", "ip", "key"."""
        counts = {"mail": 0, "phone": 0, "ip": 0, "key": 0}
        if self.key is not None:
            if "PRIVATE KEY" in text:
                text, counts["key"] = replace_between(text, *_PRIVATE_KEY, self.key)
            text, tokens = _sub_near(text, _KEY_HINTS, _KEY, _literal(self.key), (12, 7100))
            text, secrets = _sub_near(text, (_VALUES,), _SECRET, self._secret, (24, 220))
            counts["key"] += tokens + secrets
        if self.mail is not None and "@" in text:
            text, counts["mail"] = _sub_near(text, (re.compile("@"),), _MAIL, _literal(self.mail), (66, 540))
        if self.ip is not None:
            text, four = _sub_near(text, (_DOTS,), _FOUR, self._address, (16, 20))
            if ":" in text:
                text, six = _sub_near(text, (_COLONS,), _SIX, self._address, (42, 42))
                counts["ip"] = six
            counts["ip"] += four
        if self.phone is not None:
            text, counts["phone"] = _sub_near(text, (_DIGITS,), _PHONE, _literal(self.phone), (3, 3))
        return text, counts

    def _secret(self, match: re.Match[str]) -> str:
        return match[0][: match.start("secret") - match.start()] + str(self.key)

    def _address(self, match: re.Match[str]) -> str:
        if ":" in match[0] and (match[0].count(":") < 3 or not any(c.isdigit() for c in match[0])):
            return match[0]  # a time, a name of C++
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            return match[0]
        before = match.string[max(0, match.start() - 12) : match.start()]
        return str(self.ip) if address.is_global and not _VERSION.search(before) else match[0]


def _literal(text: str) -> Replace:
    return lambda match: text


def _sub_near(
    text: str, hints: tuple[re.Pattern[str], ...], pattern: re.Pattern[str], replace: Replace, margin: tuple[int, int]
) -> tuple[str, int]:
    """(text with the matches near a hint replaced, how many changed). Margins: characters before and after a hint."""
    parts: list[str] = []
    done = count = 0
    for start, end in _windows(text, hints, margin):
        for match in pattern.finditer(text, max(start, done), end):
            new = replace(match)
            if new != match[0]:
                parts += [text[done : match.start()], new]
                done, count = match.end(), count + 1
    return ("".join([*parts, text[done:]]), count) if count else (text, 0)


def _windows(text: str, hints: tuple[re.Pattern[str], ...], margin: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Ascending stretches around the hints, those that touch made one."""
    found = sorted((match.start(), match.end()) for hint in hints for match in hint.finditer(text))
    start = end = -1
    for first, last in found:
        if first - margin[0] > end:
            if end >= 0:
                yield start, end
            start = max(first - margin[0], 0)
        end = min(last + margin[1], len(text))
    if end >= 0:
        yield start, end
