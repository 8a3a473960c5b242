"""Parameters of a Hugging Face directory straight under their shardings, with no run directory between."""

import functools
from typing import Any

import jax
import numpy as np

from jaxlm.core.dtypes import as_dtype
from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import Params, PyTree
from jaxlm.io.hf.importing import Opened
from jaxlm.io.hf.pieces import Piece
from jaxlm.models.families import make_model
from jaxlm.plan.params import param_shapes


def load_params(opened: Opened, shardings: PyTree) -> Params:
    """The parameters of ``opened`` (`importing.open_hf`), in ``opened.config.param_dtype``.

    Args:
      shardings: like the parameters, one for each (`sharding.rules.named_shardings`). Every process reads, of mapped
        files, what its own devices hold and nothing else.
    """
    shapes = param_shapes(make_model(opened.config))
    holders: dict[str, list[tuple[Piece, int]]] = {}
    for piece in opened.pieces:
        for number, part in enumerate(piece.parts):
            holders.setdefault(part.path, []).append((piece, number))
    places = flatten_with_paths(shardings)
    leaves = [
        jax.make_array_from_callback(leaf.shape, places[path], functools.partial(_read_region, opened, holders[path]))
        for path, leaf in flatten_with_paths(shapes).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _read_region(opened: Opened, holders: list[tuple[Piece, int]], index: Any) -> np.ndarray:
    """A box of one parameter, put together from the tensors that hold it."""
    piece, number = holders[0]
    part = piece.parts[number]
    num_leads = len(part.lead)
    leads = [max(piece.parts[number].lead[axis] for piece, number in holders) + 1 for axis in range(num_leads)]
    shape = (*leads, *(part.shape[::-1] if piece.turn else part.shape))
    box = [range(size)[chosen] for size, chosen in zip(shape, index, strict=True)]
    out: Any = np.empty([len(run) for run in box], as_dtype(opened.config.param_dtype))
    inner = [slice(run.start, run.stop) for run in box[num_leads:]]
    for piece, number in holders:
        part = piece.parts[number]
        if not all(at in run for at, run in zip(part.lead, box, strict=False)):
            continue
        theirs = inner[::-1] if piece.turn else list(inner)
        before = sum(other.shape[-1] for other in piece.parts[:number])
        theirs[-1] = slice(theirs[-1].start + before, theirs[-1].stop + before)
        block = opened.accounted.tensors[piece.tensor].read()[tuple(theirs)]
        at = tuple(at - run.start for at, run in zip(part.lead, box, strict=False))
        out[at] = block.T if piece.turn else block
    return out
