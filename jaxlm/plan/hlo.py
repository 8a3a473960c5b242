"""Collectives read from the text of a compiled program: kind, bytes, how often, and over which network."""

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
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


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


def _groups(rest: str) -> np.ndarray | None:
    """Device numbers [groups, members]; pairs for a permute; None where all take part."""
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


def _operand_bytes(kind: str, result: str, args: str, shapes: dict[str, int], group: int) -> int:
    """Bytes of the whole array that a collective works on, from its result, or its operands where that is a part."""
    if kind == "all-gather":
        return _largest(result) if "(" in result and "-start" in args else shape_bytes(result)
    if kind == "reduce-scatter":
        named = sum(shapes.get(name, 0) for name in re.findall(r"%([\w.\-]+)", args.partition("), ")[0]))
        return shape_bytes(args.partition("), ")[0]) or named or shape_bytes(result) * group
    return shape_bytes(result)


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """(name of the entry, name -> lines)."""
    entry, current, found = "", None, {}
    for line in text.splitlines():
        if current is None:
            if header := _HEADER.match(line):
                current = header[2]
                found[current] = []
                entry = current if header[1] else entry
        elif line.startswith("}"):
            current = None
        else:
            found[current].append(line)
    return entry, found


def _called(rest: str) -> Iterator[str]:
    yield from _CALLED.findall(rest)
    for names in _BRANCHES.findall(rest):
        yield from (name.strip().lstrip("%") for name in names.split(",") if name.strip())


def _times(entry: str, computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in one run of the program; a loop of unknown length counts once."""
    times: dict[str, int] = {}

    def visit(name: str, count: int) -> None:
        times[name] = times.get(name, 0) + count
        for line in computations.get(name, ()):
            if "=%" not in line and "={" not in line:
                continue
            trips = _TRIPS.search(line) if " while(" in line else None
            for child in _called(line):
                if child in computations:
                    visit(child, count * int(trips[1]) if trips else count)

    visit(entry, 1)
    return times


def find_collectives(text: str, *, num_devices: int, slices: int = 1) -> list[Collective]:
    """Every collective of ``compiled.as_text()``, largest traffic first. Asynchronous ones count at their start.

    Devices are numbered as the mesh numbers them, so a slice is a run of ``num_devices / slices`` numbers.
    """
    entry, computations = _computations(text)
    times = _times(entry, computations)
    found = []
    for name, lines in computations.items():
        if not times.get(name):
            continue
        shapes = {}
        for line in lines:
            if not (op := _OP.match(line)):
                continue
            op_name, result, opcode, rest = op.groups()
            shapes[op_name] = shape_bytes(result)
            kind = opcode.removesuffix("-start")
            if kind not in KINDS or opcode.endswith("-done"):
                continue
            groups = _groups(rest)
            group = num_devices if groups is None else groups.shape[1]
            if opcode.endswith("-start"):  # a tuple of what goes in and what comes out
                size = max(_largest(result), 0)
            else:
                size = _operand_bytes(kind, result, rest, shapes, group)
            slice_of = None if groups is None else groups // (num_devices // slices)
            crosses = slices > 1 and (slice_of is None or bool((slice_of != slice_of[:, :1]).any()))
            where = re.search(r'op_name="([^"]*)"', rest)
            found.append(Collective(kind, size, times[name], group, crosses, op_name, where[1] if where else ""))
    return sorted(found, key=lambda c: -c.wire_bytes)


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
