"""Several processes on one checkpoint directory: the first decides, and all hear it.

Collectives over the devices: to be called by every process in the same order, on the main thread. With a single process
they are plain calls.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlm.core.errors import UserError

T = TypeVar("T")


def from_first(decide: Callable[[], T]) -> T:
    """What ``decide`` returns in the first process, a JSON value, in all of them; the others do not call it.

    A UserError that it raises is raised in all.
    """
    if jax.process_count() == 1:
        return decide()
    outcome = _broadcast(_attempt(decide) if jax.process_index() == 0 else None)
    if "refused" in outcome:
        raise UserError(outcome["refused"])
    return outcome["value"]


def everywhere(ok: bool) -> bool:
    """Whether ``ok`` holds in all processes; none goes on before all have come."""
    if jax.process_count() == 1:
        return ok
    return bool(np.all(multihost_utils.process_allgather(np.bool_(ok))))


def _attempt(decide: Callable[[], T]) -> dict[str, Any]:
    try:
        return {"value": decide()}
    except UserError as error:
        return {"refused": str(error)}


def _broadcast(value: Any) -> Any:
    data = json.dumps(value).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    mine = np.frombuffer(data.ljust(size)[:size], np.uint8)  # the others' bytes count for nothing
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes())
