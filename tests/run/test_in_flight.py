"""The host is a step or two ahead of long steps, and further ahead of short ones."""

import time

import jax
import jax.numpy as jnp
import pytest

from jaxlm.run.in_flight import FEWEST, MOST, InFlight


@pytest.fixture(scope="module")
def steps_of():
    """A step that takes so many seconds on this machine, and somewhat longer on a busy one."""

    @jax.jit
    def work(x, rounds):
        return jax.lax.fori_loop(0, rounds, lambda _, y: jnp.tanh(y @ y), x)

    x, rounds = jnp.eye(256), 200
    work(x, 1).block_until_ready()
    start = time.perf_counter()
    work(x, rounds).block_until_ready()
    per_second = rounds / (time.perf_counter() - start)
    return lambda seconds: lambda x: work(x, max(int(seconds * per_second), 1))


def behind(step, count):
    """How many steps the device had not done when the host had handed over each."""
    in_flight, x, results, found = InFlight(), jnp.eye(256), [], []
    for _ in range(count):
        x = step(x)
        results.append(x)
        in_flight.add(x)
        found.append(sum(not one.is_ready() for one in results))
    x.block_until_ready()
    return found


def test_long_steps_are_not_run_away_from(steps_of):
    found = behind(steps_of(0.6), 6)
    assert max(found) == FEWEST, "one is handed over while another is at work, and no more"


def test_short_steps_may_be_a_second_ahead(steps_of):
    assert FEWEST < max(behind(steps_of(0.02), 60)) <= MOST
