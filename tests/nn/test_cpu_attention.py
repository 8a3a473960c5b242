# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Our attention for CPUs against the equations in float64; a row does not depend on what is beside."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.core.masks import attention_mask
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.nn import cpu_attention
from jaxlm.nn.attention import attend, choose_implementation
from jaxlm.nn.cpu_attention import stretches
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from tests.drawn import drawn_params
from tests.nn.test_attention import loop_attention, make_qkv, packed


@pytest.fixture(scope="module", autouse=True)
def kernel():
    """Builds it, once a session."""
    if reason := kernel_missing("attention"):
        pytest.skip(f"the kernel cannot be had: {reason}")


def scored(q, k, v, weights, *, segments=None, positions=None, **options):
    """The output of what is no padding, and the gradients of its sum by weights."""
    real = 1.0 if segments is None else jnp.asarray(segments != 0, jnp.float32)[..., None, None]
    seen = {"q_segment_ids": segments, "k_segment_ids": segments, "q_positions": positions, "k_positions": positions}

    def loss(q, k, v):
        out = attend(q, k, v, implementation="cpu", **seen, **options) * real
        return jnp.sum(out * weights), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return out, *grads


def reference(q, k, v, weights, *, segments=None, positions=None, causal=True, window=None, scale=None):
    """The same by the equations, in float64."""
    q, k, v, weights = (np.asarray(x, np.float64) for x in (q, k, v, weights))
    b, t, n, h = q.shape
    scale, group = h**-0.5 if scale is None else scale, n // k.shape[2]
    segments = np.ones((b, t), np.int32) if segments is None else segments
    positions = np.broadcast_to(np.arange(t, dtype=np.int32), (b, t)) if positions is None else positions
    arrays = map(jnp.asarray, (positions, positions, segments, segments))
    seen_bnts = np.asarray(attention_mask(*arrays, causal=causal, window=window))[:, None]
    k_bsnh, v_bsnh = (np.repeat(x, group, axis=2) for x in (k, v))
    scores = np.where(seen_bnts, np.einsum("btnh,bsnh->bnts", q, k_bsnh) * scale, -np.inf)
    powers = np.exp(scores - np.maximum(scores.max(axis=-1, keepdims=True), -1e300))
    p = powers / np.maximum(powers.sum(axis=-1, keepdims=True), 1e-300)  # 0 where nothing is seen
    dp = np.einsum("btnh,bsnh->bnts", weights, v_bsnh)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) * scale
    dk, dv = np.einsum("bnts,btnh->bsnh", ds, q), np.einsum("bnts,btnh->bsnh", p, weights)
    shared = [x.reshape(b, t, -1, group, h).sum(axis=3) for x in (dk, dv)]
    return np.einsum("bnts,bsnh->btnh", p, v_bsnh), np.einsum("bnts,bsnh->btnh", ds, k_bsnh), *shared


def assert_near(found, expected, tolerance=3e-6):
    """Largest difference over the largest value, or over 1."""
    for x, y in zip(found, expected, strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.abs(x - y).max() <= tolerance * max(np.abs(y).max(), 1.0)


@pytest.mark.parametrize("width", [1, 8, 16, 20, 48, 64, 80, 128])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)], ids=["mha", "gqa", "mqa"])
def test_against_the_equations_over_packed_rows(width, heads, rng) -> None:
    b, t = 2, 70
    q, k, v = make_qkv(rng, b, t, *heads, width)
    weights = jnp.asarray(rng.normal(size=q.shape), jnp.float32)
    segments, positions = packed(b, t)
    args, options = (q, k, v, weights), {"segments": segments, "positions": positions, "scale": 0.1}
    assert_near(scored(*args, **options), reference(*args, **options))


@pytest.mark.parametrize("t", [1, 2, 24, 25, 33, 64, 257])
@pytest.mark.parametrize("options", [{}, {"window": 5}, {"causal": False}, {"causal": False, "window": 5}], ids=str)
def test_lengths_and_windows(t, options, rng) -> None:
    q, k, v = make_qkv(rng, 1, t, 2, 2, 16)
    weights = jnp.asarray(rng.normal(size=q.shape), jnp.float32)
    assert_near(scored(q, k, v, weights, **options), reference(q, k, v, weights, **options))


def test_against_a_loop_in_float64(rng) -> None:
    q, k, v = make_qkv(rng, 2, 40, 4, 2, 24)
    segments, _ = packed(2, 40)
    found = attend(q, k, v, q_segment_ids=segments, window=7, scale=0.3, implementation="cpu")
    expected = loop_attention(q, k, v, window=7, softcap=None, scale=0.3, segments=segments)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-6)
    assert (np.asarray(found)[segments == 0] == 0).all()


