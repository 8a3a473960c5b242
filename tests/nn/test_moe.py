# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportIndexIssue=false
"""A mixture of experts against a loop over experts that computes all of them for every token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.nn.mlp import ACTIVATIONS, GATED
from jaxlm.nn.moe import MoE, MoeConfig, router_sums
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from tests.quick import quick_ones

F32 = jnp.dtype("float32")
FORMS = {
    "mixtral": (MoeConfig(num_experts=4, top_k=2), "swiglu"),
    "shares of all": (MoeConfig(num_experts=8, top_k=3, renormalize=False), "geglu"),
    "shared": (MoeConfig(num_experts=4, top_k=1, renormalize=False, shared_dim=6), "relu2"),
    "all experts": (MoeConfig(num_experts=4, top_k=4), "gelu"),
}


@functools.cache
def layer_of(form):
    config, kind = FORMS[form]
    layer = MoE(config, kind, 12, 0.5, 0.5, 0.5, F32, F32)
    return layer, jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, 1, 8)), None)["params"]


def dense_loop(config, kind, params, x):
    """Every expert on every token, weighted by 0 where it was not chosen."""
    logits = x @ params["router"]["kernel"]
    probs = jax.nn.softmax(logits, -1)
    threshold = jnp.sort(probs, -1)[..., -config.top_k][..., None]
    weights = jnp.where(probs >= threshold, probs, 0.0)
    if config.renormalize:
        weights = weights / jnp.sum(weights, -1, keepdims=True)

    def mlp(p, x):
        up = x @ p["up"]
        return (ACTIVATIONS[kind](x @ p["gate"]) * up if kind in GATED else ACTIVATIONS[kind](up)) @ p["down"]

    kernels = {name: params[name]["kernel"] for name in ("up", "gate", "down") if name in params}
    out = sum(
        weights[..., e, None] * mlp({name: kernel[e] for name, kernel in kernels.items()}, x)
        for e in range(config.num_experts)
    )
    if config.shared_dim is not None:
        out = out + mlp({name: params["shared"][name]["kernel"] for name in params["shared"]}, x)
    return out


def assert_trees_close(a, b, tolerance=1e-5):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert np.linalg.norm(np.asarray(x) - np.asarray(y)) <= tolerance * np.linalg.norm(x), path


@functools.cache
def by_the_loop(form):
    """Rows, and what the loop gives of them: the loss with its gradients, and the output of the first row."""
    (config, kind), (_, params) = FORMS[form], layer_of(form)
    x, target = (jnp.asarray(np.random.default_rng(i).normal(size=(8, 5, 8)), F32) for i in range(2))

    def loss(params, x):
        out = dense_loop(config, kind, params, x)
        return jnp.sum(jnp.square(out - target)), out[:1]

    (value, first), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    return x, target, (value, grads), first


@pytest.mark.parametrize("form", quick_ones(FORMS, "shares of all", "shared"))
@pytest.mark.parametrize("sizes", [None, {"expert": 4, "fsdp": 2}, {"expert": 2, "model": 2, "data": 2}, {"model": 4}])
def test_experts_are_a_loop_over_experts_on_every_mesh(form, sizes):
    layer, params = layer_of(form)
    x, target, expected, first = by_the_loop(form)

    @jax.jit
    def sparse(params, x):
        return layer.apply({"params": params}, x, None)[0]

    sparse_grad = jax.jit(jax.value_and_grad(lambda *a: jnp.sum(jnp.square(sparse(*a) - target)), argnums=(0, 1)))
    if sizes is None:
        assert_trees_close(expected, sparse_grad(params, x))
        return
    devices = jax.devices()[: int(np.prod(list(sizes.values())))]
    mesh = make_mesh(MeshConfig(**sizes), devices)
    specs = {"gate": P("expert", "fsdp", "model"), "up": P("expert", "fsdp", "model"), "down": P("expert", "model")}
    laid = {
        name: jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, specs.get(name, P()))), tree)  # noqa: B023
        for name, tree in params.items()
    }
    with jax.set_mesh(mesh):
        assert_trees_close(expected, sparse_grad(laid, x))
        few = sparse(laid, x[:1])  # one row, which no axis divides
    np.testing.assert_allclose(few, first, atol=1e-4)


def test_no_token_is_dropped_where_all_choose_one_expert(rng):
    layer, params = layer_of("mixtral")
    x = jnp.abs(jnp.asarray(rng.normal(size=(2, 6, 8)), F32))
    kernel = jnp.zeros((8, 4)).at[:, 1].set(9.0).at[:, 3].set(5.0)
    params = {**params, "router": {"kernel": kernel}}
    out, _ = jax.jit(lambda p, x: layer.apply({"params": p}, x, None))(params, x)
    expected = jax.jit(lambda p, x: dense_loop(*FORMS["mixtral"], p, x))(params, x)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_router_losses_by_hand(rng):
    logits = rng.normal(size=(2, 6, 4))
    chosen = np.argsort(-logits, -1)[..., :2]
    counted = np.array([[1] * 6, [1, 1, 0, 0, 0, 0]])
    sums = router_sums(jnp.asarray(logits, F32), jnp.asarray(chosen, jnp.int32), jnp.asarray(counted))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    seen = counted == 1
    share = np.bincount(chosen[seen].ravel(), minlength=4) / (2 * 8)
    np.testing.assert_allclose(sums["router_balance"], 8 * 4 * np.sum(share * probs[seen].mean(0)), rtol=1e-5)
    np.testing.assert_allclose(sums["router_z"], np.sum(np.log(np.exp(logits).sum(-1))[seen] ** 2), rtol=1e-5)


def test_an_even_router_costs_one():
    chosen = jnp.asarray([[[0, 1], [2, 3]]], jnp.int32)
    sums = router_sums(jnp.zeros((1, 2, 4)), chosen, None)
    np.testing.assert_allclose(sums["router_balance"] / 2, 1.0)


@pytest.mark.parametrize(("changes", "words"), [({"top_k": 9}, "top_k=9"), ({"balance_coef": -1.0}, "balance_coef")])
def test_impossible_mixtures_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        MoeConfig(**changes)
