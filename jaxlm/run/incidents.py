"""What went wrong in a run without ending it: dropped updates, odd steps, spikes and what was done about them.

The list is saved in every checkpoint, and written to ``incidents.json`` whenever there is something new.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxlm.train.responses import Incident, describe_response, describe_spike, rollbacks
from jaxlm.train.spikes import Spike, SpikeMonitor


class Incidents:
    """The incidents of a run so far, in order, and the memory by which spikes are told.

    Args:
      entries: those before the step that this process starts at (from the checkpoint).
      skipped: the state's count of dropped updates there.
      monitor: what tells spikes, as of that step; None = nothing does.
      changed: called with all entries and the new ones whenever there are new ones.
    """

    def __init__(
        self,
        entries: Sequence[Incident] = (),
        *,
        skipped: int = 0,
        monitor: SpikeMonitor | None = None,
        changed: Callable[[list[Incident], list[Incident]], None] | None = None,
    ):
        self._changed = changed
        self.go_to(entries, skipped=skipped, monitor=monitor)

    def go_to(self, entries: Sequence[Incident], *, skipped: int, monitor: SpikeMonitor | None) -> None:
        """Forgets what was seen: the run goes on from a step at which all was as given."""
        self.entries = list(entries)
        self.responses = rollbacks(self.entries)
        """Those of the entries that say what was done: looked through at every step."""
        self._skipped, self._monitor = skipped, monitor

    def look(self, steps: Iterable[tuple[int, int, dict[str, Any]]]) -> Spike | None:
        """Sees steps in their order: (step, batch id, fetched metrics). Notes what was wrong with them; returns the
        first spike for which the run is to go back, and sees nothing past it."""
        new: list[Incident] = []
        to_undo = None
        for step, batch_id, metrics in steps:
            new += self._dropped(step, batch_id, metrics)
            if self._monitor is None:
                continue
            spike = self._monitor.look(step, batch_id, float(metrics["loss"]), float(metrics["grad_norm"]))
            if spike is not None:
                if spike.confirmed and self._monitor.config.response == "rollback":
                    to_undo = spike
                    break
                new.append(describe_spike(spike))
        self.add(new)
        return to_undo

    def add(self, new: Sequence[Incident]) -> None:
        """Appends entries, and tells of them."""
        if new:
            self.entries.extend(new)
            self.responses = rollbacks(self.entries)
            if self._changed is not None:
                self._changed(self.entries, list(new))

    @property
    def suspected_since(self) -> int | None:
        """The step before which the run may have to go back; None where nothing stands out now."""
        return None if self._monitor is None else self._monitor.suspected_since

    def to_meta(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "incidents": list(self.entries),
            "spikes": {} if self._monitor is None else self._monitor.to_json(),
        }

    def _dropped(self, step: int, batch_id: int, metrics: dict[str, Any]) -> list[Incident]:
        skipped = int(metrics.get("skipped", 0))
        if skipped <= self._skipped:
            return []
        self._skipped = skipped
        found = {"step": step, "batch_id": batch_id, "kind": "not_finite"}
        return [found | {name: _finite(metrics[name]) for name in ("loss", "grad_norm") if name in metrics}]


def describe(incident: Incident) -> str:
    """One line: ``step 12: loss or gradient not finite, update dropped (batch 11, loss not finite, ...)``."""
    if incident["kind"] == "not_finite":
        loss, norm = (_shown(incident.get(name)) for name in ("loss", "grad_norm"))
        return (
            f"step {incident['step']}: loss or gradient not finite, update dropped "
            f"(batch {incident['batch_id']}, loss {loss}, gradient norm {norm})"
        )
    if incident["kind"] == "stopped":
        return f"step {incident['step']}: stopped: {incident['diagnosis']}"
    losses, norms = (", ".join(_shown(value) for value in incident[name][-3:]) for name in ("losses", "grad_norms"))
    usual = incident["statistics"]
    compared = "" if usual is None else f" (usual {usual['loss_median']:.4g} and {usual['grad_norm_median']:.4g})"
    what = "stood out" if incident["kind"] == "outlier" else "spike"
    return (
        f"steps {incident['onset']} to {incident['step']}: {what}: loss {losses}, gradient norm {norms}{compared}, "
        f"batches {incident['batch_ids'][0]} to {incident['batch_ids'][-1]}: {describe_response(incident)}"
    )


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _finite(value: Any) -> float | None:
    """JSON has no NaN."""
    return float(value) if math.isfinite(float(value)) else None
