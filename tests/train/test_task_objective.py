"""Heads and their objective: accumulation = the whole batch, padding and what is not counted add nothing, poolings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.models.encoder import make_encoder
from jaxlm.models.encoder_config import BERT_BASE, EncoderConfig
from jaxlm.models.heads import HeadConfig, TaskKind, make_task_model
from jaxlm.sharding.rules import match_rules
from jaxlm.train.objectives import causal_objective, task_objective
from jaxlm.train.state import create_state
from jaxlm.train.step import make_train_step
from tests.quick import quick_ones

SIZES = {"vocab_size": 23, "max_seq_len": 16, "num_layers": 1, "model_dim": 8, "num_heads": 2, "init_std": 0.5}
ENCODER = make_encoder(EncoderConfig(**SIZES))
BERT = make_encoder(dataclasses.replace(BERT_BASE, **SIZES, mlp_dim=16, dropout=0.0))
DECODER = make_decoder(DecoderConfig(**SIZES))


def batch_of(rng, kind, num_outputs, rows=8, width=10):
    lengths = rng.integers(3, width + 1, rows)
    segments = (np.arange(width) < lengths[:, None]).astype(np.int32)
    batch = {"tokens": rng.integers(0, 23, (rows, width)).astype(np.int32), "segment_ids": segments}
    shape = (rows, width) if kind == "tag" else (rows,)
    batch["labels"] = rng.integers(0, num_outputs, shape).astype(np.int32)
    if kind == "regress":
        batch["labels"] = rng.standard_normal(rows).astype(np.float32)
    counted = segments * (rng.random((rows, width)) < 0.5) if kind == "tag" else np.arange(rows) < rows - 1
    batch["loss_mask"] = counted.astype(np.float32)
    return {name: jnp.asarray(array) for name, array in batch.items()}


@pytest.mark.parametrize(("kind", "num_outputs"), [("classify", 3), ("regress", 1), ("tag", 4)])
def test_accumulation_is_the_whole_batch(kind, num_outputs, rng):
    task = make_task_model(ENCODER, HeadConfig(kind, num_outputs))
    batch = batch_of(rng, kind, num_outputs)
    tx = optax.sgd(0.1)

    def stepped(grad_accum_steps):
        state = create_state(jax.jit(task.init)(jax.random.key(0)), tx)
        step = make_train_step(task_objective(task), tx, schedule=lambda _: 0.1, grad_accum_steps=grad_accum_steps)
        return jax.jit(step)(state, None, batch, jax.random.key(1))

    (whole, metrics), (parts, part_metrics) = stepped(1), stepped(4)
    assert float(metrics["loss"]) == pytest.approx(float(part_metrics["loss"]), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole.params, parts.params)


def test_losses_by_hand(rng):
    kinds: tuple[tuple[TaskKind, int], ...] = (("classify", 3), ("regress", 1), ("tag", 4))
    for kind, count in kinds:
        task = make_task_model(BERT, HeadConfig(kind, count))
        params = jax.jit(task.init)(jax.random.key(0))
        batch = batch_of(rng, kind, count)
        outputs, labels, mask = (
            np.asarray(x) for x in (task.outputs(params, batch), batch["labels"], batch["loss_mask"])
        )
        if kind == "regress":
            expected = (outputs - labels) ** 2
        else:
            log_probs = np.asarray(jax.nn.log_softmax(outputs))
            expected = -np.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
        objective = task_objective(task)
        terms = jax.jit(lambda p, b, o=objective: o.terms(p, None, None, b, jax.random.key(0))[0])(params, batch)
        (term,) = terms.values()
        assert float(term.total) == pytest.approx(float((expected * mask).sum()), rel=1e-5)
        assert float(term.count) == mask.sum() == float(*objective.counts(batch).values())


@pytest.mark.parametrize("model", [ENCODER, BERT, DECODER], ids=["encoder", "bert", "decoder"])
@pytest.mark.parametrize("pooling", quick_ones(["first", "mean", "last"], "mean"))
def test_padding_changes_nothing(model, pooling, rng):
    if model is DECODER and pooling == "first":
        pytest.skip("a decoder's first token has read nothing")
    task = make_task_model(model, HeadConfig("classify", 3, pooling))
    params = jax.jit(task.init)(jax.random.key(0))
    match_rules(task.rules, params)
    assert "head" not in params
    batch = batch_of(rng, "classify", 3)
    outputs = jax.jit(task.outputs)
    plain = outputs(params, batch)
    wider = {name: jnp.pad(batch[name], ((0, 0), (0, 4)), constant_values=7) for name in ("tokens", "segment_ids")}
    wider["segment_ids"] = jnp.pad(batch["segment_ids"], ((0, 0), (0, 4)))
    np.testing.assert_allclose(plain, outputs(params, wider), rtol=1e-4, atol=1e-5)
    # It does read the text: another last real token gives another answer.
    last = (jnp.arange(8), jnp.sum(batch["segment_ids"], axis=1) - 1)
    other = batch | {"tokens": batch["tokens"].at[last].add(1)}
    assert np.all(np.any(np.asarray(outputs(params, other)) != np.asarray(plain), axis=-1))


def test_token_types_tell_the_texts_of_a_pair_apart(rng):
    task = make_task_model(BERT, HeadConfig("classify", 2))
    params = jax.jit(task.init)(jax.random.key(0))
    batch = batch_of(rng, "classify", 2)
    types = jnp.asarray(np.tile(np.arange(10) > 4, (8, 1)).astype(np.int32))
    assert np.any(np.asarray(task.outputs(params, batch | {"token_types": types})) != task.outputs(params, batch))


def test_the_masked_loss_counts_chosen_places_alone(rng):
    objective = causal_objective(ENCODER)
    params = jax.jit(ENCODER.init)(jax.random.key(0))
    chosen = (rng.random((2, 10)) < 0.3).astype(np.float32)
    batch = {name: rng.integers(0, 23, (2, 10)).astype(np.int32) for name in ("tokens", "targets")}
    batch |= {"segment_ids": np.ones((2, 10), np.int32), "loss_mask": chosen}
    terms = jax.jit(lambda batch: objective.terms(params, None, None, batch, jax.random.key(0))[0]["nll"])
    term = terms(batch)
    assert float(term.count) == chosen.sum()
    elsewhere = np.where(chosen > 0, batch["targets"], (batch["targets"] + 1) % 23)
    assert float(terms(batch | {"targets": elsewhere}).total) == float(term.total)
    assert float(terms(batch | {"targets": (batch["targets"] + 1) % 23}).total) != float(term.total)
