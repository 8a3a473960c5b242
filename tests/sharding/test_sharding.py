"""How parameters and optimiser states lie on a mesh: rules, refusals, layouts. What is computed on it: test_axes.py."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.core.types import STATE_AXES
from jaxlm.models.decoder import RULES, DecoderConfig, MlaConfig, MoeConfig, make_decoder
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.run.setup import lay_out_state
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from jaxlm.sharding.rules import check_divides, match_rules, param_specs
from tests.quick import quick_ones

CONFIG = DecoderConfig(
    vocab_size=37,
    vocab_multiple=8,
    max_seq_len=32,
    num_layers=2,
    model_dim=32,
    num_heads=8,
    num_kv_heads=2,  # fewer than the model axis of 8
    mlp_dim=48,
    init_std=None,
)
MLA = MlaConfig(kv_lora_rank=16, q_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)

FORMS = {
    "mixtral": {"moe": MoeConfig(num_experts=8, top_k=2)},
    "shared expert": {"moe": MoeConfig(num_experts=4, top_k=2, renormalize=False, shared_dim=16), "mlp": "gelu"},
    "latent": {"mla": MLA, "qk_norm": False, "num_kv_heads": None},
}


def mesh_of(sizes):
    """(data, fsdp, model) or (data, fsdp, expert, model)."""
    data, fsdp, *expert, model = sizes
    config = MeshConfig(data=data, fsdp=fsdp, expert=expert[0] if expert else 1, model=model)
    return make_mesh(config, jax.devices()[: math.prod(sizes)])


@pytest.mark.parametrize("name", quick_ones(["adamw", "lion", "adafactor", "muon"], "adamw", "muon"))
def test_no_device_holds_the_whole_state(name):
    mesh = mesh_of((1, 4, 2))
    config = dataclasses.replace(CONFIG, model_dim=128, mlp_dim=256, vocab_size=512)
    tx = make_optimizer(OptimizerConfig(name=name), 10)
    layout = lay_out_state(make_decoder(config), tx, mesh, seed=0, ema=True)
    state = layout.init()
    for path, leaf in flatten_with_paths(state).items():
        share = max(shard.data.size for shard in leaf.addressable_shards)
        if leaf.size >= 8 * 128 * 16 and "kernel" in path:
            assert share * 8 == leaf.size, path
    again = lay_out_state(make_decoder(config), tx, mesh_of((8, 1, 1)), seed=0, ema=True).init()
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), state.params, again.params)


def test_every_parameter_of_every_form_has_a_rule():
    learned = {"bias": True, "norm": "layernorm", "position": "learned"}
    latent = {"mla": MLA, "qk_norm": False, "num_kv_heads": None, "bias": True}
    for changes in ({}, learned, {"tie_embeddings": False}, latent, {"output_norms": True}, *FORMS.values()):
        for pattern in ((None,), (4, None, 4)):
            config = dataclasses.replace(CONFIG, **changes, window_pattern=pattern)
            match_rules(RULES, jax.eval_shape(make_decoder(config).init, jax.random.key(0)))


def test_no_rule_is_an_error_and_the_first_match_wins():
    tree = {"a": {"kernel": jnp.zeros((4, 4))}}
    assert match_rules(((r"kernel$", P("fsdp", None)), (r"a/", P())), tree)["a"]["kernel"] == P("fsdp", None)
    with pytest.raises(ValueError, match="'a/kernel' of shape"):
        match_rules(((r"^b/", P()),), tree)


def test_a_leading_axis_of_layers_stays_whole():
    tree = {"kernel": jnp.zeros((3, 4, 4))}
    assert match_rules(((r"kernel$", P("fsdp", "model")),), tree)["kernel"] == P(None, "fsdp", "model")


def test_a_dimension_that_does_not_divide_is_named():
    tree = {"head": {"kernel": jnp.zeros((32, 37))}}
    with pytest.raises(UserError, match=r"dimension 1 of 'head/kernel', 37, .*model=8: set model.vocab_multiple"):
        check_divides(tree, {"head": {"kernel": P("fsdp", "model")}}, {"data": 1, "fsdp": 1, "model": 8})


def test_meshes_that_do_not_fit_the_devices_are_refused():
    assert dict(make_mesh(MeshConfig(fsdp=2), jax.devices()).shape) == {
        "data": 4,
        "stage": 1,
        "fsdp": 2,
        "expert": 1,
        "context": 1,
        "model": 1,
    }
    assert make_mesh(MeshConfig(expert=2, model=2), jax.devices()).shape["data"] == 2
    with pytest.raises(UserError, match=r"mesh\.fsdp=3 .* there are 8"):
        make_mesh(MeshConfig(fsdp=3), jax.devices())
    with pytest.raises(UserError, match="needs 16 devices and there are 8"):
        make_mesh(MeshConfig(data=16), jax.devices())
    with pytest.raises(ValueError, match=r"mesh\.model=0"):
        MeshConfig(model=0)


def test_adafactors_row_and_column_moments_lie_as_what_is_left_of_the_parameter():
    mesh = mesh_of((1, 4, 2))
    config = dataclasses.replace(CONFIG, model_dim=128, mlp_dim=256)
    layout = lay_out_state(
        make_decoder(config), make_optimizer(OptimizerConfig(name="adafactor"), 10), mesh, seed=0, ema=False
    )
    shapes = flatten_with_paths(layout.abstract.opt_state)
    rows = [leaf for path, leaf in shapes.items() if "v_row" in path and path.endswith("mlp/up/kernel")]
    assert rows
    assert all(leaf.sharding.spec in (P("stage", STATE_AXES), P("stage", "model")) for leaf in rows)


def test_few_key_heads_lie_whole_where_an_axis_does_not_divide_them():
    rules = ((r"/attn/(q|k|v)/kernel$", P("fsdp", "model")),)
    tree = {
        "layer": {"attn": {name: {"kernel": jax.ShapeDtypeStruct((24, width), jnp.float32)} for name, width in WIDE}}
    }
    sizes = {"data": 1, "fsdp": 2, "expert": 1, "model": 12}
    specs = param_specs(rules, tree, sizes)["layer"]["attn"]
    assert specs["q"]["kernel"] == P("fsdp", "model")
    assert specs["k"]["kernel"] == specs["v"]["kernel"] == P(("fsdp",), None)
    with pytest.raises(
        UserError, match=r"dimension 1 of 'layer/attn/q/kernel', 48, does not divide over mesh.model=36"
    ):
        param_specs(rules, tree, sizes | {"model": 36})


WIDE = (("q", 48), ("k", 16), ("v", 16))
