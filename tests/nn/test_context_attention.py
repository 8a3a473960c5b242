"""Attention over rows whose positions lie on several devices: that of whole rows, whatever is masked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.nn import ring_attention
from jaxlm.nn.attention import attend
from jaxlm.nn.context_attention import attend_rows, repeated_heads
from jaxlm.nn.ring_attention import RingOptions
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from tests.sharding.comparing import QUICK

B, T, N, K, H = 2, 64, 4, 2, 8
CASES = {
    "ring": ("ring", False, {}),
    "ring, packed": ("ring", True, {"softcap": 1.5}),
    "ring, window within a device": ("ring", False, {"window": 5}),
    "ring, window over devices, packed": ("ring", True, {"window": 21}),
    "ring, both ways, packed": ("ring", True, {"causal": False}),
    "ring, window both ways": ("ring", False, {"causal": False, "window": 9}),
    "all to all, window, packed": ("all_to_all", True, {"window": 21, "softcap": 1.5}),
    "all to all, both ways": ("all_to_all", False, {"causal": False}),
}
"""Name -> (method, packed, options of attention)."""


@pytest.fixture(scope="module")
def rows():
    """Queries, keys, values, and what is asked of the output; two texts and padding in each row."""
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, w = (jax.random.normal(key, (B, T, heads, H)) for key, heads in zip(keys, (N, K, K, N), strict=True))
    segments = np.array([[1] * 23 + [2] * 36 + [0] * 5, [1] * 64])
    positions = np.array([[*range(23), *range(36), *[0] * 5], [*range(64)]])
    return q, k, v, w, jnp.asarray(segments, jnp.int32), jnp.asarray(positions, jnp.int32)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_attention_of_whole_rows(rows, name, monkeypatch):
    """Outputs where there is text, and gradients, with several chunks on a device."""
    method, packed, form = CASES[name]
    monkeypatch.setattr(ring_attention, "CHUNK", 8)
    monkeypatch.setattr(ring_attention, "SMALLEST_CHUNK", 1)
    q, k, v, w, segments, positions = rows
    options = (
        {"q_positions": positions, "q_segment_ids": segments}
        if packed
        else dict.fromkeys(("q_positions", "q_segment_ids"))
    )
    seen = (segments > 0)[..., None, None] if packed else jnp.ones((), bool)

    def loss(function, **more):
        def of(q, k, v):
            out = jnp.where(seen, function(q, k, v, **form, **more), 0.0)
            return jnp.sum(out * w), out

        return jax.jit(jax.grad(of, argnums=(0, 1, 2), has_aux=True), compiler_options=QUICK)

    as_keys = {"k_positions": options["q_positions"], "k_segment_ids": options["q_segment_ids"]}
    want_grads, want = loss(attend, **options, **as_keys)(q, k, v)
    mesh = make_mesh(MeshConfig(data=1, context=4), jax.devices()[:4])
    with jax.set_mesh(mesh):
        split = [jax.device_put(x, NamedSharding(mesh, P(None, "context"))) for x in (q, k, v)]
        grads, found = loss(attend_rows, **options, mask_bts=None, context_attention=method)(*split)
    np.testing.assert_allclose(found, want, atol=2e-6)
    for grad, wanted in zip(grads, want_grads, strict=True):
        assert np.linalg.norm(grad - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_under_a_scan_over_layers_a_ring_keeps_no_scores_and_no_masks(rows):
    """What does not change from layer to layer is worked out before the scan and kept: it must be nothing large."""
    q, k, v, _, segments, positions = rows
    packed = {"q_positions": positions, "q_segment_ids": segments, "mask_bts": None, "window": 21}

    def layers(q):
        def layer(q, _):
            return attend_rows(q, k * q[:, :, :K], v, **packed, context_attention="ring"), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(layer), q, None, length=2)[0])

    mesh = make_mesh(MeshConfig(data=1, context=4), jax.devices()[:4])
    with jax.set_mesh(mesh):
        program = jax.make_jaxpr(jax.grad(layers))(q)
    kept = [out.aval.shape for equation in program.eqns for out in equation.outvars]
    assert [shape for shape in kept if shape[-2:] == (T // 4, T // 4)] == []


def test_a_ring_under_a_window_goes_no_further_than_it_reaches():
    options = RingOptions("context", ways=8, causal=True, window=17, softcap=None, scale=1.0)
    assert [options._replace(window=w).steps(16) for w in (1, 2, 17, 18, 500, None)] == [1, 2, 2, 3, 8, 8]
    assert options._replace(causal=False).steps(16) == 8


@pytest.mark.parametrize(("heads", "ways", "copies"), [(2, 8, 4), (8, 4, 1), (6, 4, 2), (1, 12, 12)])
def test_key_heads_are_repeated_no_more_than_it_takes(heads, ways, copies):
    x = jnp.arange(heads)[None, None, :, None]
    assert repeated_heads(x, ways).reshape(-1).tolist() == np.repeat(np.arange(heads), copies).tolist()
