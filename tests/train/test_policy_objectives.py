"""Objectives over rollouts: the policy gradient at the start, parts that sum to the whole, a critic that fits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.losses.tokens import token_nll
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.models.heads import HeadConfig, make_task_model
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.train.policy_objectives import PolicyConfig, critic_objective, policy_objective
from jaxlm.train.state import create_state
from jaxlm.train.step import make_train_step
from tests.drawn import drawn_params


@functools.cache
def decoder():
    sizes: dict[str, Any] = {"num_layers": 1, "model_dim": 16, "num_heads": 2, "mlp_dim": 16, "max_seq_len": 16}
    model = make_decoder(DecoderConfig(vocab_size=30, compute_dtype="float32", **sizes))
    return model, drawn_params(model)


@functools.cache
def rollouts():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 30, (8, 10))
    lengths = np.array([10, 3, 7, 1, 9, 10, 4, 8])
    batch = {
        "tokens": tokens[:, :-1].astype(np.int32),
        "targets": tokens[:, 1:].astype(np.int32),
        "segment_ids": (np.arange(9) < lengths[:, None]).astype(np.int32),
        "loss_mask": ((np.arange(9) < lengths[:, None]) & (np.arange(9) >= 1)).astype(np.float32),
        "advantages": rng.normal(size=(8, 9)).astype(np.float32),
        "returns": rng.normal(size=(8, 9)).astype(np.float32),
        "old_values": np.zeros((8, 9), np.float32),
    }
    return {name: jnp.asarray(array) for name, array in batch.items()}


def logprobs_of(params):
    model, batch = decoder()[0], rollouts()
    return -token_nll(model.apply_fn(params, batch["tokens"], segment_ids=batch["segment_ids"]), batch["targets"])[0]


def record_gradients():
    """A transformation that moves nothing and keeps the gradients as its state: read off the parameters' change they
    would carry the parameters' rounding."""

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return init(updates), updates

    return optax.GradientTransformation(init, update)


def step_of(config, batch, accum):
    model, params = decoder()
    tx = record_gradients()
    step = make_train_step(policy_objective(model, config), tx, schedule=lambda s: 1.0, grad_accum_steps=accum)
    state = create_state(jax.tree.map(jnp.array, params), tx)
    after, metrics = jax.jit(step)(state, None, batch, jax.random.key(0))
    return metrics, after.opt_state


def near(found, wanted):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.linalg.norm(x - y) <= 1e-5 * np.linalg.norm(y)


def test_at_the_sampling_policy_it_is_the_policy_gradient():
    _, params = decoder()
    batch = rollouts() | {"old_logprobs": jax.jit(logprobs_of)(params)}
    metrics, grads = step_of(PolicyConfig(), batch, 1)
    count = float(batch["loss_mask"].sum())

    def reinforce(params):
        return -jnp.sum(logprobs_of(params) * batch["advantages"] * batch["loss_mask"]) / count

    near(grads, jax.jit(jax.grad(reinforce))(params))
    assert metrics["term/clip_fraction"] == 0
    np.testing.assert_allclose(metrics["term/old_kl"], 0, atol=1e-6)
    assert 0 < metrics["term/entropy"] <= np.log(30)


def test_targets_that_nobody_drew_give_no_gradient_however_unlikely_they_are():
    """A KL loss's exponential would overflow where only the other side of the difference is masked."""
    model, params = decoder()
    batch = dict(rollouts())
    batch |= {"old_logprobs": logprobs_of(params) * batch["loss_mask"], "ref_logprobs": jnp.zeros((8, 9))}
    objective = policy_objective(model, PolicyConfig(kl_coef=0.1, temperature=1e-3))  # some logits are 100 nats apart

    def loss(params, batch):
        terms, _ = objective.terms(params, None, None, batch, jax.random.key(0))
        return sum(term.total * term.weight for term in terms.values())

    left_out = {**batch, "loss_mask": batch["loss_mask"] * 0.0}
    grads = jax.grad(loss)(params, left_out)
    assert all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(grads))


def test_parts_sum_to_the_whole_with_every_term():
    _, params = decoder()
    own = jax.jit(logprobs_of)(params)
    batch = rollouts() | {"old_logprobs": own - 0.3, "ref_logprobs": own + 0.2}
    config = PolicyConfig(reduction="sequence", kl_coef=0.1, entropy_coef=0.01)
    whole, parts = (step_of(config, batch, accum) for accum in (1, 8))
    np.testing.assert_allclose(parts[0]["loss"], whole[0]["loss"], rtol=1e-5)
    near(parts[1], whole[1])
    assert 0 < whole[0]["term/clip_fraction"] < 1  # ratio 1.35: held where the advantage is above 0
    np.testing.assert_allclose(whole[0]["term/kl"], np.exp(0.2) - 1 - 0.2, rtol=1e-4)


def test_a_critic_learns_returns():
    task = make_task_model(decoder()[0], HeadConfig("tag", num_outputs=1))
    config = OptimizerConfig(peak_lr=1e-2, schedule="constant")
    tx = make_optimizer(config, 80)
    objective = critic_objective(task, clip_eps=None)
    step = jax.jit(make_train_step(objective, tx, schedule=config.schedule_fn(80), grad_accum_steps=2))
    state = create_state(drawn_params(task), tx)
    losses = []
    for _ in range(80):
        state, metrics = step(state, None, rollouts(), jax.random.key(0))
        losses.append(float(metrics["term/value"]))
    assert losses[-1] < 0.3 * losses[0]


def test_bad_settings_are_refused():
    bad: list[dict[str, Any]] = [
        {"clip_eps": 0.0}, {"reduction": "mean"}, {"reduction": "constant"}, {"max_length": 3}, {"kl_kind": "k1"},
        {"kl_coef": -1.0},
    ]  # fmt: skip
    for options in bad:
        with pytest.raises(ValueError, match="policy"):
            PolicyConfig(**options)


def test_what_is_masked_cannot_overflow():
    """An answer that is left out may have been as unlikely as it likes: no gradient of it is 0 times infinity."""
    model, params = decoder()
    batch = rollouts()
    batch = batch | {
        "loss_mask": batch["loss_mask"].at[0].set(0.0),
        "old_logprobs": logprobs_of(params).at[0].set(-200.0),
        "ref_logprobs": logprobs_of(params).at[0].set(-200.0),
    }
    objective = policy_objective(model, PolicyConfig(kl_coef=0.1))

    def loss(params):
        terms, _ = objective.terms(params, None, None, batch, jax.random.key(0))
        return sum(term.weight * term.total for term in terms.values())

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
