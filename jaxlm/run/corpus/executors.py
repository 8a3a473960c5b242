"""Who does the tasks: processes of this machine, or Slurm or Ray through datatrove's executors."""

import concurrent.futures
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from jaxlm.core.errors import UserError
from jaxlm.run.corpus.workspace import Stage, Workspace


@dataclasses.dataclass(frozen=True)
class SlurmConfig:
    """What Slurm is asked for, task by task."""

    partition: str = ""
    time: str = "04:00:00"
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 4
    env_command: str = ""
    """A line of shell before each job: ``source .venv/bin/activate``."""


@dataclasses.dataclass(frozen=True)
class ExecutorConfig:
    """Where the tasks run. It alters no result."""

    kind: Literal["local", "slurm", "ray"] = "local"
    workers: int | None = None
    """Tasks at a time; None = one a core (local), as many as there are (slurm, ray)."""
    slurm: SlurmConfig = dataclasses.field(default_factory=SlurmConfig)

    def __post_init__(self) -> None:
        if self.kind not in ("local", "slurm", "ray"):
            raise ValueError(f"executor.kind={self.kind!r} is unknown: choose local, slurm or ray")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"executor.workers={self.workers} is below 1: leave it None for one a core")
        if self.kind == "slurm" and not self.slurm.partition:
            raise ValueError("executor.kind='slurm' needs executor.slurm.partition: name one (sinfo lists them)")


def run_stages(stages: Sequence[Stage], workspace: Workspace, config: ExecutorConfig) -> bool:
    """Does all tasks of all stages, in order; those that are done are passed over.

    Returns whether all is done: Slurm only takes the jobs. Raises UserError where a task found bad input or a process
    died.
    """
    if config.kind == "local":
        for stage in stages:
            _run_local(stage, workspace, config.workers or len(os.sched_getaffinity(0)))
        return True
    _run_datatrove(stages, workspace, config)
    return all(not workspace.unfinished(stage.name, stage.num_tasks) for stage in stages)


def _run_local(stage: Stage, workspace: Workspace, workers: int) -> None:
    waiting = workspace.unfinished(stage.name, stage.num_tasks)
    if not waiting:
        return
    with _bar(stage, len(waiting)) as bar:
        if workers == 1 or len(waiting) == 1:
            for number in waiting:
                stage.run(workspace, number)
                bar.update()
            return
        # Spawned: this process may hold threads. Its death is theirs: they watch for it.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            min(workers, len(waiting)), mp_context=context, initializer=_die_with_parent
        ) as pool:
            futures = [pool.submit(stage.run, workspace, number) for number in waiting]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    bar.update()
            except BrokenProcessPool:
                raise UserError(
                    f"a process of stage {stage.name} was killed (out of memory?): start the same command again to go "
                    "on, with a lower --executor.workers or more shards"
                ) from None
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _bar(stage: Stage, count: int) -> Any:
    text = stage.doing or stage.name
    if not sys.stderr.isatty():
        print(f"{text}: {count} tasks", file=sys.stderr, flush=True)
    return tqdm(total=count, desc=text, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            multiprocessing.connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


@dataclasses.dataclass(frozen=True)
class DatatroveTask:
    """One stage as a step of a datatrove pipeline: its task is the rank's."""

    stage: Stage
    workspace: Workspace

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Does task ``rank``; there is no data to pass on but what lies on disk."""
        del data, world_size
        self.stage.run(self.workspace, rank)


def _run_datatrove(stages: Sequence[Stage], workspace: Workspace, config: ExecutorConfig) -> None:
    make = _executor_of(config)
    before = None
    for stage in stages:
        if not workspace.unfinished(stage.name, stage.num_tasks):
            continue
        logs = workspace.root / "logs" / stage.name
        before = make([DatatroveTask(stage, workspace)], stage, logs, before)
        if config.kind == "ray":
            before.run()
            before = None
    if before is not None:
        before.run()  # Slurm: submits what it depends on first


def _executor_of(config: ExecutorConfig) -> Callable[[list[Any], Stage, Path, Any], Any]:
    try:
        from datatrove import executor as executors
    except ImportError as error:
        needs = f"executor.kind={config.kind!r} needs datatrove ({error})"
        raise UserError(f"{needs}: pip install 'jaxlm[clean]'") from None
    workers = -1 if config.workers is None else config.workers
    # Which tasks are done is said by their output: datatrove's own marks would outlive a stage that was deleted.
    common: dict[str, Any] = {"workers": workers, "skip_completed": False}

    def make(pipeline: list[Any], stage: Stage, logs: Path, before: Any) -> Any:
        if config.kind == "ray":
            return executors.RayPipelineExecutor(pipeline, tasks=stage.num_tasks, logging_dir=str(logs), **common)
        slurm = config.slurm
        return executors.SlurmPipelineExecutor(
            pipeline,
            tasks=stage.num_tasks,
            time=slurm.time,
            partition=slurm.partition,
            cpus_per_task=slurm.cpus_per_task,
            mem_per_cpu_gb=slurm.mem_per_cpu_gb,
            env_command=slurm.env_command,
            job_name=f"jaxlm-{stage.name}",
            depends=before,
            logging_dir=str(logs),
            **common,
        )

    return make
