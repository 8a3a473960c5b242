"""Random keys as a function of (seed, purpose, step, microbatch). Nothing is carried, so resume is exact."""

import enum

import jax

from jaxlm.core.types import Array


class Purpose(enum.IntEnum):
    """What randomness is for. The numbers are part of every run's result: add at the end, never renumber."""

    INIT = 0
    DROPOUT = 1
    SHUFFLE = 2
    SAMPLE = 3
    MASK = 4
    ROLLOUT = 5


def purpose_key(seed: int, purpose: Purpose) -> Array:
    """The key of one purpose in a run; steps fold their number into it, and microbatches theirs into that."""
    return jax.random.fold_in(jax.random.key(seed), int(purpose))


def fold_key(seed: int, purpose: Purpose, step: int | Array = 0, microbatch: int | Array = 0) -> Array:
    """The key of one use of randomness, a typed scalar key. ``step`` and ``microbatch`` may be traced."""
    return jax.random.fold_in(jax.random.fold_in(purpose_key(seed, purpose), step), microbatch)
