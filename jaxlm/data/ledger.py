"""The account of a corpus: what each step read, kept, changed and removed, by source. Accounts of shards add up.

Every document that a step reads is kept or removed for a stated reason: ``check`` holds the sums.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

SAMPLES_A_REASON = 3


@dataclasses.dataclass
class StepAccount:
    """One step's account of one source. Bytes are of the UTF-8 form."""

    documents_in: int = 0
    bytes_in: int = 0
    documents_out: int = 0
    bytes_out: int = 0
    changed: int = 0
    """Documents whose text an edit altered."""
    changes: int = 0
    """Alterations in them, as the edit counts them."""
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    """Why documents were removed: reason -> documents."""
    samples: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    """Reason -> a few of the removed documents: origin, value, excerpt."""

    def remove(self, reason: str, sample: dict[str, Any] | None = None, *, count: int = 1) -> None:
        """Notes ``count`` removed documents, and one of them."""
        self.reasons[reason] = self.reasons.get(reason, 0) + count
        kept = self.samples.setdefault(reason, [])
        if sample is not None and len(kept) < SAMPLES_A_REASON:
            kept.append(sample)

    def add(self, other: "StepAccount") -> None:
        """Adds another shard's account."""
        for name in ("documents_in", "bytes_in", "documents_out", "bytes_out", "changed", "changes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.reasons.items():
            self.remove(reason, count=count)
            self.samples[reason] = (self.samples[reason] + other.samples.get(reason, []))[:SAMPLES_A_REASON]

    @property
    def removed(self) -> int:
        """Documents that did not pass."""
        return sum(self.reasons.values())


class Ledger:
    """The account of one shard or of a whole corpus: source -> step -> account, steps in the order they were taken."""

    def __init__(self) -> None:
        self.sources: dict[str, dict[str, StepAccount]] = {}

    def at(self, source: str, step: str) -> StepAccount:
        """The account of ``step`` for ``source``, begun if there is none."""
        return self.sources.setdefault(source, {}).setdefault(step, StepAccount())

    def add(self, other: "Ledger") -> None:
        """Adds another shard's ledger."""
        for source, steps in other.sources.items():
            for step, account in steps.items():
                self.at(source, step).add(account)

    def check(self) -> None:
        """Raises ValueError where documents are unaccounted for: in a step, or between a step and the next."""
        for source, steps in self.sources.items():
            before: tuple[str, StepAccount] | None = None
            for step, account in steps.items():
                if account.documents_in != account.documents_out + account.removed:
                    raise ValueError(
                        f"{source}: step {step} read {account.documents_in} documents, kept {account.documents_out} "
                        f"and removed {account.removed}"
                    )
                if before and (account.documents_in, account.bytes_in) != (
                    before[1].documents_out,
                    before[1].bytes_out,
                ):
                    raise ValueError(
                        f"{source}: step {before[0]} left {before[1].documents_out} documents of "
                        f"{before[1].bytes_out} bytes and step {step} read {account.documents_in} of {account.bytes_in}"
                    )
                before = step, account

    def totals(self, step: str) -> StepAccount:
        """One step's account over all sources, without samples."""
        total = StepAccount()
        for steps in self.sources.values():
            if step in steps:
                total.add(dataclasses.replace(steps[step], samples={}))
        return total

    def steps(self) -> list[str]:
        """All steps, in an order that every source's own order agrees with where there is one."""
        names: list[str] = []
        for steps in self.sources.values():
            place = 0
            for step in steps:
                if step in names:
                    place = max(place, names.index(step) + 1)
                else:
                    names.insert(place, step)
                    place += 1
        return names

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            source: {step: dataclasses.asdict(account) for step, account in steps.items()}
            for source, steps in self.sources.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> "Ledger":
        """From ``to_dict``'s form."""
        ledger = cls()
        for source, steps in data.items():
            ledger.sources[source] = {step: StepAccount(**account) for step, account in steps.items()}
        return ledger


def merged(ledgers: Iterable[Ledger]) -> Ledger:
    """The ledger of all shards, added in the order given."""
    whole = Ledger()
    for ledger in ledgers:
        whole.add(ledger)
    return whole
