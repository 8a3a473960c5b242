"""A reference's log-probabilities of all answers: computed once, kept in the run directory, found again."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.core.types import Batch, Params
from jaxlm.data.examples import ExamplePlan
from jaxlm.models.api import Model
from jaxlm.run.align.assembled import held_out_batches
from jaxlm.train.preference_objectives import answer_logprobs

FILE = "ref_logprobs.npz"


def reference_key(examples: str, run: str, step: int | None, *, int8: bool = False) -> str:
    """What the log-probabilities depend on, sha256 (hex): the rows, the reference, its step and its form."""
    form = ("int8",) if int8 else ()
    return hashlib.sha256(repr((examples, os.path.abspath(run), step, *form)).encode()).hexdigest()


def read_logprobs(directory: Path, key: str) -> dict[str, np.ndarray] | None:
    """What `keep_logprobs` wrote under this key; None where it did not, or the file is damaged."""
    try:
        with open(directory / FILE, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return {name: found[name] for name in found if name != "key"} if str(found.get("key")) == key else None


def keep_logprobs(directory: Path, key: str, logprobs: Mapping[str, np.ndarray]) -> None:
    """Writes them whole or not at all."""
    partial = directory / f".{FILE}.{os.getpid()}.npz"
    try:
        arrays: dict[str, Any] = {"key": np.array(key), **logprobs}
        np.savez(partial, **arrays)
        os.replace(partial, directory / FILE)
    finally:
        partial.unlink(missing_ok=True)


def compute_logprobs(
    model: Model, params: Params, arrays: Mapping[str, np.ndarray], rows: int, mesh: Mesh, *, loss_chunk: int | None
) -> np.ndarray:
    """Log-probability of each answer, nats, f32 [n, k]. ``params`` lie on the mesh; ``rows`` prompts at a time."""
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def of_batch(params: Params, batch: Batch) -> Any:
        return answer_logprobs(model, params, batch, loss_chunk=loss_chunk)[0]

    jitted = jax.jit(of_batch, out_shardings=everywhere)
    plan = ExamplePlan(dict(arrays), rows, shuffle=False, num_epochs=1)
    with jax.set_mesh(mesh):
        found = [np.asarray(jitted(params, batch)) for batch in held_out_batches(plan, mesh)]
    return np.concatenate(found)[: plan.num_rows].astype(np.float32)
