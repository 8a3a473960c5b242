# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Attention against a loop over queries in float64; the kernels against the einsum form."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.nn.attention import attend, choose_implementation
from jaxlm.nn.splash import splash_attention
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.sharding.mesh import MeshConfig, make_mesh


def loop_attention(q, k, v, *, window, softcap, scale, segments=None, positions=None) -> np.ndarray:
    """Causal attention one query at a time, float64. A padding query (segment 0) is left at zero."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    b, t, n, _h = q.shape
    positions = np.broadcast_to(np.arange(t), (b, t)) if positions is None else positions
    segments = np.ones((b, t), int) if segments is None else segments
    out = np.zeros(q.shape)
    for row, i, head in itertools.product(range(b), range(t), range(n)):
        kv = head // (n // k.shape[2])
        distance = positions[row, i] - positions[row]
        seen = (distance >= 0) & (segments[row] == segments[row, i]) & (segments[row] != 0)
        if window is not None:
            seen &= distance < window
        if not seen.any():
            continue
        scores = k[row, seen, kv] @ q[row, i, head] * scale
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.exp(scores - scores.max())
        out[row, i, head] = weights / weights.sum() @ v[row, seen, kv]
    return out


def make_qkv(rng: np.random.Generator, b: int, t: int, n: int, k: int, h: int) -> tuple:
    shapes = ((b, t, n, h), (b, t, k, h), (b, t, k, h))
    return tuple(jnp.asarray(2 * rng.normal(size=shape), jnp.float32) for shape in shapes)


def packed(b: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Two segments and some padding in each row, positions restarting."""
    segments, positions = np.zeros((b, t), np.int32), np.zeros((b, t), np.int32)
    for row in range(b):
        first, second = t // 3 + row, t // 2 - row
        segments[row, :first], segments[row, first : first + second] = 1, 2
        positions[row, :first], positions[row, first : first + second] = np.arange(first), np.arange(second)
    return segments, positions


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=["mha", "gqa", "mqa"])
@pytest.mark.parametrize(("window", "softcap", "scale"), [(None, None, None), (3, 2.0, 0.3), (1, None, None)])
def test_xla_against_a_loop(heads, window, softcap, scale, rng: np.random.Generator) -> None:
    q, k, v = make_qkv(rng, 2, 9, *heads, 8)
    expected = loop_attention(q, k, v, window=window, softcap=softcap, scale=8**-0.5 if scale is None else scale)
    out = attend(q, k, v, window=window, softcap=softcap, scale=scale)
    np.testing.assert_allclose(out, expected, atol=2e-6)


def test_packed_rows_against_a_loop(rng: np.random.Generator) -> None:
    q, k, v = make_qkv(rng, 2, 12, 4, 2, 8)
    segments, positions = packed(2, 12)
    expected = loop_attention(q, k, v, window=3, softcap=None, scale=8**-0.5, segments=segments, positions=positions)
    out = attend(
        q, k, v, q_positions=positions, k_positions=positions, q_segment_ids=segments, k_segment_ids=segments, window=3
    )
    real = segments != 0
    np.testing.assert_allclose(np.asarray(out)[real], expected[real], atol=2e-6)
    assert np.isfinite(np.asarray(out)).all()


def test_bfloat16_takes_its_softmax_in_f32(rng: np.random.Generator) -> None:
    q, k, v = make_qkv(rng, 1, 16, 2, 2, 8)
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    out = attend(*half)
    assert out.dtype == jnp.bfloat16
    expected = attend(*(x.astype(jnp.float32) for x in half))
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=0.05)


SPLASH = functools.partial(splash_attention, causal=True, scale=0.25, interpret=True)


