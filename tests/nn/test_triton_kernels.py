"""Kernels for GPUs, in Pallas's interpreter, against plain mathematics."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxlm.core.errors import UserError
from jaxlm.nn import triton_norms
from jaxlm.nn.kernels import choose_kernels
from jaxlm.nn.linear import Linear, apply_together, of_one_row
from jaxlm.nn.mlp import ACTIVATIONS
from jaxlm.nn.norms import layer_normalize, rms_normalize
from jaxlm.nn.triton_gates import elementwise, gelu_by_erf
from jaxlm.nn.triton_norms import NormKernel, norm_beside


def distance(a, b):
    """Norm of the difference over the norm, the greatest of all leaves."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.linalg.norm((x - y).ravel()) / jnp.linalg.norm(y.ravel())) for x, y in leaves)


def normals(*shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize(
    ("shape", "centred", "offset", "has_bias"),
    [
        ((3, 3, 48), True, False, True),
        ((9, 768), False, True, False),
        ((9, 768), True, False, False),
        ((5, 2048), False, False, True),
    ],
)
def test_norm_and_the_stream_beside_it(monkeypatch, shape, centred, offset, has_bias):
    """With a bias the stream is a sum, too. The backward pass's programs have several tiles each."""
    monkeypatch.setattr(triton_norms, "_PROGRAMS", 2)
    x, dy, along, delta, gain, bias = normals(shape, shape, shape, shape, shape[-1:], shape[-1:])
    x, gain = x + 0.3, 0.1 * gain + (0.0 if offset else 1.0)
    kernel = NormKernel(centred, 1e-5, offset, jnp.dtype("float32"), interpret=True)
    normalize = layer_normalize if centred else rms_normalize

    def ours(x, gain, bias, delta):
        out: Any = norm_beside(kernel, x, gain, bias, delta)
        y, passed = out
        return jnp.sum(y * dy) + jnp.sum(jnp.sin(passed) * along)

    def plain(x, gain, bias, delta):
        x = x if delta is None else x + delta
        y = normalize(x, 1e-5) * (1.0 + gain if offset else gain)
        return jnp.sum((y if bias is None else y + bias) * dy) + jnp.sum(jnp.sin(x) * along)

    inputs = (x, gain, bias, delta) if has_bias else (x, gain, None, None)
    arguments = (0, 1, 2, 3) if has_bias else (0, 1)
    (value, grads), (expected, expected_grads) = (
        jax.jit(jax.value_and_grad(fn, arguments))(*inputs) for fn in (ours, plain)
    )
    assert abs(value - expected) < 1e-4 * abs(expected)
    assert distance(grads, expected_grads) < 2e-6


def test_norm_without_gain_in_bfloat16():
    x, dy = normals((9, 96), (9, 96))
    kernel = NormKernel(False, 1e-6, False, jnp.dtype("bfloat16"), interpret=True)
    out: Any = norm_beside(kernel, x.astype(jnp.bfloat16), None, None)
    y, passed = out
    assert y.dtype == passed.dtype == jnp.bfloat16
    assert distance(y.astype(jnp.float32), rms_normalize(x, 1e-6)) < 1e-2

    def first(x) -> Any:
        out: Any = norm_beside(kernel, x, None, None)
        return out[0]

    grads = [
        jax.grad(lambda x, fn=fn: jnp.sum(fn(x).astype(jnp.float32) * dy))(x)
        for fn in (first, lambda x: rms_normalize(x, 1e-6))
    ]
    assert distance(*grads) < 1e-2


def swiglu(gate, up):
    return jax.nn.silu(gate) * up


@pytest.mark.parametrize("fn", [swiglu, gelu_by_erf, *(ACTIVATIONS[kind] for kind in ("geglu", "relu2"))])
def test_activations(fn):
    inputs = normals((50, 131), (50, 131))[: 2 if fn is swiglu else 1]
    (weights,) = normals((50, 131))
    ours = functools.partial(elementwise, fn, True)
    grads = [jax.grad(lambda *x, f=f: jnp.sum(f(*x) * weights), tuple(range(len(inputs))))(*inputs) for f in (ours, fn)]
    assert distance(ours(*inputs), fn(*inputs)) < 1e-6
    assert distance(*grads) < 1e-6


def test_exact_gelu():
    x = jnp.concatenate([jnp.linspace(-12, 12, 20001), jnp.asarray([-1e4, 0.0, 1e4])])
    plain = ACTIVATIONS["gelu_exact"]
    assert float(jnp.max(jnp.abs(gelu_by_erf(x) - plain(x)))) < 1e-6
    slopes = [jax.vmap(jax.grad(fn))(x) for fn in (gelu_by_erf, plain)]
    assert float(jnp.max(jnp.abs(slopes[0] - slopes[1]))) < 1e-6


def make_linear(name, features):
    f32 = jnp.dtype("float32")
    return Linear(features, 0.02, False, f32, f32, name=name)


def test_products_apart_together_and_joined_backward():
    import flax.linen as nn

    class Two(nn.Module):
        join: Any

        @nn.compact
        def __call__(self, x):
            return apply_together([make_linear("a", 5), make_linear("b", 7)], x, join=self.join)

    (x,) = normals((4, 3, 16))
    params = Two(True).init(jax.random.key(0), x)

    def loss(params, x, module):
        a, b = module.apply(params, x)
        return jnp.sum(jnp.sin(a)) + jnp.sum(jnp.cos(b))

    together, *others = (jax.value_and_grad(loss, (0, 1))(params, x, Two(join)) for join in (True, False, "backward"))
    for value, grads in others:
        assert abs(value - together[0]) < 1e-5
        assert distance(grads, together[1]) < 1e-6


def test_a_product_of_one_row():
    (x,) = normals((1, 1, 16))
    linear = make_linear("a", 5)
    params = linear.init(jax.random.key(0), x)
    out: Any = linear.apply(params, x, method=lambda module, x: of_one_row(module, x))
    assert out.shape == (1, 1, 5)
    assert distance(out, linear.apply(params, x)) < 1e-6


def test_which_kernels_serve_where():
    assert [choose_kernels("auto", platform) for platform in ("cpu", "gpu", "cuda", "tpu")] == [
        "xla",
        "triton",
        "triton",
        "xla",
    ]
    assert choose_kernels("xla", "gpu") == "xla"
    with pytest.raises(UserError, match=r"model\.kernels=triton needs an NVIDIA GPU, this is tpu: use auto or xla"):
        choose_kernels("triton", "tpu")
