"""Laws of the recurrent layers' kernel for CPUs: it is the scan, whatever the shapes, the rows beside and the mesh."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxlm.core.errors import UserError
from jaxlm.models.recurrent import RecurrentConfig, make_recurrent
from jaxlm.nn.recurrent import CELLS, choose_unroll, gate_width, init_state, unroll
from jaxlm.nn.recurrent_kernel import input_product, weight_gradient
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.sharding.mesh import MeshConfig, make_mesh


@pytest.fixture(scope="module", autouse=True)
def kernel():
    """Builds it, once a session."""
    if reason := kernel_missing("recurrent"):
        pytest.skip(f"the kernel cannot be had: {reason}")


def make(cell, rng, t, b, d):
    """Arguments of a layer by name, and what its outputs are summed with."""
    g = gate_width(cell) * d
    shapes = {"x": (t, b, g), "u": (d, g), "bias": (g,), "x_bias": (g,)}
    given = {name: jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32) for name, shape in shapes.items()}
    given |= {name: jnp.asarray(rng.normal(size=(b, d)), jnp.float32) for name in init_state(cell, b, d)}
    return given, jnp.asarray(rng.normal(size=(t, b, d)), jnp.float32)


def work(cell, given, out, reset=None, *, implementation):
    """Outputs, last state and gradients of everything."""

    def loss(given):
        state = {name: given[name] for name in init_state(cell, 1, 1)}
        options = {"x_bias_g": given["x_bias"], "implementation": implementation}
        h, last = unroll(cell, given["x"], given["u"], given["bias"], state, reset, **options)
        return jnp.sum(h * out) + sum(jnp.sum(jnp.sin(leaf)) for leaf in last.values()), (h, last)

    (_, outputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(given)
    return outputs, grads


def assert_near(ours, theirs, tolerance=1e-5):
    """Norm of the difference over norm, leaf by leaf."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.linalg.norm(np.asarray(a) - b) <= tolerance * np.linalg.norm(b) + 1e-7


# Widths and rows that fill no vector, no tile and no block of the product; one row; more rows than a tile.
@pytest.mark.parametrize(("shape", "resets"), [((5, 3, 5), True), ((4, 1, 130), False), ((6, 33, 80), True)])
@pytest.mark.parametrize("cell", CELLS)
def test_the_kernel_is_the_scan(cell, shape, resets, rng):
    given, out = make(cell, rng, *shape)
    reset = jnp.asarray(rng.random(shape[:2]) < 0.3) if resets else None
    ours, theirs = (work(cell, given, out, reset, implementation=name) for name in ("kernel", "scan"))
    assert_near(ours, theirs)


@pytest.mark.parametrize("cell", CELLS)
def test_a_row_does_not_see_the_rows_beside_it(cell, rng):
    """To the bit: so neither the batch nor the number of threads alters a result."""
    given, out = make(cell, rng, 5, 33, 40)
    (h, last), grads = work(cell, given, out, implementation="kernel")
    for rows in (slice(0, 1), slice(3, 8), slice(20, 33)):
        part = {name: value[:, rows] if name == "x" else value for name, value in given.items()}
        part |= {name: given[name][rows] for name in last}
        (h_part, last_part), grads_part = work(cell, part, out[:, rows], implementation="kernel")
        np.testing.assert_array_equal(h_part, h[:, rows])
        np.testing.assert_array_equal(grads_part["x"], grads["x"][:, rows])
        for name in last:
            np.testing.assert_array_equal(last_part[name], last[name][rows])
            np.testing.assert_array_equal(grads_part[name], grads[name][rows])


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_in_two_halves_is_the_whole(cell, rng):
    given, _ = make(cell, rng, 6, 3, 20)

    def run(x, state):
        return unroll(cell, x, given["u"], given["bias"], state, implementation="kernel")

    state = {name: given[name] for name in init_state(cell, 1, 1)}
    whole, last = run(given["x"], state)
    first, middle = run(given["x"][:3], state)
    second, end = run(given["x"][3:], middle)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    jax.tree.map(np.testing.assert_array_equal, end, last)


@pytest.mark.parametrize("cell", CELLS)
def test_large_gates_saturate_and_what_is_no_number_stays_none(cell):
    x = jnp.asarray([-1e4, -90.0, -20.0, -1e-4, 0.0, 1e-4, 20.0, 90.0, 1e4, jnp.inf, -jnp.inf], jnp.float32)
    given = {"x": jnp.tile(x, (2, 1, gate_width(cell))), "u": jnp.zeros((x.size, x.size * gate_width(cell)))}
    state = init_state(cell, 1, x.size)
    ours, theirs = (
        unroll(cell, given["x"], given["u"], None, state, implementation=name)[0] for name in ("kernel", "scan")
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    broken = unroll(cell, given["x"].at[0, 0, 3].set(jnp.nan), given["u"], None, state, implementation="kernel")[0]
    assert np.isnan(broken[0, 0, 3])


@pytest.mark.parametrize("cell", CELLS)
def test_a_mesh_splits_the_rows(cell, rng):
    given, out = make(cell, rng, 4, 8, 24)
    reset = jnp.asarray(rng.random((4, 8)) < 0.3)
    alone = work(cell, given, out, reset, implementation="kernel")
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, model=2), jax.devices())
    with jax.set_mesh(mesh):
        specs = {"x": P(None, ("data", "fsdp")), "u": P("fsdp", "model"), "h": P(("data", "fsdp"))}
        placed = {
            name: jax.device_put(value, jax.NamedSharding(mesh, specs.get(name, P()))) for name, value in given.items()
        }
        split = work(cell, placed, out, reset, implementation="kernel")
        state = {name: placed[name] for name in alone[0][1]}
        run = jax.jit(lambda x, u, state: unroll(cell, x, u, None, state, implementation="kernel"))
        text = run.lower(placed["x"], placed["u"], state).compile().as_text() or ""
    assert_near(split, alone)
    calls = [line for line in text.splitlines() if f'custom_call_target="jaxlm_{cell}_forward"' in line]
    assert calls
    assert all("f32[4,2,24]" in line for line in calls)  # 8 rows over 4 devices


