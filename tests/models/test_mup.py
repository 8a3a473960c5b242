"""Laws of muP in the decoder: at its base it is the standard one; starts, scales and shapes by width."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.tree import flatten_with_paths
from jaxlm.models.decoder import DecoderConfig, MlaConfig, MoeConfig, make_decoder
from jaxlm.models.width import at_width
from tests.quick import quick_ones

BASE = DecoderConfig(vocab_size=40, max_seq_len=16, num_layers=2, model_dim=16, num_heads=2, scan_layers=False)
FORMS = {
    "tied": {},
    "free head, 1/sqrt(fan in)": {"tie_embeddings": False, "init_std": None},
    "embed_scale, learned positions": {"embed_scale": True, "position": "learned"},
    "experts": {"moe": MoeConfig(num_experts=4)},
    "latent": {"mla": MlaConfig(8, 6, 4, 4, 4), "qk_norm": False},
}


@pytest.mark.parametrize("form", quick_ones(FORMS, "free head, 1/sqrt(fan in)", "experts"))
def test_at_the_base_width_it_is_the_standard_parametrisation_bit_by_bit(form):
    standard = dataclasses.replace(BASE, **FORMS[form])
    mup = dataclasses.replace(standard, base_dim=16)
    tokens = jnp.arange(12, dtype=jnp.int32)[None]
    outputs = []
    for config in (standard, mup):
        model = make_decoder(config)
        outputs.append(jax.jit(lambda key, model=model: model.apply_fn(model.init(key), tokens))(jax.random.key(0)))
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("init_std", [0.02, None])
def test_hidden_matrices_start_by_fan_in_and_all_else_as_at_the_base(init_std):
    base = dataclasses.replace(BASE, init_std=init_std, tie_embeddings=False, mlp="gelu")
    narrow = flatten_with_paths(jax.jit(make_decoder(at_width(base, 16, base_dim=16)).init)(jax.random.key(0)))
    wide = flatten_with_paths(jax.jit(make_decoder(at_width(base, 256, base_dim=16)).init)(jax.random.key(0)))
    for path, leaf in wide.items():
        if path.endswith("scale"):
            continue
        hidden = path.startswith("layers")
        ratio = float(jnp.std(leaf) / jnp.std(narrow[path]))
        assert ratio == pytest.approx(0.25 if hidden else 1.0, rel=0.1), path


def test_scores_and_logits_fall_with_width():
    assert at_width(BASE, 64).attn_scale == pytest.approx(32**-0.5)  # two heads that grow wider
    assert at_width(BASE, 64, base_dim=16).attn_scale == pytest.approx(8**-0.5 * 8 / 32)
    many = dataclasses.replace(BASE, head_dim=8)
    assert at_width(many, 64, base_dim=16).attn_scale == at_width(many, 64).attn_scale
    assert at_width(many, 64).num_heads == 8
    model = make_decoder(at_width(BASE, 64, base_dim=16))
    params = jax.jit(model.init)(jax.random.key(0))
    hidden = jnp.ones((1, 1, 64))
    plain = make_decoder(at_width(BASE, 64)).logits(params, hidden)
    np.testing.assert_allclose(model.logits(params, hidden), plain / 4, rtol=1e-6)


def test_shapes_that_cannot_be_widened_say_so():
    with pytest.raises(ValueError, match="num_heads=2"):
        at_width(dataclasses.replace(BASE, head_dim=8), 20)
    with pytest.raises(ValueError, match="mla has widths"):
        at_width(dataclasses.replace(BASE, **FORMS["latent"]), 32)
    with pytest.raises(ValueError, match="base_head_dim"):
        dataclasses.replace(BASE, base_head_dim=8)
    with pytest.raises(ValueError, match="base_dim"):
        dataclasses.replace(BASE, base_dim=0)
