"""Laws of the recurrent language model: state carried, texts apart, generation, dropout, families and their configs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.keys import Purpose, fold_key
from jaxlm.core.tree import flatten_with_paths
from jaxlm.generate.decode import generate_tokens, left_pad, prefill
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.families import make_model
from jaxlm.models.recurrent import RULES, RecurrentConfig, make_recurrent
from jaxlm.nn.recurrent import CELLS
from jaxlm.plan.families import count_recurrent_params
from jaxlm.sharding.rules import match_rules
from tests.drawn import drawn_params

CONFIG = RecurrentConfig(vocab_size=31, num_layers=2, model_dim=12, hidden_dim=20, init_std=0.5)


def made(**changes):
    model = make_recurrent(dataclasses.replace(CONFIG, **changes))
    return model, drawn_params(model)


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_carried_over_is_one_long_row(cell, rng):
    model, params = made(cell=cell)
    tokens = rng.integers(0, 31, (2, 12)).astype(np.int32)
    whole = model.apply_fn(params, tokens)
    state = model.init_cache(2, 0)
    parts = []
    for first in range(0, 12, 4):
        out = model.hidden(params, tokens[:, first : first + 4], kv_cache=state)
        state = out.kv_cache
        parts.append(model.logits(params, out.hidden_btd))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-6, atol=1e-6)


def test_packed_texts_do_not_see_each_other(rng):
    model, params = made(cell="gru")
    texts = [rng.integers(0, 31, n).astype(np.int32) for n in (5, 7)]
    positions = np.concatenate([np.arange(5), np.arange(7)])[None].astype(np.int32)
    packed = model.apply_fn(params, jnp.asarray(np.concatenate(texts))[None], positions=jnp.asarray(positions))
    alone = [model.apply_fn(params, text[None])[0] for text in texts]
    np.testing.assert_allclose(packed[0], np.concatenate(alone), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_generation_is_the_full_forward_token_by_token(cell, rng):
    model, params = made(cell=cell)
    prompts = [rng.integers(0, 31, n).tolist() for n in (3, 6)]
    options = {"max_new_tokens": 5, "sampling": SamplingConfig(temperature=0.0), "key": fold_key(0, Purpose.SAMPLE)}
    generate = jax.jit(lambda params, *prompts: generate_tokens(model, params, *prompts, **options))
    out = generate(params, *map(jnp.asarray, left_pad(prompts, 0)))
    full = jax.jit(model.apply_fn)
    for row, prompt in enumerate(prompts):
        text = prompt + np.asarray(out.tokens_bn[row]).tolist()
        padded = jnp.asarray([text + [0] * (12 - len(text))], jnp.int32)  # what follows a token does not reach it
        best = np.asarray(jnp.argmax(full(params, padded)[0], axis=-1))
        assert best[len(prompt) - 1 : len(text) - 1].tolist() == text[len(prompt) :]


def test_several_answers_to_a_prompt_go_on_from_one_state(rng):
    model, params = made(cell="lstm")
    once = left_pad([rng.integers(0, 31, n).tolist() for n in (3, 6)], 0)
    keys = jax.random.split(jax.random.key(0), 6)
    options = {"max_new_tokens": 4, "sampling": SamplingConfig(temperature=1.0), "key": keys}
    state = prefill(model, params, *map(jnp.asarray, once), num_answers=3, **options)
    repeated = prefill(model, params, *(jnp.asarray(part).repeat(3, axis=0) for part in once), **options)
    for found, wanted in zip(jax.tree.leaves(state.kv_cache), jax.tree.leaves(repeated.kv_cache), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_array_equal(state.token_b, repeated.token_b)


def test_dropout_has_one_mask_for_all_steps_and_none_without_a_key(rng):
    model, params = made(output_dropout=0.5)
    tokens = rng.integers(0, 31, (2, 9)).astype(np.int32)
    zero_btd = np.asarray(model.hidden(params, tokens, dropout_key=jax.random.key(1)).hidden_btd) == 0
    assert 0.2 < zero_btd.mean() < 0.8
    np.testing.assert_array_equal(zero_btd, np.broadcast_to(zero_btd[:, :1], zero_btd.shape))
    assert np.all(np.asarray(model.hidden(params, tokens)[0]) != 0)
    for rate in ("embed_dropout", "input_dropout", "hidden_dropout", "weight_dropout"):
        dropped = make_recurrent(dataclasses.replace(CONFIG, **{rate: 0.5}))
        hidden = jax.jit(lambda key, model=dropped: model.hidden(params, tokens, dropout_key=key).hidden_btd)
        one, two = hidden(jax.random.key(1)), hidden(jax.random.key(2))
        assert np.any(np.asarray(one) != np.asarray(two)), rate


def test_every_parameter_has_a_rule_and_is_counted():
    for changes in ({}, {"cell": "gru"}, {"tie_embeddings": False}, {"head_bias": False}):
        model, params = made(**changes)
        match_rules(RULES, params)
        counts = count_recurrent_params(model.config)
        assert counts.total == sum(leaf.size for leaf in jax.tree.leaves(params))
    # Input and recurrent kernels of both layers, biases, one table and the head's bias.
    assert count_recurrent_params(CONFIG).total == 12 * 80 + 20 * 80 + 80 + 20 * 48 + 12 * 48 + 48 + 31 * 12 + 31


def test_the_family_chooses_the_model():
    model = make_model(CONFIG)
    assert "layer_1/recurrent/kernel" in flatten_with_paths(jax.eval_shape(model.init, jax.random.key(0)))


@pytest.mark.parametrize("change", [{"cell": "elman"}, {"num_layers": 0}, {"weight_dropout": 1.0}, {"init_std": 0.0}])
def test_config_refuses(change):
    with pytest.raises(ValueError, match=rf"model\.{next(iter(change))}"):
        RecurrentConfig(**change)
