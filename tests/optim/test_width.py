"""muP's tables: rates and starts by what a parameter is, decay left alone."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.optim.width import rate_multiplier, start_multiplier

BASE = OptimizerConfig(peak_lr=0.1, schedule="constant", weight_decay=0.0, clip_norm=None, eps=0.0)
PARAMS: Any = {
    "embed": {"table": jnp.ones((10, 4))},
    "layers": {"layer_0": {"mlp": {"up": {"kernel": jnp.ones((3, 4, 6))}}, "mlp_norm": {"scale": jnp.ones((3, 4))}}},
    "head": {"kernel": jnp.ones((4, 10))},
}


@pytest.mark.parametrize(
    ("path", "rate", "fixed", "fan_in"),
    [
        ("layers/layer_0/attn/q/kernel", 1 / 4, 1 / 2, 1),
        ("tail_0/mlp/down/kernel", 1 / 4, 1 / 2, 1),
        ("layers/layer_0/moe/up/kernel", 1 / 4, 1 / 2, 1),
        ("layers/layer_0/moe/router/kernel", 1 / 4, 1 / 4, 1 / 2),
        ("layers/layer_0/attn/kv_down/kernel", 1 / 4, 1 / 2, 1),
        ("layers/layer_0/attn/kv_up/kernel", 1, 1, 1),
        ("layers/layer_0/attn/q/bias", 1, 1, 1),
        ("final_norm/scale", 1, 1, 1),
        ("embed/table", 1, 1, 2),
        ("head/kernel", 1, 1, 2),
    ],
)
def test_a_model_four_times_as_wide(path, rate, fixed, fan_in):
    assert rate_multiplier(path, 4.0) == rate
    assert start_multiplier(path, 4.0, fixed_std=True) == fixed
    assert start_multiplier(path, 4.0, fixed_std=False) == fan_in


def updates_of(config, width):
    tx = make_optimizer(config, 10, width=width)
    grads = jax.tree.map(lambda p: jnp.full_like(p, 0.3), PARAMS)
    updates: Any = tx.update(grads, tx.init(PARAMS), PARAMS)[0]
    return updates


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor"])
def test_steps_of_hidden_matrices_alone_are_smaller_and_decay_is_not(name):
    config = dataclasses.replace(BASE, name=name)
    plain, wide = updates_of(config, None), updates_of(config, 4.0)
    for path, ratio in (("embed", 1.0), ("head", 1.0), ("layers", 0.25)):
        for a, b in zip(jax.tree.leaves(plain[path]), jax.tree.leaves(wide[path]), strict=True):
            hidden = ratio if a.ndim == 3 else 1.0
            np.testing.assert_allclose(b, hidden * a, rtol=1e-6)
    decayed = updates_of(dataclasses.replace(config, weight_decay=0.5), 4.0)
    up, up_decayed = (tree["layers"]["layer_0"]["mlp"]["up"]["kernel"] for tree in (wide, decayed))
    np.testing.assert_allclose(up_decayed - up, np.full(up.shape, -0.1 * 0.5), rtol=1e-5)


def test_muon_needs_no_scaling_and_refuses_the_form_that_would():
    muon = dataclasses.replace(BASE, name="muon", eps=1e-8)
    for a, b in zip(jax.tree.leaves(updates_of(muon, None)), jax.tree.leaves(updates_of(muon, 4.0)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match="muon_consistent_rms"):
        make_optimizer(dataclasses.replace(muon, muon_consistent_rms=0.2), 10, width=4.0)
