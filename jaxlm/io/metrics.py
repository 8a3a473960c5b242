"""Figures of a run as they come: metrics.jsonl for programs, TensorBoard for eyes, samples.jsonl for reading.

Nothing here touches a device: values come in as Python floats, fetched by the loop at its log steps.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.io.run_dir import RunDir, write_text


class MetricsWriter:
    """Appends to a run directory's metrics.jsonl, samples.jsonl and tensorboard/.

    Args:
      run_dir: the directory.
      resume_step: the step that training goes on from: what a killed run wrote past it is dropped, since those steps
        come again. None keeps all that is there.
      evaluates_again: the evaluation of `resume_step` comes again too: it and its samples are dropped, as are samples
        of that step where its evaluation is missing.
      tensorboard: whether TensorBoard's event files are written as well.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        resume_step: int | None = None,
        evaluates_again: bool = False,
        tensorboard: bool = True,
    ):
        self._run = RunDir(run_dir)
        self._with_tensorboard = tensorboard
        self._run.path.mkdir(parents=True, exist_ok=True)
        lines = read_lines(self._run.metrics_path)
        self.was_evaluated = any(line["step"] == resume_step and is_evaluation(line) for line in lines)
        """Whether the figures of an evaluation of `resume_step` are there."""
        self._open(resume_step, evaluates_again=evaluates_again or not self.was_evaluated)

    def _open(self, resume_step: int | None, *, evaluates_again: bool) -> None:
        run = self._run

        def stays(entry: Mapping[str, Any]) -> bool:
            # Of the figures of one step those of the evaluation have a line of their own.
            judged = ("completion" in entry and "rollout" not in entry) or is_evaluation(entry)
            return resume_step is None or entry["step"] < resume_step + (not (evaluates_again and judged))

        for path in (run.metrics_path, run.samples_path):
            if resume_step is not None:
                keep_lines(path, stays)
            else:
                end_last_line(path)
        self.last: dict[str, float | None] = {}
        """The last value of each figure that was there before."""
        for line in read_lines(run.metrics_path):
            self.last |= {name: value for name, value in line.items() if name not in ("step", "time")}
        self._metrics = open(run.metrics_path, "a", encoding="utf-8")  # noqa: SIM115
        os.utime(run.metrics_path)  # whoever watches over the run sees that its data stands and steps begin
        self._samples = open(run.samples_path, "a", encoding="utf-8")  # noqa: SIM115
        self._tensorboard = _EventFile(run.tensorboard_path, resume_step) if self._with_tensorboard else None

    def go_back(self, step: int) -> None:
        """Drops what was written past ``step``: the run goes on from there, and those steps come again."""
        self.close()
        self._open(step, evaluates_again=False)

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """One line: ``{"step": 10, "time": 1700000000.0, "train/loss": 2.3, ...}``.

        NaN and infinity, which JSON lacks, become null; a value that is None is left out.
        """
        values = {key: value for key, value in values.items() if value is not None}
        line = {"step": step, "time": round(time.time(), 3)} | {key: _finite(value) for key, value in values.items()}
        append_line(self._metrics, line)
        if self._tensorboard is not None:
            self._tensorboard.write_scalars(step, values)

    def write_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Texts written by the model, each with ``prompt`` and ``completion`` (and other JSON entries)."""
        for sample in samples:
            append_line(self._samples, {"step": step, **sample})
        if self._tensorboard is not None and samples:
            text = "\n\n---\n\n".join(f"**{s.get('prompt', '')}**{s.get('completion', '')}" for s in samples)
            self._tensorboard.write_text(step, "samples", text)

    def close(self) -> None:
        """Flushes and closes the files: all of them, whatever one may raise."""
        with contextlib.ExitStack() as stack:
            for file in (self._tensorboard, self._samples, self._metrics):
                if file is not None:
                    stack.callback(file.close)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _EventFile:
    """One of TensorBoard's event files. tensorboardX's own writer hands each event to a thread, which a full disk ends:
    then whoever writes waits for it for ever. This one writes here, and raises here."""

    _FLUSH_SECONDS = 30

    def __init__(self, directory: Path, resume_step: int | None):
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        proto: Any = event_pb2  # its classes are made at import
        self._summary, self._event, self._flushed = summary, proto.Event, time.monotonic()
        directory.mkdir(parents=True, exist_ok=True)
        # Files are named by the second: a quick restart would write over the one before.
        self._file = EventsWriter(str(directory / "events"), f".{os.getpid()}.{resume_step or 0}")
        if resume_step is not None:  # TensorBoard hides what was written from this step on
            started = proto.SessionLog(status=proto.SessionLog.START)
            self._write(proto.Event(step=resume_step + 1, session_log=started))

    def write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A point of each curve."""
        for name, value in values.items():
            self._write(self._event(step=step, summary=self._summary.scalar(name, float(value))))

    def write_text(self, step: int, name: str, text: str) -> None:
        """A text in Markdown."""
        self._write(self._event(step=step, summary=self._summary.text(name, text)))

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._file.write_event(event)
        if time.monotonic() - self._flushed > self._FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()


class SilentWriter(MetricsWriter):
    """Writes nothing: what every process but the first is given."""

    def __init__(self) -> None:
        self.last, self.was_evaluated = {}, True

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        pass

    def write_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        pass

    def go_back(self, step: int) -> None:
        pass

    def close(self) -> None:
        pass


def is_evaluation(line: Mapping[str, Any]) -> bool:
    """Whether a line of metrics.jsonl is that of an evaluation."""
    return any(name.startswith("eval/") for name in line)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a metrics.jsonl or samples.jsonl, in order; a line cut short by a crash is passed over."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                yield entry


def keep_lines(path: Path, stays: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrites a file of lines, whole or not at all, with those alone that stay."""
    if path.exists():
        kept = [entry for entry in read_lines(path) if stays(entry)]
        write_text(path, "".join(_line(entry) for entry in kept))


def append_line(file: Any, entry: Mapping[str, Any]) -> None:
    """Writes an object as a line of its own."""
    # One write and one flush a line: a reader sees whole lines, and a killed process loses none that was logged.
    file.write(_line(entry))
    file.flush()


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, allow_nan=False, ensure_ascii=False) + "\n"


def end_last_line(path: Path) -> None:
    """Ends a line that a crash cut short, so that the next one starts at its own."""
    if path.exists() and path.stat().st_size:
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _finite(value: float) -> float | None:
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None
