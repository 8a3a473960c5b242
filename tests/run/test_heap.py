"""What a training loop frees stays with the process: a real one, its page faults counted."""

import subprocess
import sys

import pytest

LOOP = """
import resource, sys
from jaxlm.run.devices import keep_freed_memory
import jax, jax.numpy as jnp
if sys.argv[1] == "kept" and not keep_freed_memory():
    print("none")
    sys.exit()
@jax.jit
def step(x):
    wide = jnp.concatenate([x, jnp.sin(x), jnp.tanh(x)]).T
    return jnp.sum(jnp.sort(wide) * jnp.sum(wide, axis=1, keepdims=True))
x = jnp.ones((1500, 1500))
for _ in range(3):
    step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


def faults(how):
    """Page faults a step."""
    run = subprocess.run([sys.executable, "-c", LOOP, how], capture_output=True, text=True, timeout=120, check=True)
    if run.stdout.strip() == "none":
        pytest.skip("no glibc, or no CPU backend")
    return float(run.stdout)


@pytest.mark.slow
def test_a_step_takes_few_new_pages():
    assert faults("kept") < 0.2 * faults("plain")
