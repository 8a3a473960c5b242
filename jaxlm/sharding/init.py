"""Parameters made where they will live: no device and no host ever holds the whole."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from jaxlm.core.types import Array, PyTree
from jaxlm.sharding.rules import check_divides, named_shardings


def init_sharded(init_fn: Callable[[Array], PyTree], key: Array, mesh: Mesh, specs: PyTree) -> PyTree:
    """``init_fn(key)`` with each leaf born in its shards: one program in which every device computes its own part.

    Partitionable threefry keys make the values those of one device, bit for bit. Raises UserError where a dimension
    does not divide over its axes, before anything is compiled.
    """
    check_divides(jax.eval_shape(init_fn, key), specs, dict(mesh.shape))
    return jax.jit(init_fn, out_shardings=named_shardings(mesh, specs))(key)
