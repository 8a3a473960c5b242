"""TPU slices by name: which exist, and what a chip of each kind has. Numbers alone: no device is asked."""

import dataclasses
import difflib
import itertools
import math
import re

from jaxlm.core.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip, which is one jax device. Rates are peaks of the makers' data sheets."""

    name: str
    hbm_bytes: int
    """What a program may use, as libtpu says where one does not fit: less than the data sheet's."""
    peak_flops: float
    """Dense bf16, FLOP/s."""
    hbm_bandwidth: float
    """Bytes a second."""
    link_bandwidth: float
    """Bytes a second over one link to a neighbour, one way."""
    dcn_bandwidth: float
    """Bytes a second between slices, a chip's share of its host's network."""
    dims: int
    """Dimensions of the torus; a chip has two links in each."""
    largest: tuple[int, ...]
    """The largest slice."""

    @property
    def ici_bandwidth(self) -> float:
        """Bytes a second that leave a chip over one dimension of the torus, both ways round a ring."""
        return 2 * self.link_bandwidth


CHIPS: dict[str, Chip] = {
    "v4": Chip("v4", int(30.75 * GIB), 275e12, 1.23e12, 45e9, 6.25e9, 3, (16, 16, 16)),
    "v5e": Chip("v5e", int(15.75 * GIB), 197e12, 0.82e12, 45e9, 3.125e9, 2, (16, 16)),
    "v5p": Chip("v5p", int(95.74 * GIB), 459e12, 2.77e12, 90e9, 6.25e9, 3, (16, 16, 24)),
    "v6e": Chip("v6e", int(31.25 * GIB), 918e12, 1.64e12, 90e9, 12.5e9, 2, (16, 16)),
}
"""Sources: Google Cloud's system architecture pages; links and DCN: "How to Scale Your Model" (2025), chapter 2."""

FLAT_SHAPES = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
"""Slices of the chips whose torus is flat (v5e, v6e)."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of one shape, joined by the data-centre network where there are several."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """As libtpu spells it: ``v5p:8x8x16``."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def num_chips(self) -> int:
        """Over all slices."""
        return self.slices * math.prod(self.shape)


def known_shapes(chip: Chip) -> list[tuple[int, ...]]:
    """Shapes of the slices that exist of this chip, small ones first."""
    if chip.dims == 2:
        return list(FLAT_SHAPES)
    sizes = [size for size in (2, *range(4, max(chip.largest) + 1, 4)) if size <= max(chip.largest)]
    shapes = [
        shape
        for shape in itertools.combinations_with_replacement(sizes, 3)
        if all(a <= b for a, b in zip(shape, chip.largest, strict=True)) and (shape[0] > 2 or shape[2] <= 4)
    ]
    return sorted([(2, 2, 1), *shapes], key=lambda shape: (math.prod(shape), shape))


def parse_topology(name: str, slices: int = 1) -> Topology:
    """``"v5p:8x8x16"`` -> its Topology. Raises UserError, near names offered, where there is no such slice."""
    if slices < 1:
        raise UserError(f"--slices {slices} must be at least 1")
    known = {f"{chip.name}:{'x'.join(map(str, shape))}" for chip in CHIPS.values() for shape in known_shapes(chip)}
    clean = name.strip().lower()
    if clean not in known:
        raise UserError(f"there is no topology {name!r}{_near(clean, sorted(known))}")
    kind, _, shape = clean.partition(":")
    return Topology(CHIPS[kind], tuple(int(size) for size in shape.split("x")), slices)


def _near(name: str, known: list[str]) -> str:
    """What may have been meant: of a known chip the slices nearest in chips, else the nearest spellings."""
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        chips = f"chips are {', '.join(CHIPS)}, as in v5p:8x8x16"
        return f": did you mean {' or '.join(near)}? ({chips})" if near else f": {chips}"
    sizes = sorted(int(size) for size in re.findall(r"\d+", shape)) or [1]

    def distance(found: tuple[int, ...]) -> float:
        """Between sides where there are as many, else between numbers of chips."""
        if len(found) == len(sizes):
            return sum(abs(math.log(a / max(b, 1))) for a, b in zip(sorted(found), sizes, strict=True))
        return 10 + abs(math.log(math.prod(found) / max(math.prod(sizes), 1)))

    near = sorted(known_shapes(CHIPS[kind]), key=distance)[:3]
    return f": did you mean {' or '.join(f'{kind}:' + 'x'.join(map(str, s)) for s in near)}?"
