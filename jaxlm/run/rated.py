"""Runs of one width whose rate is an argument of the compiled step: what studies of rates train."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.core.types import Array, Batch, PyTree
from jaxlm.data.batches import DataState, batch_keys
from jaxlm.run.assembly import Assembly, step_of
from jaxlm.run.prepare import PreparedData, resolve_model
from jaxlm.run.setup import abstract_batch, lower_train_step
from jaxlm.run.transfer_config import Parametrisation, TransferConfig
from jaxlm.train.state import TrainState


def assemble_at(
    config: TransferConfig, parametrisation: Parametrisation, width: int, seed: int, data: PreparedData, mesh: Mesh
) -> Assembly:
    """The parts of the run at a width, its rate 1."""
    run = config.run_at(parametrisation, width, seed)
    return Assembly(dataclasses.replace(run, model=resolve_model(run.model, data.tokenizer)), data, mesh)


def check_steps(run: Assembly, count: int) -> None:
    """Raises UserError where the data of a run ends before so many steps."""
    available = run.plan.num_batches
    if available is not None and available < count:
        raise UserError(
            f"data.num_epochs={run.config.data.num_epochs} gives {available} batches, fewer than the {count} steps "
            "asked for: lower --steps, raise num_epochs, or set it to None to repeat"
        )


def first_batches(run: Assembly, count: int) -> list[Batch]:
    """The first batches of a run, on its devices. Raises UserError where there are fewer."""
    check_steps(run, count)
    with run.batches(DataState()) as reader:
        return [next(reader)[1] for _ in range(count)]


def compile_rated_step(run: Assembly) -> Callable[..., Any]:
    """``step(state, rate, batch, key) -> (state, loss)``, compiled: the run's own step, whose rate is 1, with every
    update multiplied by ``rate``. Optimisers are linear in their rate, decay included."""

    def scaled(rate: Array) -> optax.GradientTransformation:
        def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
            updates, state = run.tx.update(updates, state, params)
            return jax.tree.map(lambda update: rate * update, updates), state

        return optax.GradientTransformation(run.tx.init, update)

    def step(state: TrainState, rate: Array, batch: Batch, key: Array) -> tuple[TrainState, Any]:
        train_step = step_of(run.config, run.model, scaled(rate), streamed=False)
        state, metrics = train_step(state, None, batch, key)
        return state, metrics["loss"]

    config = run.config
    batch = abstract_batch(batch_keys(run.plan.rows), config.global_batch_size, config.data.seq_len, run.mesh)
    key = purpose_key(config.seed, Purpose.DROPOUT)
    return lower_train_step(step, run.layout, batch, run.mesh, key=key, frozen=jnp.float32(1.0)).compile()
