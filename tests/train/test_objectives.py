"""The causal objective through a real decoder: packing, accumulation, z-loss and masks change nothing they should
not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.models.decoder import DecoderConfig, MoeConfig, make_decoder
from jaxlm.train.distillation_objective import distillation_objective
from jaxlm.train.objectives import causal_objective
from jaxlm.train.state import create_state
from jaxlm.train.step import make_train_step
from tests.drawn import drawn_params
from tests.quick import quick_ones

VOCAB = 31
CONFIG = DecoderConfig(
    vocab_size=VOCAB, max_seq_len=32, num_layers=2, model_dim=16, num_heads=2, init_std=None, scan_layers=False
)


def documents(seed=0, lengths=(5, 9, 3, 12, 7)):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB, n + 1).astype(np.int32) for n in lengths]


def batch_of(rows, seq_len):
    """Rows of documents, each row a list: packed side by side with segments and positions."""
    fields = ("tokens", "targets", "segment_ids", "positions")
    out: dict[str, np.ndarray] = {name: np.zeros((len(rows), seq_len), np.int32) for name in fields}
    out["loss_mask"] = np.zeros((len(rows), seq_len), np.float32)
    for i, row in enumerate(rows):
        start = 0
        for segment, document in enumerate(row, start=1):
            end = start + len(document) - 1
            out["tokens"][i, start:end] = document[:-1]
            out["targets"][i, start:end] = document[1:]
            out["segment_ids"][i, start:end] = segment
            out["positions"][i, start:end] = np.arange(end - start)
            out["loss_mask"][i, start:end] = 1
            start = end
    return {name: jnp.asarray(value) for name, value in out.items()}


def loss_and_grads(model, params, batch, **options):
    objective = causal_objective(model, **options)
    counts = objective.counts(batch)

    def loss_fn(p):
        terms, _ = objective.terms(p, None, None, batch, jax.random.key(0))
        loss = sum(t.weight * t.total / counts[name] for name, t in terms.items())
        return loss, {name: term.count for name, term in terms.items()}

    (loss, counted), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
    for name, count in counted.items():
        np.testing.assert_array_equal(count, counts[name])
    return loss, grads


def assert_same(a, b, tolerance=1e-5):
    """Loss to 1e-5 relative, and every gradient tensor to 1e-5 by norm of the difference over norm."""
    np.testing.assert_allclose(a[0], b[0], rtol=tolerance)
    for x, y in zip(jax.tree.leaves(a[1]), jax.tree.leaves(b[1]), strict=True):
        assert np.linalg.norm(x - y) <= tolerance * max(np.linalg.norm(x), 1e-8)


@pytest.mark.parametrize("position", ["rope", "learned"])
@pytest.mark.parametrize("window", [None, 4])
def test_packed_rows_give_the_loss_and_gradient_of_single_documents(position, window):
    config = DecoderConfig(**{**vars(CONFIG), "position": position, "window_pattern": (window, None)})
    model = make_decoder(config)
    params = drawn_params(model)
    docs = documents()
    single = batch_of([[doc] for doc in docs], 14)
    packed = batch_of([docs[:3], docs[3:]], 20)
    assert_same(loss_and_grads(model, params, single), loss_and_grads(model, params, packed))


@pytest.mark.parametrize("scan", quick_ones([False, True], True))
def test_router_terms_join_the_loss_and_padding_has_no_part_in_them(scan):
    moe = MoeConfig(num_experts=4, balance_coef=0.5, router_z_coef=0.1)
    model = make_decoder(DecoderConfig(**{**vars(CONFIG), "moe": moe, "scan_layers": scan}))
    params = drawn_params(model)
    docs = documents()
    single, packed = batch_of([[doc] for doc in docs], 14), batch_of([docs[:3], docs[3:]], 20)
    assert_same(loss_and_grads(model, params, single), loss_and_grads(model, params, packed))
    terms, _ = causal_objective(model).terms(params, None, None, packed, jax.random.key(0))
    assert set(terms) == {"nll", "router_balance", "router_z"}
    balance, z = terms["router_balance"], terms["router_z"]
    assert (balance.weight, z.weight, float(z.count)) == (0.5, 0.1, 36.0)
    assert 0.9 < balance.total / balance.count < 4  # 1 where even, 4 where one expert has all


@pytest.mark.parametrize("accum", [2, 4])
def test_accumulation_with_unequal_masks_gives_the_loss_and_gradient_of_one_pass(accum):
    model = make_decoder(CONFIG)

    def zeros(params):
        return jax.tree.map(jnp.zeros_like, params)

    def keep(updates, state, params=None):
        del state, params
        return zeros(updates), updates

    keeps_grads = optax.GradientTransformation(zeros, keep)
    # Microbatches of 5 to 16 counted targets: dividing each by its own count would show.
    batch = batch_of([[doc] for doc in documents(lengths=(5, 9, 3, 12, 7, 1, 4, 14))], 14)
    state = create_state(drawn_params(model), keeps_grads)

    def first_step(parts):
        step = make_train_step(
            causal_objective(model), keeps_grads, schedule=optax.constant_schedule(1.0), grad_accum_steps=parts
        )
        after, metrics = jax.jit(step)(state, None, batch, jax.random.key(0))
        return metrics["loss"], after.opt_state

    assert_same(first_step(1), first_step(accum))


@pytest.mark.parametrize("chunk", [4, 7])
def test_a_teacher_by_chunks_is_the_teacher(chunk):
    config = DecoderConfig(vocab_size=VOCAB, num_layers=1, model_dim=16, num_heads=2, max_seq_len=16)
    model, teacher = make_decoder(config), make_decoder(dataclasses.replace(config, model_dim=24))
    params, frozen = drawn_params(model), drawn_params(teacher)
    batch = batch_of([documents(0, (5, 9)), documents(1, (12,))], 16)

    def loss(params, loss_chunk):
        found = distillation_objective(model, teacher, coef=0.7, temperature=2.0, loss_chunk=loss_chunk)
        terms, _ = found.terms(params, frozen, None, batch, jax.random.key(0))
        return sum(term.weight * term.total for term in terms.values())

    whole, parts = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, one) for one in (None, chunk))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), parts, whole)


def test_z_loss_is_its_weighted_mean():
    model = make_decoder(CONFIG)
    params = drawn_params(model)
    batch = batch_of([[doc] for doc in documents()], 14)
    plain, _ = loss_and_grads(model, params, batch)
    with_z, _ = loss_and_grads(model, params, batch, z_loss_coef=0.01)
    logits = model.apply_fn(params, batch["tokens"], positions=batch["positions"], segment_ids=batch["segment_ids"])
    log_z = jax.nn.logsumexp(logits, -1)
    expected = jnp.sum(jnp.square(log_z) * batch["loss_mask"]) / jnp.sum(batch["loss_mask"])
    np.testing.assert_allclose(with_z - plain, 0.01 * expected, rtol=1e-4)


def test_an_untrained_model_with_a_zero_head_costs_log_v():
    model = make_decoder(DecoderConfig(**{**vars(CONFIG), "tie_embeddings": False, "zero_init_head": True}))
    loss, _ = loss_and_grads(model, model.init(jax.random.key(0)), batch_of([[doc] for doc in documents()], 14))
    np.testing.assert_allclose(loss, np.log(VOCAB), rtol=1e-6)
