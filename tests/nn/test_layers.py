# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Norms, MLPs, linear maps and dropout against their formulas in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.nn.dropout import dropout
from jaxlm.nn.linear import Linear, apply_together, matmul
from jaxlm.nn.mlp import MLP
from jaxlm.nn.norms import Norm
from jaxlm.sharding.mesh import MeshConfig, make_mesh

F32, BF16 = jnp.dtype("float32"), jnp.dtype("bfloat16")


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
def test_norms(kind, rng: np.random.Generator) -> None:
    x = rng.normal(2.0, 3.0, (2, 5, 8))
    scale, bias = rng.normal(size=8), rng.normal(size=8)
    centred = x - x.mean(-1, keepdims=True) if kind == "layernorm" else x
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * scale + bias
    layer = Norm(kind, 1e-3, True, True, F32, F32)
    params = {"scale": jnp.asarray(scale, F32), "bias": jnp.asarray(bias, F32)}
    np.testing.assert_allclose(layer.apply({"params": params}, jnp.asarray(x, F32)), expected, atol=1e-5)


def test_norm_statistics_are_f32_in_bf16() -> None:
    x = jnp.full((1, 4096), 256.0, BF16)  # squares summed in bf16 would stop growing
    out = Norm("rmsnorm", 1e-6, False, False, BF16, F32).apply({}, x)
    assert out.dtype == BF16
    np.testing.assert_allclose(out.astype(F32), 1.0, atol=1e-2)


@pytest.mark.parametrize("kind", ["swiglu", "geglu", "gelu", "relu2"])
def test_mlps(kind, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3, 8))
    layer = MLP(kind, 12, 0.5, 0.5, False, F32, F32)
    params = layer.init(jax.random.key(0), jnp.asarray(x, F32))["params"]
    assert ("gate" in params) == (kind in ("swiglu", "geglu"))
    w = {name: np.asarray(params[name]["kernel"], np.float64) for name in params}
    act = {
        "swiglu": lambda z: z / (1 + np.exp(-z)),
        "geglu": lambda z: 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
        "gelu": lambda z: 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
        "relu2": lambda z: np.maximum(z, 0) ** 2,
    }[kind]
    inner = act(x @ w["gate"]) * (x @ w["up"]) if "gate" in w else act(x @ w["up"])
    np.testing.assert_allclose(layer.apply({"params": params}, jnp.asarray(x, F32)), inner @ w["down"], atol=1e-5)


def test_linear_and_matmul(rng: np.random.Generator) -> None:
    x, kernel, bias = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 6)), rng.normal(size=6)
    x_, kernel_, bias_ = (jnp.asarray(a, F32) for a in (x, kernel, bias))
    layer = Linear(6, 0.1, True, F32, F32)
    out = layer.apply({"params": {"kernel": kernel_, "bias": bias_}}, x_)
    np.testing.assert_allclose(out, x @ kernel + bias, atol=1e-5)
    np.testing.assert_allclose(matmul(x_, kernel_.T, transpose=True), x @ kernel, atol=1e-5)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices())):
        np.testing.assert_allclose(jax.jit(matmul)(x_, kernel_), x @ kernel, atol=1e-5)
    assert matmul(x_.astype(BF16), kernel_.astype(BF16), out_dtype=F32).dtype == F32


def test_dropout_keeps_the_mean_and_needs_a_key() -> None:
    x = jnp.ones((64, 1024), F32)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x
    out = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
    assert out.mean() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(out, dropout(x, 0.25, jax.random.key(0)))


def test_linears_applied_together_are_each_one_alone(rng: np.random.Generator) -> None:
    class Pair(nn.Module):
        together: bool

        @nn.compact
        def __call__(self, x):
            linears = [Linear(6, 0.5, True, F32, F32, name="a"), Linear(4, 0.5, True, F32, F32, name="b")]
            return apply_together(linears, x) if self.together else [linear(x) for linear in linears]

    x = jnp.asarray(rng.normal(size=(8, 3, 4)), F32)
    params = Pair(False).init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, Pair(True).init(jax.random.key(0), x))
    expected = Pair(False).apply(params, x)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices())):
        on_mesh = jax.jit(Pair(True).apply)(params, x)
    for found in (Pair(True).apply(params, x), on_mesh):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
