"""Training runs beside each other in processes of this machine, each on its own cores; what ends one ends all."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxlm.io.agree import say
from jaxlm.io.progress import NamedLines
from jaxlm.io.run_dir import json_ready
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.pool import run_tasks
from jaxlm.run.processes import require_single_process
from jaxlm.run.training import exit_code, print_figures

Train = Callable[[int], dict[str, Any]]
"""Trains the run of a number, or goes on with it; returns its final figures. Picklable."""
_STOPPED = ("stopped_by", "stage", "run_dir")


@dataclasses.dataclass(frozen=True)
class SweepOptions(CommandOptions):
    """Options of a command that trains several runs."""

    processes: int = 1
    """Runs at a time. Several share the cores: each computes on its own part of them, which rounds a little otherwise
    than one over all."""
    dry_run: bool = False
    """Show the runs and the text that they need, and train nothing."""

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"--processes {self.processes} must be at least 1")


def sweep_command(
    argv: list[str],
    config_type: type[Any],
    prog: str,
    plan: Callable[[Any], dict[str, Any]],
    train: Callable[..., dict[str, Any]],
) -> int:
    """The main of a command ``CONFIG [--processes N] [--dry-run] [--field.sub value ...] [--run-dir DIR]``: what
    ``plan(config)`` or ``train(config, run_dir, processes=N)`` finds, as a line of JSON."""
    require_single_process(prog)
    config, options = load_config(config_type, argv, SweepOptions, prog=prog)
    if options.dry_run:
        figures = plan(config)
    else:
        figures = train(config, options.run_dir or Path("runs") / config.name, processes=options.processes)
    print_figures(json_ready(figures))
    return exit_code(figures)


class Stopped(Exception):
    """A run was ended by a signal or by its own incidents; its final figures."""

    def __init__(self, figures: dict[str, Any]) -> None:
        super().__init__(figures)
        self.figures = figures


def train_several(train: Train, names: Sequence[str], numbers: Sequence[int], processes: int) -> dict[str, Any] | None:
    """``train(number)`` for each number, ``processes`` at a time.

    A run's name, ``names[number]``, is said before it where runs follow each other, and stands before every line of its
    progress where several go at once.

    Returns None; ``stopped_by`` and ``run_dir`` of a run that a signal or its own incidents ended: the same command
    goes on from there. ``stopped_by`` alone where SIGTERM met several processes and a run that could not say so yet.
    """
    try:
        with _terminated(processes > 1 and len(numbers) > 1):
            run_tasks(
                functools.partial(_one, train, names, processes),
                numbers,
                processes,
                doing="runs",
                killed="a process was killed (out of memory?): the same command goes on, with a lower --processes",
            )
    except Stopped as stopped:
        return stopped.figures
    return None


@contextlib.contextmanager
def _terminated(several: bool) -> Iterator[None]:
    """A SIGTERM that `run_tasks` hands back, no run having said that it was stopped, is said here. Raises Stopped."""
    if not several or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        raise Stopped({"stopped_by": signal.Signals(signum).name})

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one(train: Train, names: Sequence[str], processes: int, number: int) -> None:
    """One run, in whatever process. Raises Stopped."""
    with _own_cores(processes), _named(names[number]):
        figures = train(number)
    if "stopped_by" in figures:
        raise Stopped({name: figures[name] for name in _STOPPED if name in figures})


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Says which run it is that speaks."""
    if multiprocessing.parent_process() is None:
        say(f"{name}:")
        yield
        return
    with contextlib.redirect_stderr(NamedLines(name, sys.stderr)):
        yield


@contextlib.contextmanager
def _own_cores(processes: int) -> Iterator[None]:
    """Keeps one of several processes to its part of the cores: else the threads of all wait for each other. A last run
    that is left to the first process has as many, so that it rounds as it would have."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = len(cores) // processes
    if processes == 1 or not share:
        yield
        return
    number = multiprocessing.current_process().name.rpartition("-")[2]
    place = (int(number) - 1) % processes if number.isdecimal() else 0
    os.sched_setaffinity(0, cores[place * share : (place + 1) * share])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
