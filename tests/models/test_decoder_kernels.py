"""A decoder on kernels for GPUs (in Pallas's interpreter) is the decoder on XLA's."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.train.objectives import causal_objective
from tests.drawn import drawn_params
from tests.quick import quick_ones

BASE = DecoderConfig(vocab_size=97, vocab_multiple=8, num_layers=2, model_dim=48, num_heads=4, max_seq_len=16)
FORMS = {
    "modern": {},
    "gpt2": {"norm": "layernorm", "bias": True, "mlp": "gelu_exact", "position": "learned", "qk_norm": False},
    "gemma": {"mlp": "geglu", "output_norms": True, "norm_offset": True, "tie_embeddings": False},
    "palm, muP": {"mlp": "relu2", "parallel_block": True, "norm_scale": False, "base_dim": 24},
    "recomputed": {"mlp": "gelu", "remat_policy": "dots", "scan_layers": False},
    "soft cap": {"logit_softcap": 5.0},
}


def loss_and_gradients(config, params, batch):
    objective = causal_objective(make_decoder(config), z_loss_coef=1e-2)

    def loss(params):
        terms, _ = objective.terms(params, None, None, batch, jax.random.key(0))
        return sum(term.total * term.weight for term in terms.values())

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize("form", quick_ones(FORMS, "gemma", "recomputed"))
def test_loss_and_gradients_are_those_of_xla(form):
    config = dataclasses.replace(BASE, **FORMS[form])
    params = drawn_params(make_decoder(config))
    tokens = jax.random.randint(jax.random.key(1), (3, 16), 0, 97)
    batch = {"tokens": tokens, "targets": jnp.roll(tokens, -1, 1), "loss_mask": (tokens > 20).astype(jnp.float32)}
    loss, grads = loss_and_gradients(dataclasses.replace(config, kernels="triton_interpret"), params, batch)
    expected, expected_grads = loss_and_gradients(config, params, batch)
    assert abs(loss - expected) < 1e-6 * abs(expected)
    largest = max(jnp.linalg.norm(grad) for grad in jax.tree.leaves(expected_grads))
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        # keys' biases move nothing: their gradient is rounding
        assert jnp.linalg.norm(got - want) < 2e-6 * jnp.linalg.norm(want) + 1e-7 * largest


def test_one_token_after_another():
    """Decoding, where a layer sees one token, against the whole text."""
    config = dataclasses.replace(BASE, kernels="triton_interpret")
    model = make_decoder(config)
    params, tokens = drawn_params(model), jax.random.randint(jax.random.key(1), (1, 6), 0, 97)
    whole = jax.jit(model.apply_fn)(params, tokens)

    @jax.jit
    def one(token, cache):
        hidden = model.hidden(params, token, kv_cache=cache)
        return model.logits(params, hidden.hidden_btd), hidden.kv_cache

    cache, outputs = model.init_cache(1, 8), []
    for i in range(6):
        logits, cache = one(tokens[:, i : i + 1], cache)
        outputs.append(logits)
    assert jnp.max(jnp.abs(jnp.concatenate(outputs, 1) - whole)) < 1e-5


def test_logits_are_rounded_where_the_config_says_so():
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, 97)
    config = dataclasses.replace(BASE, logits_dtype="bfloat16")
    params = drawn_params(make_decoder(config))
    logits = make_decoder(config).apply_fn(params, tokens)
    exact = make_decoder(BASE).apply_fn(params, tokens)
    assert logits.dtype == jnp.float32
    assert jnp.array_equal(logits, exact.astype(jnp.bfloat16).astype(jnp.float32))
