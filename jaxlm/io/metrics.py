"""Figures of a run as they come: metrics.jsonl for programs, TensorBoard for eyes, samples.jsonl for reading.

Nothing here touches a device: values come in as Python floats, fetched by the loop at its log steps.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.io.run_dir import RunDir, write_text


class MetricsWriter:
    """Appends to a run directory's metrics.jsonl, samples.jsonl and tensorboard/.

    Args:
      run_dir: the directory.
      resume_step: the step that training goes on from: what a killed run wrote past it is dropped, since those steps
        come again. None keeps all that is there.
      tensorboard: whether TensorBoard's event files are written as well.
    """

    def __init__(self, run_dir: str | Path, *, resume_step: int | None = None, tensorboard: bool = True):
        run = RunDir(run_dir)
        run.path.mkdir(parents=True, exist_ok=True)
        for path in (run.metrics_path, run.samples_path):
            if resume_step is not None:
                drop_after(path, resume_step)
            else:
                _end_last_line(path)
        self._metrics = open(run.metrics_path, "a", encoding="utf-8")  # noqa: SIM115
        self._samples = open(run.samples_path, "a", encoding="utf-8")  # noqa: SIM115
        self._tensorboard = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            purge_step = None if resume_step is None else resume_step + 1
            # tensorboardX names files by the second: a quick restart would write over the one before.
            self._tensorboard = SummaryWriter(
                str(run.tensorboard_path),
                purge_step=purge_step,
                flush_secs=30,
                filename_suffix=f".{os.getpid()}.{resume_step or 0}",
            )

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """One line: ``{"step": 10, "time": 1700000000.0, "train/loss": 2.3, ...}``.

        NaN and infinity, which JSON lacks, become null; a value that is None is left out.
        """
        values = {key: value for key, value in values.items() if value is not None}
        line = {"step": step, "time": round(time.time(), 3)} | {key: _finite(value) for key, value in values.items()}
        _append(self._metrics, line)
        if self._tensorboard is not None:
            for key, value in values.items():
                self._tensorboard.add_scalar(key, float(value), step)

    def write_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Texts written by the model, each with ``prompt`` and ``completion`` (and other JSON entries)."""
        for sample in samples:
            _append(self._samples, {"step": step, **sample})
        if self._tensorboard is not None and samples:
            text = "\n\n---\n\n".join(f"**{s.get('prompt', '')}**{s.get('completion', '')}" for s in samples)
            self._tensorboard.add_text("samples", text, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        self._metrics.close()
        self._samples.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SilentWriter(MetricsWriter):
    """Writes nothing: what every process but the first is given."""

    def __init__(self) -> None:
        pass

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        pass

    def write_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        pass

    def close(self) -> None:
        pass


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


def drop_after(path: Path, step: int) -> None:
    """Rewrites a file of lines, whole or not at all, without those past `step`."""
    if path.exists():
        kept = [entry for entry in read_lines(path) if entry["step"] <= step]
        write_text(path, "".join(_line(entry) for entry in kept))


def _append(file: Any, entry: Mapping[str, Any]) -> None:
    # One write and one flush a line: a reader sees whole lines, and a killed process loses none that was logged.
    file.write(_line(entry))
    file.flush()


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, allow_nan=False, ensure_ascii=False) + "\n"


def _end_last_line(path: Path) -> None:
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
