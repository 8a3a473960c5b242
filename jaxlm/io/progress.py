"""What a person sees while a run goes: a bar on a terminal, plain lines elsewhere. All of it goes to stderr."""

import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

_SHOWN: dict[str, Callable[[float], str]] = {
    "train/loss": lambda loss: f"loss {loss:.4f}",
    "train/grad_norm": lambda norm: f"grad {norm:.2g}",
    "perf/tokens_per_second": lambda rate: f"{format_count(rate)} tok/s",
    "perf/mfu": lambda mfu: f"MFU {mfu:.1%}",
}


class Progress:
    """Progress of a training run.

    On a terminal, a bar that moves with every step; elsewhere one line at each `update`. The time left is reckoned from
    the steps after the first `update`, so that compilation does not count.

    Args:
      num_steps: where the run ends.
      start_step: where it starts (the resumed step).
    """

    def __init__(self, num_steps: int, start_step: int = 0, *, stream: TextIO | None = None):
        self._num_steps = num_steps
        self._step = start_step
        self._stream: TextIO = sys.stderr if stream is None else stream
        self._first: tuple[int, float] | None = None
        self._bar: Any = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=num_steps,
                initial=start_step,
                file=self._stream,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}{postfix}",
            )

    def advance(self, step: int) -> None:
        """Moves to `step`. Costs next to nothing: may be called every step."""
        self._step = step
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def update(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Shows the figures of a log step, those there are of ``train/loss``, ``train/grad_norm``,
        ``perf/tokens_per_second`` and ``perf/mfu`` (0 to 1), and the time left."""
        self.advance(step)
        shown = ((text, figures.get(name)) for name, text in _SHOWN.items())
        parts = [text(value) for text, value in shown if value is not None]
        left = self._seconds_left(step)
        if left is not None:
            parts.append(f"{format_seconds(left)} left")
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(parts))
        else:
            print("  ".join([f"step {step}/{self._num_steps}", *parts]), file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seconds_left(self, step: int) -> float | None:
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        first_step, first_time = self._first
        if step <= first_step:
            return None
        return (self._num_steps - step) * (now - first_time) / (step - first_step)


@contextmanager
def notice(doing: str, stream: TextIO | None = None) -> Iterator[None]:
    """Says what is being done before a silence, and how long it took after: ``compiling the train step ... 12 s``."""
    out: TextIO = sys.stderr if stream is None else stream
    start = time.monotonic()
    tty = out.isatty()
    print(f"{doing} ...", end="" if tty else "\n", file=out, flush=True)
    try:
        yield
    except BaseException:
        if tty:
            print(file=out, flush=True)
        raise
    took = format_seconds(time.monotonic() - start)
    print(f" {took}" if tty else f"{doing}: {took}", file=out, flush=True)


class NamedLines(io.TextIOBase):
    """A stream of which every line begins with a name: what several runs write to one terminal can be told apart.

    It is no terminal itself: a bar would be drawn over by the others'. An unfinished line is held back.

    Args:
      name: stands before each line, and two spaces.
      stream: where the lines go; each in one write.
    """

    def __init__(self, name: str, stream: TextIO):
        self._stream = stream
        # On a terminal a line takes the place of the bar of all runs, which is drawn again as one ends.
        self._before = f"\r\x1b[K{name}  " if stream.isatty() else f"{name}  "
        self._held = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *lines, self._held = (self._held + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._before}{line}\n" for line in lines))
            self._stream.flush()
        return len(text)


def format_seconds(seconds: float) -> str:
    """``0.31 s``, ``8.2 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_count(number: float) -> str:
    """``950``, ``12.3k``, ``4.56M``, ``7.89B``."""
    number = float(f"{number:.3g}")  # rounded first: 999,700 is 1M
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
