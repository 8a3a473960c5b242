"""Who does the tasks: processes of this machine, or Slurm or Ray."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jaxlm.run.corpus import cluster, local
from jaxlm.run.corpus.parcels import check_travels
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

    def __post_init__(self) -> None:
        _check_sizes(self, "cpus_per_task", "mem_per_cpu_gb")


@dataclasses.dataclass(frozen=True)
class RayConfig:
    """Which Ray cluster, and what it is asked for, task by task."""

    address: str | None = None
    """"auto" or "ray://HOST:PORT" of one that runs; None = the one that RAY_ADDRESS names, else a local one."""
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 2

    def __post_init__(self) -> None:
        _check_sizes(self, "cpus_per_task", "mem_per_cpu_gb")


@dataclasses.dataclass(frozen=True)
class ExecutorConfig:
    """Where the tasks run. It alters no result."""

    kind: Literal["local", "slurm", "ray"] = "local"
    workers: int | None = None
    """Tasks at a time; None = one a core (local), as many as there are (slurm, ray)."""
    slurm: SlurmConfig = dataclasses.field(default_factory=SlurmConfig)
    ray: RayConfig = dataclasses.field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        if self.kind not in ("local", "slurm", "ray"):
            raise ValueError(f"executor.kind={self.kind!r} is unknown: choose local, slurm or ray")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"executor.workers={self.workers} is below 1: leave it None for one a core")
        if self.kind == "slurm" and not self.slurm.partition:
            raise ValueError("executor.kind='slurm' needs executor.slurm.partition: name one (sinfo lists them)")


def check_executor(stages: Sequence[Stage], workspace: Workspace, config: ExecutorConfig) -> None:
    """Raises UserError where the stages could not be run so; before any work."""
    if config.kind != "local":
        cluster.check_kind(config.kind)
    if config.kind != "local" or local.workers_of(config.workers) > 1:
        check_travels(stages, workspace)


def run_stages(stages: Sequence[Stage], workspace: Workspace, config: ExecutorConfig) -> bool:
    """Does all tasks of all stages, in order; those that are done are passed over.

    Returns whether all is done: Slurm only takes the jobs. Raises UserError where a task found bad input or a process
    died.
    """
    if cluster.has_jobs(workspace):  # of an earlier start: they write here
        return False
    workspace.remove_partial()
    if config.kind == "slurm":
        slurm = config.slurm
        asked = {
            "time": slurm.time,
            "partition": slurm.partition,
            "cpus_per_task": slurm.cpus_per_task,
            "mem_per_cpu_gb": slurm.mem_per_cpu_gb,
            "env_command": slurm.env_command,
        }
        return cluster.submit_to_slurm(stages, workspace, config.workers, asked)
    if config.kind == "ray":
        asked = {"cpus_per_task": config.ray.cpus_per_task, "mem_per_cpu_gb": config.ray.mem_per_cpu_gb}
        cluster.run_on_ray(stages, workspace, config.workers, config.ray.address, asked)
        return True
    for stage in stages:
        local.run_stage(stage, workspace, local.workers_of(config.workers))
    return True


def _check_sizes(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} of {type(config).__name__} is below 1")
