"""Learning rate as a function of the step: linear warm-up, then one of four shapes."""

import functools
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

import jax
import optax

P = ParamSpec("P")
R = TypeVar("R")

ScheduleName = Literal["cosine", "wsd", "linear", "constant"]


def relaxed_promotion(fn: Callable[P, R]) -> Callable[P, R]:
    """optax mixes dtypes (a float to an int step), so it runs under standard promotion; jaxlm's own code is strict."""

    @functools.wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.numpy_dtype_promotion("standard"):
            return fn(*args, **kwargs)

    return wrapped


def make_schedule(
    name: ScheduleName,
    *,
    peak_lr: float,
    num_steps: int,
    warmup_steps: int = 0,
    final_lr_ratio: float = 0.0,
    decay_fraction: float = 0.2,
) -> optax.Schedule:
    """Warm-up from 0 to ``peak_lr`` over ``warmup_steps``, then to ``final_lr_ratio * peak_lr`` at ``num_steps``.

    ``cosine`` (Loshchilov & Hutter 2017) and ``linear`` fall all the way; ``wsd`` (warm-up, stable, decay: Hu et al.
    2024, MiniCPM) holds the peak and falls linearly over the last ``decay_fraction`` of all steps; ``constant`` holds.
    Step s (from 0) of the warm-up uses ``peak_lr * (s + 1) / warmup_steps``, so that no step has a rate of 0.
    """
    rest = max(num_steps - warmup_steps, 1)
    final_lr = peak_lr * final_lr_ratio
    decay_steps = min(max(round(num_steps * decay_fraction), 1), rest)
    shapes = {
        "cosine": lambda: optax.cosine_decay_schedule(peak_lr, rest, alpha=final_lr_ratio),
        "linear": lambda: optax.linear_schedule(peak_lr, final_lr, rest),
        "wsd": lambda: optax.linear_schedule(peak_lr, final_lr, decay_steps, transition_begin=rest - decay_steps),
        "constant": lambda: optax.constant_schedule(peak_lr),
    }
    shape = shapes[name]()
    if not warmup_steps:
        return relaxed_promotion(shape)
    warmup = optax.linear_schedule(peak_lr / warmup_steps, peak_lr, max(warmup_steps - 1, 1))
    return relaxed_promotion(optax.join_schedules([warmup, shape], [warmup_steps]))
