"""Collectives read from the text of a compiled program: kind, bytes, how often, and over which network."""

import collections
import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
ITEM_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64, "u64": 64,
    "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_OP = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|called_computations?|async_execution_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations|calls)=\{([^}]*)\}")
_TRIPS = re.compile(r'"?known_trip_count"?:?\s*=?\s*\{"?n"?:?\s*"?(\d+)')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_LIMIT = re.compile(r" [su]\d+\[\](?:\{[^}]*\})? constant\((\d+)\)")
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")
_MEGASCALE = re.compile(r'_xla_megascale_transfer_type="([A-Z_]+)"')
_AXIS = re.compile(r"'([^']+)'(?:=(\d+)|:\((\d+)\)(\d+))?")


class Collective(NamedTuple):
    """One collective of the program."""

    kind: str
    num_bytes: int
    """Of the whole array on one device: what an all-gather gives, what a reduce-scatter takes."""
    times: int
    """Runs in one step: the trips of the loops around it."""
    group: int
    """Devices that take part together."""
    crosses_slices: bool
    name: str
    where: str
    """The line of the model it comes from, as XLA remembers it."""

    @property
    def wire_bytes(self) -> float:
        """Bytes that leave one device in one step on a ring: (g - 1) / g of the array, twice that for an all-reduce."""
        share = (self.group - 1) / self.group if self.group else 1.0
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.num_bytes * self.times * factor


def shape_bytes(text: str) -> int:
    """Bytes of all arrays named in a piece of HLO: ``(f32[8,4]{1,0}, bf16[2])`` -> 132."""
    total = 0
    for kind, dims in _SHAPE.findall(text):
        if kind in ITEM_BITS:
            total += math.prod(int(size) for size in dims.split(",") if size) * ITEM_BITS[kind] // 8
    return total


def _largest(text: str) -> int:
    return max((shape_bytes(f"{kind}[{dims}]") for kind, dims in _SHAPE.findall(text)), default=0)


def _start_bytes(kind: str, result: str) -> int:
    """Bytes of the whole arrays of an asynchronous collective, from what its start gives: ``(in, out)``, or where
    several are sent as one ``((in, in), (out, out))``; of an all-reduce what goes out alone."""
    if kind == "all-reduce":
        return shape_bytes(result)
    if not result.startswith("(("):
        return _largest(result)
    taken, _, given = result.partition("), (")
    return shape_bytes(taken if kind == "reduce-scatter" else given)


