"""Where the bad files, lines and records of a corpus go."""

from dataclasses import dataclass, field
from typing import NamedTuple

from jaxlm.core.errors import UserError

MAX_LISTED = 100
ON_BAD = "mend it, or set corpus.on_bad=skip"


class BadRecord(NamedTuple):
    """One bad file, line or record. ``offset``: its byte in the (decompressed) file, None for a file as a whole."""

    file: str
    offset: int | None
    reason: str


@dataclass
class BadInput:
    """Where bad files, lines and records go: the first one raises, or with ``skip`` all are counted, 100 listed.

    ``mend``: what the error advises, in the words of the command that reads.

    Records that are left out on purpose, and are not bad, are counted beside them: ``passed``, reason -> records.
    """

    skip: bool = False
    count: int = 0
    listed: list[str] = field(default_factory=list)
    records: list[BadRecord] = field(default_factory=list)
    passed: dict[str, int] = field(default_factory=dict)
    passed_listed: list[str] = field(default_factory=list)
    mend: str = ON_BAD

    def add(self, message: str) -> None:
        """Raises UserError(message), or notes it."""
        self._note(message, BadRecord("", None, message))

    def add_at(self, file: str, offset: int | None, reason: str, *, place: str = "") -> None:
        """The same with its parts: "FILE PLACE REASON at byte OFFSET". ``place``: "line 3"."""
        where = f"{file} {place}".rstrip()
        at = "" if offset is None else f" (byte {offset})"
        self._note(f"{where} {reason}{at}", BadRecord(file, offset, reason))

    def _note(self, message: str, record: BadRecord) -> None:
        if not self.skip:
            raise UserError(f"{message}; {self.mend}")
        self.count += 1
        if len(self.listed) < MAX_LISTED:
            self.listed.append(message)
            self.records.append(record)

    def pass_over(self, reason: str, where: str) -> None:
        """Counts a record that is not bad and yet no document: without text, of another kind."""
        self.passed[reason] = self.passed.get(reason, 0) + 1
        if len(self.passed_listed) < MAX_LISTED:
            self.passed_listed.append(f"{where}: {reason}")

    @property
    def num_passed(self) -> int:
        """Records passed over, for whatever reason."""
        return sum(self.passed.values())
