"""Where the time of a piece of work goes on the device: a trace's kernels, added up by what they compute."""

import collections
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tools.bench.measuring import Row
from tools.bench.models import on_cpu
from tools.bench.train import GPT2_CASE, SMALL_CASE, prepare


class Kernel(NamedTuple):
    """All runs of one kind of kernel."""

    name: str
    """Its operation in the HLO, numbers cut off."""
    source: str
    """The part of the program that it comes from, layer numbers cut off."""
    kernel: str
    """As the device names one of them."""
    runs: int
    ms: float
    """All together."""


def traced(fn: Callable[[], Any], *, directory: Path | None = None) -> list[Kernel]:
    """Runs ``fn``, which waits for its own result, under JAX's profiler; its kernels, the longest first.

    ``directory``: where the trace is left for TensorBoard and Perfetto; None = nowhere.
    """
    fn()
    with tempfile.TemporaryDirectory() as scratch:
        place = directory or Path(scratch)
        with jax.profiler.trace(str(place)):
            fn()
        newest = max(place.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
        return kernels_of(jax.profiler.ProfileData.from_file(str(newest)))


def bench_trace(repeats: int) -> Iterator[Row]:
    """The kernels of a train step (GPT-2 124M on an accelerator) that take most of its time, the longest first."""
    run, _ = prepare(SMALL_CASE if on_cpu() else GPT2_CASE)
    table = traced(lambda: run(repeats))
    total = sum(kernel.ms for kernel in table)
    for kernel in table[:24]:
        yield {
            "name": kernel.name,
            "ms": kernel.ms / repeats,
            "share": kernel.ms / total,
            "runs": kernel.runs / repeats,
            "source": kernel.source,
        }


def kernels_of(profile: Any) -> list[Kernel]:
    """A trace's kernels, the longest first: of the accelerators in it, or of the CPU's threads where there are none."""
    ns: collections.Counter[tuple[str, str]] = collections.Counter()
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    example: dict[tuple[str, str], str] = {}
    for event in _events(profile):
        stats = dict(event.stats)
        operation = stats.get("hlo_op")
        if operation is None:
            continue
        # Within a CUDA graph kernels have no operation but the graph's: their own names say more.
        name = event.name if str(operation).startswith("command_buffer") else str(operation)
        key = (_cut(name), _cut(str(stats.get("tf_op") or stats.get("name_scope") or "")))
        ns[key] += event.duration_ns
        count[key] += 1
        example.setdefault(key, event.name)
    return [Kernel(*key, example[key], count[key], ns[key] / 1e6) for key, _ in ns.most_common()]


def _events(profile: Any) -> Iterator[Any]:
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:") and any(True for _ in plane.lines)]
    for plane in devices or [plane for plane in planes if plane.name.startswith("/host:CPU")]:
        for line in plane.lines:
            if devices and not line.name.startswith("Stream"):  # the other lines show the same time again
                continue
            yield from line.events


def _cut(name: str) -> str:
    """Without the numbers that tell one layer's from another's."""
    return re.sub(r"[._]\d+", "", name)