@pytest.mark.parametrize("cell", CELLS)
def test_the_gates_are_not_copied(cell, rng):
    t, b, d = 4, 8, 24
    given, out = make(cell, rng, t, b, d)
    g = gate_width(cell) * d

    def loss(x_tbd, w, u, x_bias):
        state = init_state(cell, b, d)
        y, _ = unroll(cell, input_product(x_tbd, w), u, None, state, x_bias_g=x_bias, implementation="kernel")
        return jnp.sum(y * out)

    args = (out, given["u"], given["u"], given["x_bias"])
    text = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).lower(*args).compile().as_text() or ""
    assert f"jaxlm_{cell}_backward" in text
    assert not re.findall(rf"f32\[(?:{t},{b}|{t * b}),{g}\]\S* copy\(", text)


def test_a_model_of_either_implementation_is_the_same(rng):
    config = RecurrentConfig(vocab_size=31, num_layers=2, model_dim=12, hidden_dim=20, init_std=0.5, weight_dropout=0.1)
    scan, kernel = (make_recurrent(dataclasses.replace(config, implementation=name)) for name in ("scan", "kernel"))
    params = scan.init(jax.random.key(0))
    tokens = rng.integers(0, 31, (3, 9)).astype(np.int32)
    positions = np.tile(np.arange(9, dtype=np.int32) % 5, (3, 1))

    def loss(model):
        def scored(params):
            hidden = model.hidden(params, tokens, positions=positions, dropout_key=jax.random.key(1)).hidden_btd
            return jnp.mean(model.logits(params, hidden) ** 2)

        return jax.jit(jax.value_and_grad(scored))(params)

    assert_near(loss(kernel), loss(scan))


def test_what_auto_means():
    asked = []

    def missing(reason=None):
        return lambda name: asked.append(reason) or reason

    f32, bf16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
    assert choose_unroll("auto", "cpu", dtype=f32, kernel_missing=missing()) == "kernel"
    assert choose_unroll("auto", "cpu", dtype=f32, kernel_missing=missing("no compiler")) == "scan"
    assert choose_unroll("kernel", "cpu", dtype=f32, kernel_missing=missing()) == "kernel"
    asked.clear()
    assert choose_unroll("scan", "cpu", dtype=f32, kernel_missing=missing()) == "scan"
    assert choose_unroll("auto", "tpu", dtype=f32, kernel_missing=missing()) == "unrolled"
    assert choose_unroll("auto", "gpu", dtype=bf16, kernel_missing=missing()) == "unrolled"
    assert choose_unroll("auto", "cpu", dtype=bf16, kernel_missing=missing()) == "scan"
    assert not asked  # nothing is built where it would not serve
    with pytest.raises(UserError, match=r"implementation=kernel cannot be had here, no compiler: use auto or scan"):
        choose_unroll("kernel", "cpu", dtype=f32, kernel_missing=missing("no compiler"))
    for platform, dtype in (("gpu", f32), ("cpu", bf16)):
        with pytest.raises(UserError, match=r"model.implementation=kernel is for CPUs"):
            choose_unroll("kernel", platform, dtype=dtype, kernel_missing=missing())
    with pytest.raises(ValueError, match=r"model.implementation='x' is unknown"):
        RecurrentConfig(implementation="x")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("t", "b", "d", "g"), [(1, 1, 1, 1), (5, 3, 7, 21), (130, 2, 250, 1000), (9, 33, 64, 132)])
def test_the_weight_gradient_is_the_product_of_all_rows(rng, t, b, d, g):
    x, grad, first = (rng.normal(size=shape).astype(np.float32) for shape in ((t, b, d), (t, b, g), (b, d)))
    keep = rng.random((t, b)) > 0.2
    before = np.concatenate([first[None], x[:-1]]) * keep[..., None]
    for got, left in ((weight_gradient(x, grad), x), (weight_gradient(x, grad, first, keep), before)):
        expected = np.einsum("tbd,tbg->dg", left.astype(np.float64), grad)
        assert np.linalg.norm(got - expected) <= 1e-6 * np.linalg.norm(expected) + 1e-30
