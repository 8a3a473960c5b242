"""Laws of the one train step, on an objective small enough to write its gradient by hand."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.core.types import Term
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.train.state import create_state
from jaxlm.train.step import Objective, make_many_steps, make_train_step, split_microbatches


def regression(noise=0.0):
    """Masked squared error of a linear map; with ``noise`` the inputs are jittered, so that keys matter."""

    def terms(params, frozen, carry, batch, key):
        x = batch["x"] + noise * jax.random.normal(key, batch["x"].shape) if noise else batch["x"]
        error = jnp.sum(jnp.square(x @ params["map"]["kernel"] - batch["y"]), -1) * batch["loss_mask"]
        shrink = Term(
            jnp.sum(jnp.square(params["map"]["kernel"])) * jnp.sum(batch["loss_mask"]), counts(batch)["error"], 0.1
        )
        return {"error": Term(jnp.sum(error), jnp.sum(batch["loss_mask"])), "shrink": shrink}, carry

    def counts(batch):
        return {"error": jnp.sum(batch["loss_mask"]), "shrink": jnp.sum(batch["loss_mask"])}

    return Objective(terms, counts)


def make_batch(rows=8, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.ones(rows, np.float32)
    mask[: rows // 4] = 0  # so that microbatches hold unequal counts
    return {
        "x": jnp.asarray(rng.normal(size=(rows, 4)), jnp.float32),
        "y": jnp.asarray(rng.normal(size=(rows, 3)), jnp.float32),
        "loss_mask": jnp.asarray(mask),
    }


def make(objective, accum=1, ema_decay=None, **config):
    config = OptimizerConfig(**({"peak_lr": 0.1, "schedule": "cosine"} | config))
    tx = make_optimizer(config, 100)
    params = {"map": {"kernel": jnp.asarray(np.random.default_rng(5).normal(size=(4, 3)), jnp.float32)}}
    step = make_train_step(objective, tx, schedule=config.schedule_fn(100), grad_accum_steps=accum, ema_decay=ema_decay)
    return jax.jit(step), create_state(params, tx, ema=ema_decay is not None)


def test_loss_and_gradient_norm_equal_the_hand_written_ones():
    step, state = make(regression())
    batch = make_batch()
    _, metrics = step(state, None, batch, jax.random.key(0))
    kernel, mask = np.asarray(state.params["map"]["kernel"], np.float64), np.asarray(batch["loss_mask"], np.float64)
    residual = (np.asarray(batch["x"], np.float64) @ kernel - np.asarray(batch["y"])) * mask[:, None]
    loss = np.sum(residual**2) / mask.sum() + 0.1 * np.sum(kernel**2)
    grad = 2 * np.asarray(batch["x"], np.float64).T @ residual / mask.sum() + 0.2 * kernel
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(grad), rtol=1e-5)


@pytest.mark.parametrize("accum", [2, 4])
def test_accumulation_with_unequal_masks_changes_only_rounding(accum):
    whole, state = make(regression())
    split, _ = make(regression(), accum=accum)
    a, metrics_a = whole(state, None, make_batch(), jax.random.key(0))
    b, metrics_b = split(state, None, make_batch(), jax.random.key(0))
    for name in ("loss", "grad_norm", "term/error", "term/shrink"):
        np.testing.assert_allclose(metrics_a[name], metrics_b[name], rtol=1e-5)
    np.testing.assert_allclose(a.params["map"]["kernel"], b.params["map"]["kernel"], rtol=1e-4)


@pytest.mark.parametrize("accum", [1, 1024])
def test_shares_of_16_bit_parameters_are_summed_in_f32(accum):
    """Each of 1,024 microbatches adds a thousandth: to a bf16 sum of 0.25 that would be nothing."""

    def terms(params, frozen, carry, batch, key):
        return {"x": Term(jnp.sum(batch["x"] * params["w"].astype(jnp.float32)), jnp.sum(batch["x"]))}, carry

    objective = Objective(terms, lambda batch: {"x": jnp.sum(batch["x"])})
    tx = optax.sgd(1.0)
    step = jax.jit(make_train_step(objective, tx, schedule=lambda s: 1.0, grad_accum_steps=accum))
    state = create_state({"w": jnp.zeros((), jnp.bfloat16)}, tx)
    after, metrics = step(state, None, {"x": jnp.ones(1024)}, jax.random.key(0))
    assert metrics["grad_norm"] == 1
    assert after.params["w"].dtype == jnp.bfloat16
    assert after.params["w"] == -1


def test_what_is_only_watched_may_overflow():
    def terms(params, frozen, carry, batch, key):
        w = params["w"]
        one = jnp.ones(())
        return {"good": Term(w**2, one), "watched": Term(jnp.exp(w + 100.0), one, 0.0)}, carry

    objective = Objective(terms, lambda batch: {"good": jnp.ones(()), "watched": jnp.ones(())})
    tx = optax.sgd(0.5)
    step = jax.jit(make_train_step(objective, tx, schedule=lambda s: 0.5))
    after, metrics = step(create_state({"w": jnp.ones(())}, tx), None, {"x": jnp.ones(1)}, jax.random.key(0))
    assert (metrics["loss"], metrics["grad_norm"], metrics["skipped"]) == (1, 2, 0)
    assert np.isinf(metrics["term/watched"])
    assert after.params["w"] == 0


def test_microbatches_deal_rows_so_that_a_sharded_axis_stays_sharded():
    rows = jnp.arange(8)
    np.testing.assert_array_equal(split_microbatches({"x": rows}, 2)["x"], [[0, 2, 4, 6], [1, 3, 5, 7]])
    with pytest.raises(ValueError, match="8 rows do not split into grad_accum_steps=3"):
        split_microbatches({"x": rows}, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("accum", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(bad, accum):
    step, state = make(regression(), accum=accum, ema_decay=0.9)
    batch = make_batch()
    good, _ = step(state, None, batch, jax.random.key(0))
    poisoned = dict(batch, x=batch["x"].at[-1, 0].set(bad))
    after, metrics = step(good, None, poisoned, jax.random.key(0))
    assert (int(after.step), int(after.skipped), int(metrics["skipped"])) == (2, 1, 1)
    for name in ("params", "opt_state", "ema_params"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(good, name))
    again, _ = step(after, None, batch, jax.random.key(0))
    assert int(again.skipped) == 1
    assert not np.array_equal(again.params["map"]["kernel"], good.params["map"]["kernel"])


def test_the_logged_rate_is_the_one_applied_even_after_a_skip():
    step, state = make(regression())
    batch = make_batch()
    state, first = step(state, None, dict(batch, x=batch["x"] * jnp.nan), jax.random.key(0))
    _, second = step(state, None, batch, jax.random.key(0))
    assert float(first["learning_rate"]) == float(second["learning_rate"]) == pytest.approx(0.1)


def test_ema_follows_the_parameters():
    step, state = make(regression(), ema_decay=0.75)
    start = np.asarray(state.params["map"]["kernel"])
    state, _ = step(state, None, make_batch(), jax.random.key(0))
    expected = 0.75 * start + 0.25 * np.asarray(state.params["map"]["kernel"])
    np.testing.assert_allclose(state.ema_params["map"]["kernel"], expected, rtol=1e-6)


def test_randomness_is_a_function_of_key_step_and_microbatch():
    step, state = make(regression(noise=0.5), accum=2)
    batch = make_batch()
    first, a = step(state, None, batch, jax.random.key(3))
    _, b = step(state, None, batch, jax.random.key(3))
    _, c = step(first.replace(params=state.params, opt_state=state.opt_state), None, batch, jax.random.key(3))
    _, d = step(state, None, batch, jax.random.key(4))
    assert float(a["loss"]) == float(b["loss"])
    assert len({float(a["loss"]), float(c["loss"]), float(d["loss"])}) == 3


def test_the_state_can_be_donated():
    """Two leaves that share a buffer (a zeros tree used for both of Adam's moments) would make donation fail."""
    step, state = make(regression(), ema_decay=0.9)
    donating = jax.jit(step, donate_argnums=0)
    for _ in range(2):
        state, _ = donating(state, None, make_batch(), jax.random.key(0))
    assert int(state.step) == 2


def running_mean(carry_rows):
    """A carry that depends on the rows: what each row has summed up so far."""

    def terms(params, frozen, carry, batch, key):
        total = carry + jnp.sum(batch["x"], -1)
        error = jnp.sum(jnp.square(total - jnp.sum(batch["x"] @ params["map"]["kernel"], -1)) * batch["loss_mask"])
        return {"error": Term(error, jnp.sum(batch["loss_mask"]))}, total

    return Objective(terms, lambda batch: {"error": jnp.sum(batch["loss_mask"])}, carry_rows)


@pytest.mark.parametrize("accum", [2, 4])
def test_each_microbatch_carries_on_with_its_own_rows(accum):
    whole, state = make(running_mean(True))
    split, _ = make(running_mean(True), accum=accum)
    states = [dataclasses.replace(state, carry=jnp.arange(8.0))] * 2
    for seed in range(3):
        states = [
            step(s, None, make_batch(seed=seed), jax.random.key(0))[0]
            for step, s in zip((whole, split), states, strict=True)
        ]
    np.testing.assert_array_equal(states[0].carry, states[1].carry)
    np.testing.assert_allclose(states[0].params["map"]["kernel"], states[1].params["map"]["kernel"], rtol=1e-5)


def test_many_steps_in_one_program_are_the_steps():
    step, state = make(regression(noise=0.3))
    batches, key = [make_batch(seed=i) for i in range(3)], jax.random.key(1)
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *batches)
    together, found = jax.jit(make_many_steps(step))(state, None, stacked, key)
    for i, batch in enumerate(batches):
        state, metrics = step(state, None, batch, key)
        np.testing.assert_allclose(found["loss"][i], metrics["loss"], rtol=1e-6)
    assert int(together.step) == 3
    np.testing.assert_allclose(together.params["map"]["kernel"], state.params["map"]["kernel"], rtol=1e-6)


def test_the_example_in_the_docs_learns(repo):
    (example,) = re.findall(r"```python\n(.*?)```", (repo / "docs" / "pretraining.md").read_text("utf-8"), re.DOTALL)
    found: dict = {}
    exec(example, found)
    assert int(found["state"].step) == 50
    assert found["metrics"]["loss"] < 1 < np.log(64)
