"""What keeps `make test` short: flags for programs that run for a moment, and variants left to `make test-slow`."""

from collections.abc import Hashable, Iterable
from typing import Any

import pytest

# Most of the suite's time would be the making of fast code.
FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)


def quick_ones(values: Iterable[Any], *quick: Hashable) -> list[Any]:
    """For `pytest.mark.parametrize`: of ``values`` all but ``quick`` are slow tests. Raises ValueError for a quick one
    that is none of them."""
    values = list(values)
    if unknown := [one for one in quick if one not in values]:
        raise ValueError(f"{unknown} are none of {values}")
    return [one if one in quick else pytest.param(one, marks=pytest.mark.slow) for one in values]
