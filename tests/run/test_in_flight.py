"""The host is a step or two ahead of the device, and no more."""

import time

import jax
import jax.numpy as jnp
import pytest

from jaxlm.run.in_flight import MOST, InFlight


@pytest.fixture(scope="module")
def steps_of():
    """A step that takes so many seconds on this machine, and somewhat longer on a busy one."""

    @jax.jit
    def work(x, rounds):
        return jax.lax.fori_loop(0, rounds, lambda _, y: jnp.tanh(y @ y), x)

    x, rounds = jnp.eye(64), 2000
    work(x, 1).block_until_ready()
    start = time.perf_counter()
    work(x, rounds).block_until_ready()
    per_second = rounds / (time.perf_counter() - start)
    return lambda seconds: lambda x: work(x, max(int(seconds * per_second), 1))


def behind(step, count, *, looks_at=None):
    """How many steps the device had not done when the host had handed over each; after one of them it waits for all."""
    in_flight, x, results, found = InFlight(), jnp.eye(64), [], []
    for i in range(count):
        x = step(x)
        results.append(x)
        in_flight.add(x)
        found.append(sum(not one.is_ready() for one in results))
        if i == looks_at:
            x.block_until_ready()
    x.block_until_ready()
    return found


@pytest.mark.parametrize("looks_at", [None, 1])
def test_steps_are_not_run_away_from(steps_of, looks_at):
    found = behind(steps_of(0.3), 6, looks_at=looks_at)
    assert 1 <= found[-1] <= MOST, "one is handed over while another is at work"
    assert max(found) <= MOST
