"""Which recomputation a run takes, by the memory there is."""

import dataclasses
from typing import Any

import jax
import pytest

from jaxlm.data.batches import DataConfig
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.run.config import PretrainConfig
from jaxlm.run.memory import choose_remat, estimate_run_memory
from jaxlm.run.setup import lay_out_state
from jaxlm.sharding.mesh import MeshConfig, make_mesh

MODEL = DecoderConfig(vocab_size=512, num_layers=8, model_dim=128, num_heads=4, max_seq_len=512, remat_policy="auto")
CONFIG = PretrainConfig(name="memory", model=MODEL, data=DataConfig(seq_len=512), global_batch_size=16)


@pytest.fixture(scope="module")
def estimates():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    tx = make_optimizer(OptimizerConfig(), 10)
    layout = lay_out_state(make_decoder(MODEL), tx, mesh, seed=0, ema=False, carry=lambda: None)

    def of(policy):
        model = dataclasses.replace(MODEL, remat_policy=policy)
        return estimate_run_memory(dataclasses.replace(CONFIG, model=model), layout, mesh).total

    return layout, mesh, {policy: of(policy) for policy in ("none", "dots", "full", "auto")}


def test_the_least_recomputation_that_fits(estimates):
    layout, mesh, total = estimates
    assert total["full"] < total["dots"] < total["none"] == total["auto"]

    def chosen(limit):
        model: Any = choose_remat(CONFIG, layout, mesh, limit).model
        return model.remat_policy

    assert chosen(None) == "none"
    for policy in ("none", "dots", "full"):
        assert chosen(int(total[policy] / 0.9) + 2) == policy
    assert chosen(int(total["none"] / 0.9) - 2) == "dots"
    assert chosen(int(total["full"] / 2)) == "full"


def test_a_policy_that_was_given_stays(estimates):
    layout, mesh, total = estimates
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, remat_policy="dots"))
    assert choose_remat(config, layout, mesh, int(total["full"])) is config


def test_growing_batches_count_as_the_largest(estimates):
    layout, mesh, _ = estimates

    def terms(**changes):
        estimate = estimate_run_memory(dataclasses.replace(CONFIG, **changes), layout, mesh)
        return {term.name: term.num_bytes for term in estimate.terms}

    assert terms(batch_ramp=((2, 48),)) == terms(global_batch_size=48, grad_accum_steps=3) != terms()
    ramp = dataclasses.replace(CONFIG, batch_ramp=((2, 48), (4, 32)))
    largest = ramp.at_largest_batch()
    assert (largest.global_batch_size, largest.microbatch_size, largest.batch_ramp) == (48, ramp.microbatch_size, ())
