"""Low-rank adapters: merged equals attached in every family, and only they are trained."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.core.errors import UserError
from jaxlm.core.tree import count_params, flatten_with_paths
from jaxlm.models.decoder import DecoderConfig, MlaConfig, MoeConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.families import make_model
from jaxlm.models.lora import (
    BESIDE,
    LoraConfig,
    attach,
    check_fits,
    init_adapters,
    lora_rules,
    merge,
    target_paths,
    unmerge,
)
from jaxlm.models.presets import PRESETS
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.plan.params import param_shapes
from jaxlm.sharding.rules import match_rules
from jaxlm.train.adapters import lora_objective
from jaxlm.train.objectives import causal_objective
from jaxlm.train.state import create_state
from jaxlm.train.step import make_train_step
from tests.drawn import drawn_params
from tests.quick import quick_ones

SMALL = DecoderConfig(
    vocab_size=40, num_layers=3, model_dim=24, num_heads=2, mlp_dim=32, max_seq_len=16, compute_dtype="float32"
)
MLA = MlaConfig(q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8)
CONFIGS = {
    "decoder": SMALL,
    "unrolled": dataclasses.replace(SMALL, scan_layers=False, bias=True, tie_embeddings=False),
    "latent attention": dataclasses.replace(SMALL, mla=MLA, num_layers=1, qk_norm=False),
    "experts": dataclasses.replace(SMALL, num_layers=1, moe=MoeConfig(4, 2, shared_dim=16)),
    "encoder": EncoderConfig(
        vocab_size=40, num_layers=1, model_dim=24, num_heads=2, mlp_dim=32, max_seq_len=16, compute_dtype="float32"
    ),
    "recurrent": RecurrentConfig(vocab_size=40, model_dim=24, hidden_dim=24, compute_dtype="float32"),
}
ALL = LoraConfig(rank=3, alpha=6.0, targets=("/kernel$",))


def tokens(b=2, t=9):
    return jnp.asarray(np.random.default_rng(0).integers(0, 40, (b, t)), jnp.int32)


def trained_adapters(params, config, seed=1):
    """As after some steps: B no longer 0."""
    adapters = init_adapters(params, config, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape) * 0.1, x.dtype), adapters)


@functools.cache
def made(name):
    """A small model of each family, and its parameters."""
    model = make_model(CONFIGS[name])
    return model, drawn_params(model)


@pytest.mark.parametrize("name", quick_ones(CONFIGS, "decoder", "experts", "encoder"))
def test_merged_equals_attached_for_every_kernel_of_every_family(name):
    """Each adapter is felt too: no target is taken and then forgotten."""
    model, params = made(name)
    adapters = trained_adapters(params, ALL)
    merged = jax.jit(lambda p, a: merge(p, a, ALL))(params, adapters)
    assert flatten_with_paths(merged).keys() == flatten_with_paths(params).keys()
    plain, wanted = (np.asarray(jax.jit(model.apply_fn)(p, tokens())) for p in (params, merged))
    weights = jnp.asarray(np.random.default_rng(2).normal(size=wanted.shape), jnp.float32)

    def attached(adapters):
        logits = model.apply_fn(attach(params, adapters, ALL), tokens())
        return jnp.sum(logits * weights), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(attached, has_aux=True))(adapters)
    assert np.linalg.norm(logits - wanted) <= 1e-5 * np.linalg.norm(wanted)
    assert np.linalg.norm(wanted - plain) > 0.05 * np.linalg.norm(plain)
    assert all(np.any(grad) for grad in jax.tree.leaves(grads))
    kernels = [path for path in flatten_with_paths(params) if path.endswith("/kernel")]
    assert target_paths(params, ALL)[0] == kernels
    if name == "decoder":
        assert all(BESIDE.search(path) for path in kernels if not path.startswith("head"))


def test_fresh_adapters_change_nothing():
    model, params = made("decoder")
    adapters = init_adapters(params, ALL, jax.random.key(1))
    apply = jax.jit(model.apply_fn)
    found = apply(attach(params, adapters, ALL), tokens())
    np.testing.assert_array_equal(found, apply(params, tokens()))


def test_unmerging_gives_the_base_back():
    _, params = made("decoder")
    adapters = trained_adapters(params, ALL)
    back = unmerge(merge(params, adapters, ALL), adapters, ALL)
    for found, wanted in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_change_is_of_the_rank_and_scale_that_were_asked_for():
    _, params = made("decoder")
    for rslora, scale in ((False, 2.0), (True, 6.0 / np.sqrt(3))):
        config = dataclasses.replace(ALL, rslora=rslora, targets=(r"/attn/q/kernel$",))
        adapters = trained_adapters(params, config)
        part = adapters["layers"]["layer_0"]["attn"]["q"]
        before, after = (
            p["layers"]["layer_0"]["attn"]["q"]["kernel"] for p in (params, merge(params, adapters, config))
        )
        assert part["lora_a"]["kernel"].shape == (3, 24, 3)
        product = np.einsum("lir,lro->lio", *(np.float64(part[x]["kernel"]) for x in ("lora_a", "lora_b")))
        np.testing.assert_allclose(after - before, scale * product, atol=1e-6)
        assert [np.linalg.matrix_rank(delta, tol=1e-3) for delta in np.asarray(after - before)] == [3, 3, 3]


def test_the_step_trains_adapters_alone_as_merging_by_hand_does():
    """The gradient by A and B equals that of the merged model through W + s A B; the base is not closed over."""
    model, params = made("decoder")
    config = LoraConfig(rank=2, alpha=4.0, targets=("/(attn|mlp)/.*kernel$",))
    adapters = trained_adapters(params, config)
    x = tokens(8)
    batch = {"tokens": x, "targets": jnp.roll(x, -1, axis=1), "loss_mask": jnp.ones(x.shape).at[3:, 5:].set(0)}
    objective = causal_objective(model)
    tx = optax.sgd(1.0)

    step = make_train_step(lora_objective(objective, config), tx, schedule=lambda s: 1.0, grad_accum_steps=4)
    state = create_state(jax.tree.map(jnp.array, adapters), tx)
    after, metrics = jax.jit(step)(state, {"base": params}, batch, jax.random.key(0))
    grads = jax.tree.map(jnp.subtract, adapters, after.params)

    def by_hand(adapters):
        terms, _ = objective.terms(merge(params, adapters, config), None, None, batch, jax.random.key(0))
        return terms["nll"].total / terms["nll"].count

    wanted_loss, wanted = jax.jit(jax.value_and_grad(by_hand))(adapters)
    np.testing.assert_allclose(metrics["loss"], wanted_loss, rtol=1e-5)
    for found, want in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        assert np.linalg.norm(found - want) <= 1e-5 * np.linalg.norm(want)


def test_no_gradient_of_a_kernels_size_is_made():
    """With the adapter beside it, W is only multiplied with: no product has its shape."""
    config = LoraConfig(rank=2, targets=("/(attn|mlp)/.*kernel$",))
    model, params = made("decoder")
    adapters = init_adapters(params, config, jax.random.key(1))

    def loss(adapters, params):
        return jnp.sum(model.apply_fn(attach(params, adapters, config), tokens(2, 7)))

    product = re.compile(r"f32\[(24,32|32,24)\] = dot_general")
    assert not product.search(str(jax.make_jaxpr(jax.grad(loss))(adapters, params)))
    assert product.search(str(jax.make_jaxpr(jax.grad(loss, argnums=1))(adapters, params)))


def test_what_is_trained_whole_stands_in_the_tree():
    _, params = made("decoder")
    config = LoraConfig(rank=2, trained=("^final_norm/",))
    adapters = jax.tree.map(lambda x: x + 1, init_adapters(params, config, jax.random.key(0)))
    np.testing.assert_array_equal(
        merge(params, adapters, config)["final_norm"]["scale"], 1 + params["final_norm"]["scale"]
    )
    back = unmerge(merge(params, adapters, config), adapters, config)
    np.testing.assert_array_equal(back["final_norm"]["scale"], adapters["final_norm"]["scale"])


@pytest.mark.parametrize("name", ["decoder", "latent attention", "experts", "encoder", "recurrent"])
def test_every_adapter_has_a_rule(name):
    model = make_model(CONFIGS[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    adapters = init_adapters(shapes, ALL, jax.random.key(0))
    specs = flatten_with_paths(match_rules(lora_rules(model.rules), adapters))
    base = flatten_with_paths(match_rules(lora_rules(model.rules), shapes))
    for path, spec in specs.items():
        module, factor = path.removesuffix("/kernel").rsplit("/", 1)
        kernel = base[f"{module}/kernel"]
        lead = len(spec) - len(kernel)
        assert lead == 0
        assert spec[-1 if factor == "lora_a" else -2] is None
        assert spec[-2 if factor == "lora_a" else -1] == kernel[-2 if factor == "lora_a" else -1]


def test_rank_8_trains_under_one_percent_of_the_124m_preset():
    shapes = param_shapes(make_model(dataclasses.replace(PRESETS["gpt2"](), vocab_size=50257)))
    adapters = jax.eval_shape(lambda: init_adapters(shapes, LoraConfig(), jax.random.key(0)))
    share = count_params(adapters) / count_params(shapes)
    assert 0.001 < share < 0.01


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(targets=("/atn/",)), "'/atn/' matches no parameter; kernels: layers/layer_0/attn/k/kernel"),
        (LoraConfig(targets=("embed",)), "embed/table .* is no kernel"),
        (LoraConfig(rank=24), "lora.rank=24 is not below both sides"),
        (LoraConfig(rank=2, trained=("attn/q",)), "matched by lora.targets and by lora.trained"),
    ],
)
def test_targets_that_make_no_sense_end_in_one_line(config, message):
    _, params = made("decoder")
    with pytest.raises(UserError, match=message):
        init_adapters(params, config, jax.random.key(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"targets": ()}, "targets is empty"),
        ({"targets": "q"}, "is one string"),
        ({"targets": ("(",)}, "no regular expression"),
    ],
)
def test_bad_configs_are_refused_at_birth(options, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**options)


def test_adapters_of_another_model_are_refused():
    _, params = made("decoder")
    adapters = init_adapters(params, ALL, jax.random.key(0))
    check_fits(params, adapters)
    wide = jax.eval_shape(make_model(dataclasses.replace(SMALL, model_dim=48)).init, jax.random.key(0))
    with pytest.raises(UserError, match="and the base has a parameter of shape"):
        check_fits(wide, adapters)
    with pytest.raises(UserError, match="and the base has nothing there"):
        check_fits(made("recurrent")[1], adapters)
    with pytest.raises(UserError, match="belong to another model"):
        merge(made("recurrent")[1], adapters, ALL)
