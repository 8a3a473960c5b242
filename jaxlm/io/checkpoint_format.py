"""The version of what a checkpoint holds, and the way up from older ones."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import jaxlm
from jaxlm.core.errors import UserError

FORMAT_VERSION = 3
"""1: state as a pytree named by its fields; meta = {format_version, jaxlm_version, step, meta: the caller's own}.
2: the caller's meta has ``incidents`` beside ``data``, and every step carries checksums.
3: it has ``spikes`` too, the figures of the last steps by which spikes are told."""

UNSEALED_VERSION = 1
"""The last version whose steps carry no checksums."""

Arrays = dict[str, np.ndarray]
"""The leaves of a state by path, ``{'params/embed/table': ...}``, whole on the host."""


class Migration(NamedTuple):
    """From one version to the next: pure functions over the caller's meta and over the arrays."""

    meta: Callable[[dict[str, Any]], dict[str, Any]]
    state: Callable[[Arrays], Arrays] | None = None
    """None = the arrays are the same: they can be restored as they lie, without passing through the host whole."""


MIGRATIONS: dict[int, Migration] = {
    1: Migration(meta=lambda meta: {"incidents": []} | meta),
    2: Migration(meta=lambda meta: {"spikes": {}} | meta),
}
"""Version -> the step to version + 1."""


def pack_meta(step: int, meta: dict[str, Any]) -> dict[str, Any]:
    """The record as saved. Raises TypeError where `meta` is not JSON: here, and not later in a thread."""
    record = {"format_version": FORMAT_VERSION, "jaxlm_version": jaxlm.__version__, "step": step, "meta": meta}
    json.dumps(record, allow_nan=False)
    return record


def unpack_meta(record: dict[str, Any], what: str) -> tuple[int, dict[str, Any]]:
    """The version that was saved, and the caller's meta as the present version has it.

    Raises UserError for a version that this jaxlm cannot read; `what` names the checkpoint.
    """
    version = record.get("format_version")
    if not isinstance(version, int):
        raise UserError(f"{what} has no format version: it was not written by jaxlm")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{what} has format version {version}, written by jaxlm {record.get('jaxlm_version')}; this jaxlm "
            f"{jaxlm.__version__} reads up to {FORMAT_VERSION}: install a newer jaxlm"
        )
    meta = record["meta"]
    for migration in _way_up(version, what):
        meta = migration.meta(meta)
    return version, meta


def changes_state(version: int) -> bool:
    """Whether the arrays of that version are others than those of the present one."""
    return any(migration.state is not None for migration in _way_up(version, "the checkpoint"))


def upgrade_state(version: int, arrays: Arrays) -> Arrays:
    """The arrays of an older version as the present one has them."""
    for migration in _way_up(version, "the checkpoint"):
        if migration.state is not None:
            arrays = migration.state(arrays)
    return arrays


def _way_up(version: int, what: str) -> list[Migration]:
    missing = [at for at in range(version, FORMAT_VERSION) if at not in MIGRATIONS]
    if missing:
        raise UserError(f"{what} has format version {version}, too old for this jaxlm: restore it with an older one")
    return [MIGRATIONS[at] for at in range(version, FORMAT_VERSION)]