def _mesh_groups(axes: str, chosen: str) -> np.ndarray:
    """Groups named by axes of a mesh: ``'a'=4,'b'=2`` and ``'a'``, or ``'a':(2)2``, the inner half of it."""
    sizes = {name: int(size) for name, size, _, _ in _AXIS.findall(axes)}
    parts = {name: {1, size} for name, size in sizes.items()}  # where each axis is cut, from the outside
    wanted: list[tuple[str, int, int]] = []
    for name, _, before, size in _AXIS.findall(chosen):
        start, width = (int(before), int(size)) if size else (1, sizes[name])
        parts[name] |= {start, start * width}
        wanted.append((name, start, start * width))
    dims: list[tuple[str, int, int]] = []
    for name in sizes:
        cuts = sorted(parts[name])
        dims += [(name, a, b) for a, b in itertools.pairwise(cuts)] or [(name, 1, 1)]
    numbers = np.arange(math.prod(sizes.values())).reshape([b // a for _, a, b in dims])
    inside = [i for i, (name, a, b) in enumerate(dims) if any(n == name and x <= a and b <= y for n, x, y in wanted)]
    outside = [i for i in range(len(dims)) if i not in inside]
    members = math.prod(numbers.shape[i] for i in inside)
    return numbers.transpose(outside + inside).reshape(-1, members)


def _groups(rest: str) -> np.ndarray | None:
    """Device numbers [groups, members]; pairs for a permute; None where all take part."""
    if mesh := _MESH.search(rest):
        return _mesh_groups(mesh[1], mesh[2])
    if iota := _IOTA.search(rest):
        rows, cols, dims, order = iota.groups()
        numbers = np.arange(int(rows) * int(cols)).reshape([int(size) for size in dims.split(",")])
        if order:
            numbers = numbers.transpose([int(axis) for axis in order.split(",")])
        return numbers.reshape(int(rows), int(cols))
    if listed := _LISTED.search(rest):
        members = [[int(n) for n in row.split(",") if n.strip()] for row in re.findall(r"\{([\d, ]*)\}", listed[1])]
        return np.asarray(members) if members and len({len(row) for row in members}) == 1 else None
    return None


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """(name of the entry, name -> lines)."""
    entry, current, found = "", None, {}
    for line in text.splitlines():
        if current is None:
            if header := _HEADER.match(line):
                current = header[2]
                found[current] = []
                entry = current if header[1] else entry
        elif line.rstrip() == "}":  # a kernel's own text may hold lines that begin so
            current = None
        else:
            found[current].append(line)
    return entry, found


def _called(line: str) -> Iterator[str]:
    yield from _CALLED.findall(line)
    for names in _BRANCHES.findall(line):
        yield from (name.strip().lstrip("%") for name in names.split(",") if name.strip())


def _trips(line: str, computations: dict[str, list[str]]) -> int:
    """Runs of a loop's body: as XLA says it, else the number that the condition compares with (loops here count from
    0 by 1); 1 where neither is known."""
    if known := _TRIPS.search(line):
        return int(known[1])
    condition = _CONDITION.search(line)
    lines = list(computations.get(condition[1], ())) if condition else []
    for child in [name for line in lines for name in _called(line)]:
        lines += computations.get(child, ())
    return max((int(limit) for line in lines for limit in _LIMIT.findall(line)), default=1)


def _times(entry: str, computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in one run of the program."""
    calls: dict[str, list[tuple[str, int]]] = {}
    for name, lines in computations.items():
        calls[name] = []
        for line in lines:
            children = [child for child in _called(line) if child in computations]
            if children:
                trips = _trips(line, computations) if " while(" in line else 1
                calls[name] += [(child, trips) for child in children]
    times: dict[str, int] = {}

    def visit(name: str, count: int) -> None:
        times[name] = times.get(name, 0) + count
        for child, trips in calls[name]:
            visit(child, count * trips)

    visit(entry, 1)
    return times


def find_collectives(text: str, *, num_devices: int, slices: int = 1) -> list[Collective]:
    """Every collective of ``compiled.as_text()``, largest traffic first. Asynchronous ones count at their start; an
    all-reduce that XLA fused with the slice that each device keeps is the reduce-scatter that it runs as.

    What goes between slices leaves through the host, as a ``send`` of what is left of the array once each slice has
    split it over its own devices. Devices are numbered as the mesh numbers them, so a slice is a run of
    ``num_devices / slices`` numbers.
    """
    entry, computations = _computations(text)
    times = _times(entry, computations)
    found = []
    seen: set[tuple[str | int | bool, ...]] = set()
    for name, lines in computations.items():
        if not times.get(name):
            continue
        here: collections.Counter[tuple[str | int | bool, ...]] = collections.Counter()
        for line in lines:
            if not (op := _OP.match(line)):
                continue
            op_name, result, opcode, rest = op.groups()
            where = re.search(r'op_name="([^"]*)"', rest)
            if opcode == "send" and (between := _MEGASCALE.search(rest)):
                kind, size = between[1].lower().replace("_", "-"), _largest(result)
                found.append(Collective(kind, size, times[name], slices, True, op_name, where[1] if where else ""))
                continue
            kind = opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            groups = _groups(rest)
            permute = kind == "collective-permute"
            group = num_devices if groups is None else groups.shape[1]
            size = _start_bytes(kind, result) if opcode.endswith("-start") else shape_bytes(result)
            if kind == "reduce-scatter":
                size *= 1 if opcode.endswith("-start") else group
            if kind == "all-reduce" and "reduce-scatter" in name:
                kind = "reduce-scatter"
            slice_of = None if groups is None else groups // (num_devices // slices)
            crosses = slices > 1 and (slice_of is None or bool((slice_of != slice_of[:, :1]).any()))
            group = 2 if permute else group
            one = Collective(kind, size, times[name], group, crosses, op_name, where[1] if where else "")
            # Fused with the products that hide it, one collective stands in several computations. Its channel and line
            # do not say so alone: in one computation those that are alike are several, for all that a shard_map sends
            # has one channel.
            channel, frame = re.search(r"channel_id=(\d+)", rest), re.search(r"stack_frame_id=(\d+)", rest)
            alike = (channel[1] if channel else op_name, frame[1] if frame else "", *one._replace(name=""))
            here[alike] += 1
            if (same := (here[alike], *alike)) not in seen:
                seen.add(same)
                found.append(one)
    return sorted((c for c in found if c.wire_bytes), key=lambda c: -c.wire_bytes)


def summarise(collectives: list[Collective]) -> dict[str, dict[str, float]]:
    """Kind -> places in the program, runs a step, bytes that leave a device in a step; of them between slices."""
    rows: dict[str, dict[str, float]] = {}
    for c in collectives:
        row = rows.setdefault(c.kind, {"places": 0, "runs": 0, "bytes": 0, "dcn_bytes": 0})
        row["places"] += 1
        row["runs"] += c.times
        row["bytes"] += round(c.wire_bytes)
        row["dcn_bytes"] += round(c.wire_bytes) if c.crosses_slices else 0
    return rows
