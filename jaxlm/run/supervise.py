"""``jaxlm supervise [options] COMMAND ... --run-dir DIR``: starts a training command again when its process dies.

A command resumes from its last checkpoint by itself; what is added here is who types it again at night. One supervisor
a host, each for the process of its own: where one process dies the others end too, and all meet again.
"""

import argparse
import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from etils import epath

from jaxlm.core.errors import ALONE_CODE, STOPPED_CODE, UserError
from jaxlm.io.checkpoint_steps import committed_steps
from jaxlm.io.run_dir import RunDir
from jaxlm.run.parsers import Parser
from jaxlm.run.processes import detect_processes

COMMANDS = ("pretrain", "finetune", "sft", "reward", "dpo", "ppo")
"""Those that resume where they stopped, from checkpoints of one run."""
KILL_SECONDS = 60
"""How long a stalled process, sent SIGTERM, may take to save before it is killed."""
LONGEST_PAUSE = 60.0

End = Literal["done", "refused", "stopped", "preempted", "alone", "crashed"]


def kind_of_end(code: int, *, asked: bool, accepted: bool) -> End:
    """What the exit code of a command means (``docs/run.md``; negative: the number of the signal that killed it).

    A SIGTERM that came through the supervisor (``asked``) was meant for the run; one that the process alone was sent is
    a preemption: it saved, and may go on. A process that has not met the others is early, or they are late. A refusal
    is final, unless the same command was ``accepted`` before: then something around it is not back yet (another host's
    process still holds the run). A run that its own incidents
    stopped would meet them again.
    """
    if code == 0:
        return "done"
    if asked:
        return "stopped"
    if code in (128 + signal.SIGTERM, -signal.SIGTERM):
        return "preempted"
    if code in (128 + signal.SIGINT, -signal.SIGINT):
        return "stopped"
    if code == STOPPED_CODE:
        return "stopped"
    if code == ALONE_CODE:
        return "alone"
    if code == 2 and not accepted:
        return "refused"
    return "crashed"


@dataclasses.dataclass
class Patience:
    """How often a run may fail without getting on. A new checkpoint is getting on."""

    max_failures: int
    pause: float
    """Seconds before the first restart; doubled for each failure after it."""
    failures: int = 0
    step: int | None = None
    """The newest checkpoint when it failed last."""

    def after(self, end: End, step: int | None) -> float | None:
        """Seconds to wait before the command is started again; None = give up."""
        if end in ("preempted", "alone"):
            return self.pause
        if step is not None and (self.step is None or step > self.step):
            self.failures = 0
        self.step = step
        self.failures += 1
        if self.failures >= self.max_failures:
            return None
        return min(LONGEST_PAUSE, self.pause * 2 ** (self.failures - 1))


