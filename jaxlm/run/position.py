"""Where a run stands, all that a checkpoint holds of it; and the ways to get there: start, resume, go back."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataState
from jaxlm.io.agree import first_stderr, on_first_process, say
from jaxlm.io.checkpoints import Checkpointer, Restored
from jaxlm.io.progress import notice
from jaxlm.run.incidents import Incidents
from jaxlm.run.setup import StateLayout
from jaxlm.train.responses import (
    Incident,
    after_rollback,
    at_start,
    choose_target,
    diagnose,
    respond,
    skipped_batches,
)
from jaxlm.train.spikes import Spike, SpikeConfig
from jaxlm.train.state import TrainState


class Position(NamedTuple):
    """The state, where it stands in the data, and what was seen so far."""

    state: TrainState
    data_state: DataState
    incidents: Sequence[Incident] = ()
    memory: Mapping[str, Any] = MappingProxyType({})
    """Of the spike monitor."""
    saved_step: int | None = None
    """The step that the state was restored from."""

    @property
    def step(self) -> int:
        return int(self.state.step)


class Parts(Protocol):
    """What of an assembled run makes states."""

    layout: StateLayout

    def fresh_state(self) -> TrainState:
        """The state at step 0."""
        ...


def start_position(parts: Parts, checkpointer: Checkpointer, incidents_path: Path) -> Position:
    """The newest checkpoint, or a fresh state; with what was done at that step before this process began."""
    found = _position(parts, checkpointer.resume(parts.layout.abstract))
    if found.saved_step is not None:
        say(f"resuming from step {found.saved_step}")
    recorded = on_first_process("incidents", lambda: _read_list(incidents_path))
    return _without_batches(found, at_start(found.incidents, recorded, found.step))


class Return(NamedTuple):
    """Where a run goes on after a spike, and why it should not, where it should not."""

    position: Position
    incident: Incident
    diagnosis: str | None


def go_back(
    parts: Parts, checkpointer: Checkpointer, spike: Spike, state: TrainState, incidents: Incidents, config: SpikeConfig
) -> Return:
    """Back to the last checkpoint before a spike, with its batches left out. The later checkpoints are removed: their
    steps are taken anew. ``state`` is deleted first, for devices may not hold two.

    That checkpoint is verified before any other goes. Killed at any moment, the same command comes to the same
    position: until the incident is written down the spike is met again, and from then on it is applied to the
    checkpoint (`start_position`).
    """
    checkpointer.wait()
    target = on_first_process("rollback", lambda: _intact_target(spike, checkpointer))
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array):
            leaf.delete()
    checkpointer.forget_after(target)
    found = _position(parts, checkpointer.resume(parts.layout.abstract))
    incident = respond(spike, found.step, incidents.entries, config)
    diagnosis = diagnose(incident, incidents.entries, config)
    entries = after_rollback(found.incidents, incidents.entries, incident)
    return Return(_without_batches(found, entries), incident, diagnosis)


def _intact_target(spike: Spike, checkpointer: Checkpointer) -> int:
    """Raises UserError where there are checkpoints before the spike and all are damaged: to begin anew, and to remove
    the later ones for it, is not ours to choose."""
    steps = checkpointer.steps()
    damaged = []
    while (target := choose_target(spike, steps)) in steps and not checkpointer.is_intact(target):
        steps.remove(target)
        damaged.append(str(target))
    if damaged and target == 0:
        raise UserError(
            f"a spike began at step {spike.onset}, and the checkpoints before it ({', '.join(damaged)} in "
            f"{checkpointer.directory}) are damaged: bring one back from a copy, or train in another run directory; "
            "nothing was removed"
        )
    return target


def _position(parts: Parts, restored: Restored | None) -> Position:
    if restored is None:
        with notice("initialising", first_stderr()):
            return Position(parts.fresh_state(), DataState())
    meta = restored.meta
    data_state = DataState.from_json(meta["data"])
    return Position(restored.state, data_state, list(meta["incidents"]), dict(meta["spikes"]), restored.step)


def _without_batches(position: Position, entries: list[Incident]) -> Position:
    """The position with these incidents, and without the batches that they leave out."""
    data_state = position.data_state.skip(skipped_batches(entries))
    return position._replace(data_state=data_state, incidents=entries)


def _read_list(path: Path) -> list[Incident]:
    """incidents.json; nothing where it is missing or no such list: then what it said comes again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    ok = isinstance(found, list) and all(isinstance(one, dict) and "kind" in one for one in found)
    return found if ok else []


GoBack = Callable[[Spike, TrainState], Return]
