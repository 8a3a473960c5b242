"""Everything that a training run must remember between two steps, but for where it stands in the data."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxlm.core.types import Array, Params, PyTree


@flax.struct.dataclass
class TrainState:
    """Saved whole in every checkpoint. Keys are folded from the step, so there is none in it."""

    step: Array
    """Steps taken, skipped ones included; int32 scalar."""
    params: Params
    opt_state: PyTree
    carry: PyTree = None
    """What an objective hands to its next step: recurrent state, adaptive KL. None for most."""
    ema_params: Params | None = None
    """Exponential moving average of the parameters, f32; None if the run keeps none."""
    skipped: Array | int = 0
    """Steps whose loss or gradient was not finite and whose update was dropped; int32 scalar."""


def create_state(
    params: Params, tx: optax.GradientTransformation, *, carry: Any = None, ema: bool = False
) -> TrainState:
    """The state at step 0. Trace it under jit with output shardings, and no device ever holds the whole.

    No two leaves share a buffer, so that the step can donate the state.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        carry=carry,
        ema_params=jax.tree.map(lambda p: jnp.array(p, jnp.float32), params) if ema else None,
        skipped=jnp.zeros((), jnp.int32),
    )
