"""How a stage gets to another process (`run.parcels`)."""

from collections.abc import Sequence

from jaxlm.run.corpus.workspace import Stage, Workspace
from jaxlm.run.parcels import Parcel, seal


def pack(stage: Stage, workspace: Workspace) -> Parcel:
    """A stage. Raises UserError where something in it, a lambda as a score, cannot be sent."""
    mend = "define its steps and scores at the top level of the config file, not inside a function, or set "
    return seal((stage, workspace), f"stage {stage.name}", mend + "executor.workers=1")


def check_travels(stages: Sequence[Stage], workspace: Workspace) -> None:
    """Raises UserError where a stage cannot be sent."""
    for stage in stages:
        pack(stage, workspace)
