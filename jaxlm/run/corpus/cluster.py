"""The tasks of all stages on a cluster: Slurm or Ray, through datatrove's executors.

Which tasks are done is said by their output alone: datatrove's own marks would outlive a stage that was deleted.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError, full_disk_line, is_full_disk
from jaxlm.io.agree import say
from jaxlm.run.corpus.parcels import pack
from jaxlm.run.corpus.workspace import Stage, Workspace
from jaxlm.run.parcels import Parcel

LOGS = "logs"
_JOBS = "jobs.json"


class ClusterTask:
    """What is left of a stage as a step of a datatrove pipeline: rank i does the i-th of the tasks."""

    def __init__(self, parcel: Parcel, stage: str, numbers: Sequence[int]) -> None:
        self.parcel, self.stage, self.numbers = parcel, stage, tuple(numbers)

    def __repr__(self) -> str:
        return f"{len(self.numbers)} tasks of stage {self.stage}"  # it goes into logs

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Does one task; there is no data to pass on but what lies on disk. What a user can mend is left there too."""
        del data, world_size
        stage, workspace = self.parcel.open()
        number = self.numbers[rank]
        note = _note_of(workspace, stage.name, number)
        try:
            stage.run(workspace, number)
        except Exception as error:
            with contextlib.suppress(OSError):  # a full disk takes no note either
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(_as_text(error), encoding="utf-8")
            raise


def check_kind(kind: str) -> None:
    """Raises UserError where this machine cannot reach a cluster of this kind."""
    needs = {"ray": ("datatrove", "ray"), "slurm": ("datatrove", "dill")}[kind]
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        extras = "clean,ray" if kind == "ray" else "clean"
        raise UserError(f"executor.kind={kind!r} needs {' and '.join(missing)}: pip install 'jaxlm[{extras}]'")
    if kind == "slurm" and shutil.which("sbatch") is None:
        raise UserError("executor.kind='slurm' finds no sbatch: start it on a machine that submits to Slurm")
    if kind == "slurm" and "SLURM_ARRAY_TASK_ID" in os.environ:
        raise UserError("executor.kind='slurm' inside a job array: start it on the login node, it submits jobs itself")


def run_on_ray(
    stages: Sequence[Stage], workspace: Workspace, workers: int | None, address: str | None, asked: dict[str, Any]
) -> None:
    """Does all stages, one after the other. Raises UserError where a task failed."""
    import ray
    from datatrove.executor import RayPipelineExecutor

    _forget_notes(workspace)
    ours = not ray.is_initialized()
    if ours:
        # Tasks' own lines go to their logs: stdout is for the result.
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    try:
        for stage in stages:
            waiting = workspace.unfinished(stage.name, stage.num_tasks)
            if not waiting:
                continue
            say(f"{stage.doing or stage.name}: {len(waiting)} tasks")
            logs = workspace.root / LOGS / stage.name
            RayPipelineExecutor(
                [ClusterTask(pack(stage, workspace), stage.name, waiting)],
                tasks=len(waiting),
                workers=-1 if workers is None else workers,
                logging_dir=str(logs),
                skip_completed=False,
                **asked,
            ).run()
            _check_done(stage, workspace, logs)
    finally:
        if ours:
            ray.shutdown()


def _check_done(stage: Stage, workspace: Workspace, logs: Path) -> None:
    """datatrove ends without a word where a task failed."""
    left = workspace.unfinished(stage.name, stage.num_tasks)
    if left:
        notes = _read_notes(workspace, stage.name)
        why = f"task {min(notes)}: {notes[min(notes)]}" if notes else f"see {logs}"
        raise UserError(
            f"{len(left)} of {stage.num_tasks} tasks of stage {stage.name} failed ({why}): mend it and start the same "
            "command again to go on"
        )


def submit_to_slurm(stages: Sequence[Stage], workspace: Workspace, workers: int | None, asked: dict[str, Any]) -> bool:
    """Submits what is left of all stages, each waiting for the one before; returns whether nothing is left."""
    left = [(stage, workspace.unfinished(stage.name, stage.num_tasks)) for stage in stages]
    left = [(stage, waiting) for stage, waiting in left if waiting]
    if not left:
        return True
    from datatrove.executor import SlurmPipelineExecutor

    for stage, _ in left:
        for number, text in sorted(_read_notes(workspace, stage.name).items()):
            say(f"task {number} of stage {stage.name} failed: {text}")
    _forget_notes(workspace)
    executors: list[Any] = []
    for stage, waiting in left:
        executors.append(
            SlurmPipelineExecutor(
                [ClusterTask(pack(stage, workspace), stage.name, waiting)],
                tasks=len(waiting),
                workers=-1 if workers is None else workers,
                job_name=f"jaxlm-{stage.name}",
                depends=executors[-1] if executors else None,
                logging_dir=str(workspace.root / LOGS / stage.name),
                skip_completed=False,
                # Else a job whose forerunner failed would wait for ever.
                sbatch_args={"kill-on-invalid-dep": "yes"},
                **asked,
            )
        )
    try:
        executors[-1].run()  # submits what it depends on first
    except subprocess.CalledProcessError as error:
        raise UserError(f"sbatch refused a job (exit code {error.returncode}): see what it said above") from error
    finally:
        jobs = [str(one.job_id) for one in executors if one.job_id]
        if jobs:
            (workspace.root / LOGS / _JOBS).write_text(json.dumps(jobs), encoding="utf-8")
    return False


def has_jobs(workspace: Workspace) -> bool:
    """Whether Slurm still has jobs of this build: then nothing here may be touched."""
    path = workspace.root / LOGS / _JOBS
    if not path.exists() or shutil.which("squeue") is None:
        return False
    jobs = json.loads(path.read_bytes())
    asked = subprocess.run(["squeue", "-h", "-o", "%A", "-j", ",".join(jobs)], capture_output=True, text=True)
    running = sorted(set(asked.stdout.split())) if asked.returncode == 0 else []  # it fails for jobs long gone
    if running:
        say(f"Slurm still has the jobs {', '.join(running)}: wait for them, or scancel them first")
    return bool(running)


def _note_of(workspace: Workspace, stage: str, number: int) -> Path:
    return workspace.stage(stage) / f".{number:05d}.failed"


def _read_notes(workspace: Workspace, stage: str) -> dict[int, str]:
    paths = workspace.stage(stage).glob(".*.failed")
    return {int(path.name.split(".")[1]): path.read_text(encoding="utf-8") for path in paths}


def _forget_notes(workspace: Workspace) -> None:
    for path in (workspace.root / "stages").glob("*/.*.failed"):
        path.unlink(missing_ok=True)


def _as_text(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if is_full_disk(error):
        return full_disk_line(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
