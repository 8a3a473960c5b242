"""Kernels for GPUs, in Pallas's interpreter, against plain mathematics."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxlm.core.errors import UserError
from jaxlm.nn.kernels import choose_kernels
from jaxlm.nn.linear import Linear, apply_together, of_one_row
from jaxlm.nn.mlp import ACTIVATIONS
from jaxlm.nn.norms import layer_normalize, rms_normalize
from jaxlm.nn.triton_gates import elementwise, erf, gelu_by_erf
from jaxlm.nn.triton_norms import NormKernel, norm_beside


def distance(a, b):
    """Norm of the difference over the norm, the greatest of all leaves."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.linalg.norm((x - y).ravel()) / jnp.linalg.norm(y.ravel())) for x, y in leaves)


def normals(*shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize("shape", [(3, 37, 48), (70, 768), (5, 2048)])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("offset", "has_bias"), [(False, True), (True, False)])
def test_norm_and_the_stream_beside_it(shape, centred, offset, has_bias):
    x, dy, along, gain, bias = normals(shape, shape, shape, shape[-1:], shape[-1:])
    x, gain = x + 0.3, 0.1 * gain + (0.0 if offset else 1.0)
    kernel = NormKernel(centred, 1e-5, offset, jnp.dtype("float32"), interpret=True)
    normalize = layer_normalize if centred else rms_normalize

    def ours(x, gain, bias):
        out: Any = norm_beside(kernel, x, gain, bias)
        y, passed = out
        return jnp.sum(y * dy) + jnp.sum(jnp.sin(passed) * along)

    def plain(x, gain, bias):
        y = normalize(x, 1e-5) * (1.0 + gain if offset else gain)
        return jnp.sum((y if bias is None else y + bias) * dy) + jnp.sum(jnp.sin(x) * along)

    inputs = (x, gain, bias if has_bias else None)
    arguments = (0, 1, 2) if has_bias else (0, 1)
    assert abs(ours(*inputs) - plain(*inputs)) < 1e-4 * abs(plain(*inputs))
    assert distance(jax.grad(ours, arguments)(*inputs), jax.grad(plain, arguments)(*inputs)) < 2e-6


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


def test_error_function():
    x = jnp.linspace(-6, 6, 10001)
    assert float(jnp.max(jnp.abs(erf(x) - jax.lax.erf(x)))) < 1e-6
    assert float(jnp.max(jnp.abs(gelu_by_erf(x) - ACTIVATIONS["gelu_exact"](x)))) < 2e-6
    slopes = jax.vmap(jax.grad(erf))(x), jax.vmap(jax.grad(jax.lax.erf))(x)
    assert distance(*slopes) < 1e-6


def make_linear(name, features):
    f32 = jnp.dtype("float32")
    return Linear(features, 0.02, False, f32, f32, name=name)


def test_products_apart_together_and_with_their_gradient_written():
    import flax.linen as nn

    class Two(nn.Module):
        join: bool
        write_gradient: bool

        @nn.compact
        def __call__(self, x):
            linears = [make_linear("a", 5), make_linear("b", 7)]
            return apply_together(linears, x, join=self.join, write_gradient=self.write_gradient)

    (x,) = normals((4, 3, 16))
    params = Two(True, False).init(jax.random.key(0), x)

    def loss(params, module):
        a, b = module.apply(params, x)
        return jnp.sum(jnp.sin(a)) + jnp.sum(jnp.cos(b))

    results = [jax.value_and_grad(loss)(params, Two(*form)) for form in ((True, False), (True, True), (False, False))]
    for value, grads in results[1:]:
        assert abs(value - results[0][0]) < 1e-5
        assert distance(grads, results[0][1]) < 1e-6


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
