"""Where a run's time went, by cause, over all the processes that have worked on it: ``goodput.jsonl``.

Each line is what was spent since the line before, appended as it comes, so that a killed process is accounted for up to
its last line. Steps that came to nothing, since the run went back to an earlier one, are moved to what made it go back.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxlm.io.metrics import append_line, end_last_line, read_lines

CAUSES = ("step", "data_wait", "compile", "checkpoint", "evaluation", "rollback", "restart", "start_up")
"""step: steps that the result rests on. data_wait: the host waiting for batches. rollback: steps undone after a spike,
and the restore. restart: steps lost since the last save of a process that ended, and the start of the next one.
start_up: from the command to the first step of the first process, compilation apart."""
COUNTING = ("step", "rollout")
"""Causes that the result rests on. rollout, the model writing what it learns from, is there in runs that have any."""


class Account:
    """Seconds by cause, from the events of a run in their order."""

    def __init__(self, events: Iterable[Mapping[str, Any]] = ()) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(CAUSES, 0.0)
        self.starts = 0
        """Processes that have worked on the run."""
        self.between = 0.0
        """Seconds from the last line of a process to the start of the next: it did not run, or was killed before it
        logged. No part of ``seconds``."""
        self._stretches: list[tuple[int, int, dict[str, float]]] = []
        self._step, self._time = 0, None
        for event in events:
            self.add(event)

    def add(self, event: Mapping[str, Any]) -> None:
        """One line of the file."""
        spent, step, now = dict(event["seconds"]), int(event["step"]), float(event["time"])
        if event["event"] == "start":
            if self.starts:
                spent["restart"] = spent.pop("start_up", 0.0)
                if self._time is not None:
                    self.between += max(0.0, now - spent["restart"] - self._time)
            self.starts += 1
        for cause, seconds in spent.items():
            self.seconds[cause] = self.seconds.get(cause, 0.0) + seconds
        if event["event"] == "start":
            self._undo(step, "restart")
        elif event["event"] == "rollback":
            self._undo(step, "rollback")
        elif step > self._step:
            counting = {cause: spent[cause] for cause in COUNTING if cause in spent}
            self._stretches.append((self._step, step, counting))
        self._step, self._time = step, now

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float | None:
        """The share of the time that went into what the result rests on; None before any time has passed."""
        return sum(self.seconds.get(cause, 0.0) for cause in COUNTING) / self.total if self.total > 0 else None

    def _undo(self, step: int, cause: str) -> None:
        """Moves the time of the steps after ``step`` from what counts to ``cause``."""
        while self._stretches and self._stretches[-1][1] > step:
            first, last, seconds = self._stretches.pop()
            share = 1.0 if first >= step else (last - step) / (last - first)
            lost = {counting: share * spent for counting, spent in seconds.items()}
            if first < step:
                self._stretches.append((first, step, {name: seconds[name] - lost[name] for name in seconds}))
            for counting, spent in lost.items():
                self.seconds[counting] -= spent
                self.seconds[cause] += spent
            if first < step:
                break


class Goodput:
    """Keeps the account of a run as it goes.

    Args:
      path: the file; None = in memory only (every process but the first).
    """

    def __init__(self, path: Path | None = None) -> None:
        self.account = Account(read_events(path) if path is not None else ())
        self._spent: dict[str, float] = {}
        self._file = None
        if path is not None:
            end_last_line(path)
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def spend(self, cause: str, seconds: float) -> None:
        """Counts seconds; they are written with the next event."""
        self._spent[cause] = self._spent.get(cause, 0.0) + seconds

    def write(self, event: str, step: int) -> None:
        """``start`` and ``rollback`` at the step that the run goes on from, ``spent`` at the step that it has come
        to."""
        spent = {cause: round(seconds, 6) for cause, seconds in self._spent.items()}
        line = {"step": step, "time": round(time.time(), 3), "event": event, "seconds": spent}
        self._spent.clear()
        self.account.add(line)
        if self._file is not None:
            append_line(self._file, line)

    def figures(self) -> dict[str, float | None]:
        """``perf/goodput`` (0 to 1) and ``perf/seconds/CAUSE``; where there are rollouts ``perf/rollout_share``, theirs
        of the time of rollouts and steps."""
        seconds = self.account.seconds
        named: dict[str, float | None] = {f"perf/seconds/{cause}": spent for cause, spent in seconds.items()}
        if seconds.get("rollout"):
            named["perf/rollout_share"] = seconds["rollout"] / (seconds["rollout"] + seconds["step"])
        return {"perf/goodput": self.account.goodput, **named}

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "Goodput":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a goodput.jsonl; a line that a crash cut short, or of another form, is passed over."""
    return [line for line in read_lines(path) if {"event", "seconds", "time"} <= line.keys()]
