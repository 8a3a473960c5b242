"""The tasks of a stage, in processes of this machine."""

import functools
import os

from jaxlm.run.corpus.workspace import Stage, Workspace
from jaxlm.run.pool import run_tasks


def workers_of(wanted: int | None) -> int:
    """Processes at a time."""
    if wanted is not None:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_stage(stage: Stage, workspace: Workspace, workers: int) -> None:
    """Does what is left of a stage. Raises what a task raised, or UserError where a process was killed."""
    run_tasks(
        functools.partial(stage.run, workspace),
        workspace.unfinished(stage.name, stage.num_tasks),
        workers,
        doing=stage.doing or stage.name,
        killed=f"a process of stage {stage.name} was killed (out of memory?): start the same command again to go on, "
        "with a lower --executor.workers or more shards",
    )
