"""Laws of the recurrent cells: the plain loop and its gradient by autodiff, resets, halves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.nn.recurrent import CELLS, gate_width, init_state, unroll

B, T, D = 3, 7, 5


def sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


def plain(cell, x_tbg, u, bias, state):
    """The published equations, one step after another, every gradient left to autodiff."""
    out = []
    h, c = state["h"], state.get("c")
    for t in range(x_tbg.shape[0]):
        x, hu = x_tbg[t], h @ u + bias
        if cell == "rnn":
            h = jnp.tanh(x + hu)
        elif cell == "lstm":
            i, f, g, o = jnp.split(x + hu, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
            h = sigmoid(o) * jnp.tanh(c)
        else:
            (xr, xz, xn), (hr, hz, hn) = jnp.split(x, 3, axis=-1), jnp.split(hu, 3, axis=-1)
            z = sigmoid(xz + hz)
            h = (1 - z) * jnp.tanh(xn + sigmoid(xr + hr) * hn) + z * h
        out.append(h)
    return jnp.stack(out), {"h": h} | ({"c": c} if cell == "lstm" else {})


def make(cell, rng):
    g = gate_width(cell) * D
    arrays = {"x": (T, B, g), "u": (D, g), "bias": (g,)}
    made = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in arrays.items()}
    state = {name: jnp.asarray(rng.normal(size=(B, D)), jnp.float32) for name in init_state(cell, B, D)}
    return made, state


@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_gradients_are_those_of_the_plain_loop(cell, rng):
    made, state = make(cell, rng)
    weights = jnp.asarray(rng.normal(size=(T, B, D)), jnp.float32)

    def loss(fn, made, state):
        h, last = fn(cell, made["x"], made["u"], made["bias"], state)
        return jnp.sum(weights * h) + sum(jnp.sum(jnp.sin(leaf)) for leaf in last.values()), (h, last)

    ours = jax.jit(jax.value_and_grad(lambda m, s: loss(unroll, m, s), (0, 1), has_aux=True))(made, state)
    theirs = jax.jit(jax.value_and_grad(lambda m, s: loss(plain, m, s), (0, 1), has_aux=True))(made, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), ours, theirs)


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_in_two_halves_is_the_whole(cell, rng):
    made, state = make(cell, rng)
    whole, last = unroll(cell, made["x"], made["u"], made["bias"], state)
    first, middle = unroll(cell, made["x"][:4], made["u"], made["bias"], state)
    second, end = unroll(cell, made["x"][4:], made["u"], made["bias"], middle)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    jax.tree.map(np.testing.assert_array_equal, end, last)


@pytest.mark.parametrize("cell", CELLS)
def test_a_reset_is_a_new_text(cell, rng):
    made, state = make(cell, rng)
    reset = jnp.zeros((T, B), bool).at[3, 1].set(True)
    zeros = init_state(cell, B, D)
    out, _ = unroll(cell, made["x"], made["u"], made["bias"], state, reset)
    alone, _ = unroll(cell, made["x"][3:], made["u"], made["bias"], zeros)
    before, _ = unroll(cell, made["x"], made["u"], made["bias"], state)
    np.testing.assert_allclose(out[3:, 1], alone[:, 1], rtol=0, atol=1e-6)  # another program rounds otherwise
    np.testing.assert_allclose(out[:, 0], before[:, 0], rtol=0, atol=1e-6)

    def tail(x):  # no gradient passes a reset
        return unroll(cell, x, made["u"], made["bias"], state, reset)[0][3:, 1].sum()

    grads = jax.grad(tail)(made["x"])
    assert not np.any(grads[:3, 1])
    assert np.any(grads[3, 1])


# 19 steps: two turns of 8 and a rest of 3.
@pytest.mark.parametrize("cell", CELLS)
def test_steps_written_out_are_the_loop(cell, rng):
    g = gate_width(cell) * D
    x, weights = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((19, B, g), (19, B, D)))
    made, state = make(cell, rng)
    reset = jnp.zeros((19, B), bool).at[10, 1].set(True)

    def work(implementation):
        def loss(x, u, bias, state):
            h, last = unroll(cell, x, u, bias, state, reset, implementation=implementation)
            return jnp.sum(weights * h) + sum(jnp.sum(jnp.sin(leaf)) for leaf in last.values()), (h, last)

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))(x, made["u"], made["bias"], state)

    ours, theirs = work("unrolled"), work("scan")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)
