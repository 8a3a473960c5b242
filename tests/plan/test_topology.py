"""Slices that exist, and near names for those that do not."""

import pytest

from jaxlm.core.errors import UserError
from jaxlm.plan.flops import peak_flops
from jaxlm.plan.topology import CHIPS, known_shapes, parse_topology


@pytest.mark.parametrize(
    ("name", "slices", "chips"),
    [("v5p:8x8x16", 1, 1024), ("v4:12x16x16", 2, 6144), ("v5e:16x16", 1, 256), ("v6e:2x4", 1, 8), ("V5P:2x2x1", 3, 12)],
)
def test_a_slice_has_its_chips(name, slices, chips):
    topology = parse_topology(name, slices)
    assert topology.num_chips == chips
    assert topology.name == name.lower()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5p:8x16x8", "v5p:8x8x16"),  # sides are written in order
        ("v5e:16x20", "v5e:16x16"),
        ("v5p:8x8", "v5p:4x4x4"),
        ("v5:8x8x16", "v5p:8x8x16"),
        ("h100", "chips are v4, v5e, v5p, v6e"),
        ("v5p:", "v5p:2x2x1"),
    ],
)
def test_another_name_is_refused_with_near_ones(name, said):
    with pytest.raises(UserError, match="there is no topology") as raised:
        parse_topology(name)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_slice_at_all_is_refused():
    with pytest.raises(UserError, match="--slices 0 must be at least 1"):
        parse_topology("v5p:2x2x1", 0)


def test_tables_agree():
    for chip in CHIPS.values():
        assert chip.peak_flops == peak_flops(f"TPU {chip.name}")
        assert all(len(shape) == chip.dims for shape in known_shapes(chip))
        assert chip.largest in known_shapes(chip)