def test_stretches_are_the_mask(rng) -> None:
    segments, positions = packed(3, 30)
    for causal, window in ((True, None), (True, 4), (False, None), (False, 4)):
        seen = stretches((3, 30), jnp.asarray(segments), causal=causal, window=window)
        key = np.arange(30)
        within = (key >= np.asarray(seen.first_bt)[..., None]) & (key < np.asarray(seen.end_bt)[..., None])
        args = (jnp.asarray(positions), jnp.asarray(positions), jnp.asarray(segments), jnp.asarray(segments))
        assert (within == np.asarray(attention_mask(*args, causal=causal, window=window))).all()


def test_a_row_is_the_same_whatever_stands_beside_it(rng) -> None:
    q, k, v = make_qkv(rng, 5, 90, 4, 2, 16)
    weights = jnp.asarray(rng.normal(size=q.shape), jnp.float32)
    together = scored(q, k, v, weights)
    for row in range(5):
        alone = scored(*(x[row : row + 1] for x in (q, k, v, weights)))
        for x, y in zip(together, alone, strict=True):
            assert (np.asarray(x)[row] == np.asarray(y)[0]).all()


def test_over_a_mesh_to_the_bit(rng) -> None:
    q, k, v = make_qkv(rng, 4, 40, 4, 2, 16)
    weights = jnp.asarray(rng.normal(size=q.shape), jnp.float32)
    segments, positions = packed(4, 40)
    work = functools.partial(scored, q, k, v, weights, segments=segments, positions=positions)
    alone = work()
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, model=2), jax.devices())):
        for x, y in zip(alone, work(), strict=True):
            assert (np.asarray(x) == np.asarray(y)).all()
    # Key heads that do not divide are repeated, rows that do not divide lie whole: sums over heads in another order.
    for mesh in (MeshConfig(data=1, model=8), MeshConfig(data=8)):
        with jax.set_mesh(make_mesh(mesh, jax.devices())):
            assert_near(work(), alone)


def test_what_is_no_number_stays_none(rng) -> None:
    q, k, v = make_qkv(rng, 1, 30, 1, 1, 16)
    out = np.asarray(attend(q.at[0, 20, 0, 3].set(jnp.nan), k, v, implementation="cpu"))
    assert np.isnan(out[0, 20]).all()
    assert np.isfinite(np.delete(out, 20, axis=1)).all()


def test_far_scores(rng) -> None:
    q, k, v = (200 * x for x in make_qkv(rng, 1, 60, 2, 2, 16))
    found = scored(q, k, v, jnp.ones(q.shape))
    assert all(np.isfinite(x).all() for x in found)
    assert_near(found[:1], reference(q, k, v, jnp.ones(q.shape))[:1], 1e-5)


def test_narrow_values(rng) -> None:
    q, k, v = make_qkv(rng, 2, 40, 4, 2, 24)
    found = attend(q, k, v[..., :16], implementation="cpu")
    assert_near([found], [reference(q, k, v, q)[0][..., :16]])


def test_in_a_decoder(rng) -> None:
    base = DecoderConfig(vocab_size=31, num_layers=2, model_dim=32, num_heads=2, max_seq_len=50)
    tokens = jnp.asarray(rng.integers(0, 31, (3, 50)), jnp.int32)
    models = [make_decoder(dataclasses.replace(base, attention=name)) for name in ("cpu", "xla")]
    params = drawn_params(models[0])

    def work(model):
        def loss(params):
            return jnp.sum(jax.nn.log_softmax(model.logits(params, model.hidden(params, tokens).hidden_btd))[..., 3])

        return jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params))

    assert_near(work(models[0]), work(models[1]), 2e-5)


def test_what_auto_means() -> None:
    choose = functools.partial(choose_implementation, head_dim=16)
    f32, bf16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
    assert choose("auto", "cpu", dtype=f32, softcap=None, kernel_missing=lambda name: None) == "cpu"
    assert choose("auto", "cpu", dtype=f32, softcap=None) == "xla"
    assert choose("auto", "cpu", dtype=f32, softcap=5.0, kernel_missing=lambda name: None) == "xla"
    assert choose("auto", "cpu", dtype=bf16, softcap=None, kernel_missing=lambda name: None) == "xla"
    with pytest.raises(UserError, match="cannot be had here, no compiler: use auto or xla"):
        choose("cpu", "cpu", dtype=f32, softcap=None, kernel_missing=lambda name: "no compiler")
    with pytest.raises(UserError, match="this is gpu"):
        choose("cpu", "gpu", dtype=f32, softcap=None, kernel_missing=lambda name: None)


def test_shapes_that_disagree_are_refused_by_the_kernel():
    def call(k_width=8, v_width=8, key_heads=2, bounds=6):
        q, k, v = (jnp.ones((2, 6, *rest)) for rest in ((4, 8), (key_heads, k_width), (key_heads, v_width)))
        seen = stretches((2, bounds), None, causal=True, window=None)
        return jax.block_until_ready(cpu_attention._call(1.0, q, k, v, seen))

    call()
    for wrong in ({"k_width": 4, "v_width": 4}, {"v_width": 16}, {"key_heads": 3}, {"bounds": 5}):
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"attention: q \[b, t, n, h\]"):
            call(**wrong)
