"""Two programs that take turns: whatever else the machine does falls on both."""

import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any

from jaxlm.core.errors import UserError


class Server:
    """A program that prepares itself, prints the seconds that took, and then for each line with a number on its
    standard input does its work so many times and prints the median seconds of one."""

    def __init__(self, command: list[str]):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.prepare_seconds = self._read()

    def turn(self, count: int) -> float:
        """Seconds of one piece of work, the median of ``count``, while the other waits."""
        assert self._process.stdin is not None
        print(count, file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self._process.args} ended with code {self._process.wait()}")
        return float(line)


def check_peer(python: str, *modules: str) -> None:
    """Raises UserError where the interpreter of a peer does not start, or lacks one of ``modules``."""
    command = [python, "-c", f"import {', '.join(modules)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UserError(f"cannot start --peer-python {python}: {error.strerror or error}") from error
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise UserError(f"--peer-python {python} cannot import {', '.join(modules)} ({why}): name one that can")


PEER_TURNS = """
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    print(statistics.median(times), flush=True)
"""
"""`serve` for a peer's interpreter, which has no jaxlm: the end of a program that imported sys, time and statistics and
has a function ``work``."""


def serve(turns: Iterable[str], work: Callable[[], object], *, pieces: int = 1) -> None:
    """The other end of `Server`, for work in this process, of so many pieces: a turn for each line of ``turns``
    (standard input)."""
    for line in turns:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            work()
            seconds.append((time.perf_counter() - start) / pieces)
        print(statistics.median(seconds), flush=True)


def alternate(commands: dict[str, list[str]], *, turns: int, count: int) -> dict[str, dict[str, Any]]:
    """Starts the servers one by one and lets them take turns: for each the seconds of its turns and to prepare."""
    servers: dict[str, Server] = {}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    try:
        for name, command in commands.items():
            servers[name] = Server(command)
        for _ in range(turns):
            for name, server in servers.items():
                seconds[name].append(server.turn(count))
        return {name: {"turns": seconds[name], "prepare": servers[name].prepare_seconds} for name in commands}
    finally:
        for server in servers.values():
            server.close()


def ratio(ours: list[float], theirs: list[float]) -> float:
    """How much faster ours is: the median over turns."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, least and most, in milliseconds."""
    return {"ms": 1e3 * statistics.median(seconds), "ms_min": 1e3 * min(seconds), "ms_max": 1e3 * max(seconds)}
