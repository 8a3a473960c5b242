"""8-bit products: near the exact ones, gradients straight through, the same on a mesh, refused without qwix."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.core.errors import UserError
from jaxlm.models.decoder import DecoderConfig, MoeConfig, make_decoder
from jaxlm.models.families import check_installed, for_inference
from jaxlm.nn.quantized import quantized_matmul
from jaxlm.sharding.mesh import MeshConfig, make_mesh

CONFIG = DecoderConfig(vocab_size=61, num_layers=2, model_dim=32, num_heads=4, init_std=0.2, quantization="int8")


def test_without_qwix_one_line_names_the_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(UserError, match=r"pip install 'jaxlm\[quant\]', or set none"):
        check_installed(CONFIG)
    check_installed(dataclasses.replace(CONFIG, quantization="none"))
    assert dataclasses.asdict(for_inference(CONFIG, "cpu"))["quantization"] == "none"


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"quantization='int4' is unknown: choose none, int8"):
        DecoderConfig(quantization="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not reach the experts"):
        DecoderConfig(quantization="int8", moe=MoeConfig())


def _products(fn, x, kernel, grad):
    y, pull = jax.vjp(fn, x, kernel)
    return y, *pull(grad)


@pytest.mark.parametrize(
    ("quantization", "forward", "backward"),
    [("int8", 0.015, 0.015), ("int8_forward", 0.015, 0), ("fp8", 0.05, 0.08), ("fp8_forward", 0.05, 0)],
)
def test_products_are_near_the_exact_ones(rng, quantization, forward, backward):
    pytest.importorskip("qwix", reason="the extra quant is not installed")
    x, kernel, grad = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 32, 64), (64, 48), (2, 32, 48))
    )
    exact = _products(lambda x, kernel: x @ kernel, x, kernel, grad)
    rough = _products(lambda x, kernel: quantized_matmul(x, kernel, quantization), x, kernel, grad)
    for got, wanted, bound in zip(rough, exact, (forward, backward, backward), strict=True):
        assert got.dtype == wanted.dtype
        error = float(jnp.linalg.norm((got - wanted).ravel()) / jnp.linalg.norm(wanted.ravel()))
        assert error <= bound + 1e-6
        assert error > 1e-4 or not bound


def test_the_compiled_step_multiplies_in_int8_forward_and_backward():
    pytest.importorskip("qwix", reason="the extra quant is not installed")
    counts = {}
    for quantization in ("none", "int8_forward", "int8"):
        model = make_decoder(dataclasses.replace(CONFIG, quantization=quantization))
        params = jax.eval_shape(model.init, jax.random.key(0))
        tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
        loss = jax.grad(lambda params, tokens, model=model: jnp.sum(model.apply_fn(params, tokens)))
        text = jax.jit(loss).lower(params, tokens).as_text()
        counts[quantization] = sum(
            "dot_general" in line and "xi8>" in line and "xi32>" in line for line in text.splitlines()
        )
    # A scanned layer: q, k, v, o, up, gate, down.
    assert counts == {"none": 0, "int8_forward": 7, "int8": 21}


def test_a_mesh_changes_less_than_the_rounding_does(rng):
    """qwix scales the largest value to 127.5, so that rounding noise decides between -127 and -128 for it."""
    pytest.importorskip("qwix", reason="the extra quant is not installed")
    x, kernel, grad = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 8, 32), (32, 88), (4, 8, 88)))
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, model=2), jax.devices()[:4])
    specs = (P("fsdp"), P("fsdp", "model"), P("fsdp", None, "model"))

    def products(x, kernel, grad):
        return _products(lambda x, kernel: quantized_matmul(x, kernel, "int8"), x, kernel, grad)

    alone = jax.jit(products)(x, kernel, grad)
    exact = _products(lambda x, kernel: x @ kernel, x, kernel, grad)
    with jax.set_mesh(mesh):
        placed = (jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip((x, kernel, grad), specs, strict=True))
        spread = jax.jit(products)(*placed)
    for one, many, true in zip(alone, spread, exact, strict=True):
        assert float(jnp.linalg.norm((one - many).ravel())) < 0.2 * float(jnp.linalg.norm((one - true).ravel()))
