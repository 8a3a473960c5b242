"""What went wrong in a run without ending it: steps whose update was dropped. The list is saved in every checkpoint."""

import math
from collections.abc import Callable, Sequence
from typing import Any

Incident = dict[str, Any]


class Incidents:
    """The incidents of a run so far, in order.

    Args:
      entries: those before the step that this process starts at (from the checkpoint).
      skipped: the state's count of dropped updates there.
      changed: called with all entries and the new ones whenever there are new ones.
    """

    def __init__(
        self,
        entries: Sequence[Incident] = (),
        *,
        skipped: int = 0,
        changed: Callable[[list[Incident], list[Incident]], None] | None = None,
    ):
        self.entries = list(entries)
        self._skipped = skipped
        self._changed = changed

    def look(self, step: int, batch_id: int, metrics: dict[str, Any]) -> Incident | None:
        """The incident of a step, if it was one; ``metrics`` are those of the step, fetched."""
        skipped = int(metrics.get("skipped", 0))
        if skipped <= self._skipped:
            return None
        self._skipped = skipped
        found = {"step": step, "batch_id": batch_id, "kind": "not_finite"}
        return found | {name: _finite(metrics[name]) for name in ("loss", "grad_norm") if name in metrics}

    def add(self, found: Sequence[Incident]) -> None:
        """Appends what `look` found."""
        if found:
            self.entries.extend(found)
            if self._changed is not None:
                self._changed(self.entries, list(found))


def describe(incident: Incident) -> str:
    """``step 12: loss or gradient not finite, update dropped (batch 11, loss not finite, ...)``."""
    loss, norm = ("not finite" if incident.get(n) is None else f"{incident[n]:.4g}" for n in ("loss", "grad_norm"))
    return (
        f"step {incident['step']}: loss or gradient not finite, update dropped "
        f"(batch {incident['batch_id']}, loss {loss}, gradient norm {norm})"
    )


def _finite(value: Any) -> float | None:
    """JSON has no NaN."""
    return float(value) if math.isfinite(float(value)) else None
