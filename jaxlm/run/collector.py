"""Data that the model writes itself: what the loop asks for before a step that has none left to learn from."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from jaxlm.data.batches import DataState
from jaxlm.run.interval import Figures
from jaxlm.train.state import TrainState


class Collected(NamedTuple):
    """New data, as part of the state: a checkpoint holds them, and a resumed run goes on with the same."""

    state: TrainState
    """With the data in its carry."""
    figures: Figures
    """What they say of the model."""
    samples: Sequence[dict[str, Any]] = ()
    """Some of them, to be read."""
    diagnosis: str | None = None
    """Why the run should stop here."""


class Collector(Protocol):
    """Lets the model write, judges it, and makes of it what the next steps learn from. A function of state and place in
    the data: a killed run collects the same again."""

    def due(self, data_state: DataState) -> bool:
        """Whether new data are needed before the next step."""
        ...

    def collect(self, state: TrainState, data_state: DataState) -> Collected:
        """Raises UserError where what was written cannot be judged."""
        ...