@pytest.mark.parametrize(
    ("t", "heads", "window", "softcap", "with_segments"),
    [(128, (4, 4), None, None, False), (100, (4, 2), 20, 5.0, True), (256, (4, 1), None, None, True)],
    ids=["causal", "local-capped-packed-padded", "mqa-packed"],
)
def test_splash_equals_xla(t, heads, window, softcap, with_segments, rng: np.random.Generator) -> None:
    q, k, v = make_qkv(rng, 2, t, *heads, 16)
    segments, positions = (jnp.asarray(x) for x in packed(2, t)) if with_segments else (None, None)
    real = 1.0 if segments is None else (segments != 0)[:, :, None, None].astype(jnp.float32)

    def by_splash(q, k, v):
        return SPLASH(q, k, v, segments, window=window, softcap=softcap) * real

    def by_xla(q, k, v):
        masks = {"q_positions": positions, "k_positions": positions, "q_segment_ids": segments}
        return attend(q, k, v, **masks, k_segment_ids=segments, window=window, softcap=softcap, scale=0.25) * real

    def outputs(fn):
        loss = lambda *args: (jnp.sum(jnp.sin(fn(*args))), fn(*args))  # noqa: E731
        (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)
        return out, *grads

    for a, b in zip(outputs(by_splash), outputs(by_xla), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("heads", [(4, 2), (4, 1)], ids=["kv-divides", "kv-fewer-than-the-axis"])
def test_splash_under_a_mesh(heads, rng: np.random.Generator) -> None:
    q, k, v = make_qkv(rng, 4, 128, *heads, 16)
    segments = jnp.asarray(packed(4, 128)[0])
    alone = SPLASH(q, k, v, segments, window=None, softcap=None)
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2), jax.devices())):
        split = jax.jit(functools.partial(SPLASH, window=None, softcap=None))(q, k, v, segments)
    np.testing.assert_allclose(split, alone, atol=1e-5)


def test_what_auto_means() -> None:
    choose = functools.partial(choose_implementation, head_dim=64, softcap=None)
    bf16, f32 = jnp.dtype("bfloat16"), jnp.dtype("float32")
    assert choose("auto", "cpu", dtype=f32) == "xla"
    assert choose("auto", "tpu", dtype=f32) == "splash"
    assert choose("auto", "gpu", dtype=bf16) == "cudnn"
    assert choose("auto", "gpu", dtype=f32) == "xla"
    assert choose_implementation("auto", "gpu", dtype=bf16, head_dim=64, softcap=30.0) == "xla"


@pytest.mark.parametrize(
    ("name", "platform", "kwargs", "message"),
    [
        ("cudnn", "cpu", {}, "needs an NVIDIA GPU, this is cpu: use auto or xla"),
        ("cudnn", "gpu", {"dtype": jnp.dtype("float32")}, "set model.compute_dtype=bfloat16"),
        ("cudnn", "gpu", {"softcap": 5.0}, "attn_softcap=5.0"),
        ("cudnn", "gpu", {"head_dim": 36}, "head width"),
        ("splash", "cpu", {}, "needs a TPU, this is cpu"),
    ],
)
def test_what_cannot_run_is_refused(name, platform, kwargs, message) -> None:
    settings = {"dtype": jnp.dtype("bfloat16"), "head_dim": 64, "softcap": None} | kwargs
    with pytest.raises(UserError, match=message):
        choose_implementation(name, platform, **settings)


def test_cudnn_in_f32_is_refused_where_it_is_called(rng: np.random.Generator) -> None:
    with pytest.raises(UserError, match="compute_dtype=bfloat16"):
        attend(*make_qkv(rng, 1, 8, 2, 2, 8), implementation="cudnn")


@pytest.mark.parametrize("implementation", ["cpu", "splash_interpret"])
@pytest.mark.parametrize("width", [6, 24])
def test_values_may_be_narrower_and_wider_than_queries(implementation, width, rng: np.random.Generator) -> None:
    if implementation == "cpu" and (reason := kernel_missing("attention")):
        pytest.skip(f"the kernel cannot be had: {reason}")
    q, k, _ = make_qkv(rng, 2, 16, 4, 2, 12)
    v = jnp.asarray(rng.normal(size=(2, 16, 2, width)), jnp.float32)
    segments = jnp.asarray(packed(2, 16)[0])
    found, wanted = (
        attend(q, k, v, q_segment_ids=segments, k_segment_ids=segments, implementation=name)
        for name in (implementation, "xla")
    )
    assert found.shape == (2, 16, 4, width)
    seen = np.asarray(segments > 0)
    np.testing.assert_allclose(np.asarray(found)[seen], np.asarray(wanted)[seen], atol=2e-5)


def test_positions_that_all_rows_share_go_with_segments_of_each(rng: np.random.Generator) -> None:
    q, k, v = make_qkv(rng, 2, 12, 2, 2, 8)
    segments = jnp.asarray(np.repeat([[1] * 7 + [0] * 5, [1] * 12], 1, 0), jnp.int32)
    own = jnp.broadcast_to(jnp.arange(12), (2, 12))
    shared, each = (
        attend(q, k, v, q_positions=p, k_positions=p, q_segment_ids=segments, k_segment_ids=segments)
        for p in (None, own)
    )
    np.testing.assert_array_equal(shared, each)