class Supervisor:
    """One command, its ends and its new starts."""

    def __init__(self, argv: list[str], directory: RunDir, patience: Patience, *, stall_minutes: float | None):
        self._argv = [sys.executable, "-m", "jaxlm", *argv]
        self._directory = directory
        self._patience = patience
        self._stall_seconds = None if stall_minutes is None else 60 * stall_minutes
        launch = detect_processes()
        self._writes = launch is None or launch.process_id == 0
        self._child: subprocess.Popen[bytes] | None = None
        self._signum: int | None = None
        self._accepted = False

    def run(self) -> int:
        """Until the command has done its work, was stopped or refused, or failed too often; returns the exit code."""
        with self._signals():
            attempt = 0
            while True:
                attempt += 1
                code, stalled = self._attempt()
                end = kind_of_end(code, asked=self._signum is not None, accepted=self._accepted)
                if stalled and end == "preempted":
                    end = "crashed"
                step = self._newest_step()
                self._accepted = self._accepted or step is not None or end == "preempted"
                self._note(attempt=attempt, end=end, exit_code=code, stalled=stalled, checkpoint=step)
                if end in ("done", "refused", "stopped"):
                    return code if code >= 0 else 128 - code
                what = "no new line in its log" if stalled else _describe(code)
                pause = self._patience.after(end, step)
                if pause is None:
                    self._say(
                        f"error: gave up after {self._patience.failures} failures without a new checkpoint (the last: "
                        f"{what}; newest checkpoint: {_step(step)}): read the lines above, mend the cause, and start "
                        "the same command again"
                    )
                    return 1
                self._say(f"supervise: {end} ({what}), checkpoint {_step(step)}: starting again in {pause:g} s")
                if self._wait(pause):
                    return 128 + (self._signum or signal.SIGTERM)

    def _attempt(self) -> tuple[int, bool]:
        """(exit code, whether it was ended here because it stood still) of one start of the command. The clock starts
        when its log is opened: nobody knows how long a corpus takes to prepare."""
        moved, seen = None, self._last_sign()
        # In a group of its own: a terminal's Ctrl-C goes to a whole group, and the child would hear it twice, once from
        # here, which means "stop without saving".
        self._child = subprocess.Popen(self._argv, process_group=0)
        if self._signum is not None:  # came in between
            self._child.send_signal(self._signum)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._child.wait(timeout=1.0), False
            if self._stall_seconds is None:
                continue
            sign = self._last_sign()
            if sign != seen:
                moved, seen = time.monotonic(), sign
            elif moved is not None and time.monotonic() - moved > self._stall_seconds:
                return self._end_stalled(self._child), True

    def _end_stalled(self, child: subprocess.Popen[bytes]) -> int:
        child.terminate()
        try:
            return child.wait(timeout=KILL_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def _wait(self, seconds: float) -> bool:
        """Waits; True where a signal came meanwhile."""
        end = time.monotonic() + seconds
        while self._signum is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
        return self._signum is not None

    def _last_sign(self) -> float:
        """When the run last wrote to its log or its checkpoints."""
        times = [0.0]
        for path in (self._directory.metrics_path, self._directory.checkpoints_path):
            with contextlib.suppress(OSError):
                times.append(path.stat().st_mtime)
        return max(times)

    def _newest_step(self) -> int | None:
        path = epath.Path(self._directory.checkpoints_path)
        return max(committed_steps(path), default=None) if path.exists() else None

    def _note(self, **facts: Any) -> None:
        """A line of ``supervisor.jsonl``; of several processes the first alone writes."""
        if self._writes and self._directory.path.exists():
            with open(self._directory.supervisor_path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **facts}) + "\n")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C are handed on, and the terminal's end as SIGTERM (unless nohup has it ignored); the run
        saves, and so ends the supervisor."""

        def handle(signum: int, _: types.FrameType | None) -> None:
            self._signum = signal.SIGTERM if signum == signal.SIGHUP else signum
            if self._child is not None and self._child.poll() is None:
                self._child.send_signal(self._signum)

        heard = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            heard.append(signal.SIGHUP)
        previous = {signum: signal.signal(signum, handle) for signum in heard}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    hint = ": out of memory, or an operator" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def _step(step: int | None) -> str:
    return "none" if step is None else f"of step {step}"


def main(argv: list[str]) -> int:
    """Returns the command's own exit code, or 1 where it failed too often."""
    parser = Parser(
        prog="jaxlm supervise",
        description="Starts a training command, and starts it again when its process dies.",
        usage="jaxlm supervise [options] COMMAND CONFIG --run-dir DIR ...",
    )
    parser.add_argument(
        "--max-failures",
        type=int,
        default=3,
        help="failures without a new checkpoint; then give up (default %(default)s)",
    )
    parser.add_argument(
        "--pause",
        type=float,
        default=1.0,
        help="seconds before a restart, doubled after each failure (default %(default)s)",
    )
    parser.add_argument(
        "--stall-minutes",
        type=float,
        help="end a run that, once its data stands, has written no line and no checkpoint for so long (default never)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=f"{' or '.join(COMMANDS)}, with its arguments")
    options = parser.parse_args(argv)
    for name in ("max_failures", "pause", "stall_minutes"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} {value:g} must be above 0")
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command or command[0] not in COMMANDS:
        given = f"{command[0]!r} is not one" if command else "none is given"
        raise UserError(f"supervise starts {' or '.join(COMMANDS)}, and {given}: jaxlm supervise pretrain CONFIG ...")
    patience = Patience(options.max_failures, options.pause)
    return Supervisor(command, _run_dir(command), patience, stall_minutes=options.stall_minutes).run()


def _run_dir(command: list[str]) -> RunDir:
    """Where the command works: its checkpoints say whether it gets on."""
    for index, word in enumerate(command):
        name, given, value = word.partition("=")
        if name.replace("_", "-") != "--run-dir":
            continue
        if given:
            return RunDir(Path(value))
        if index + 1 < len(command):
            return RunDir(Path(command[index + 1]))
    raise UserError("supervise watches the checkpoints of the run: give the command a --run-dir")
