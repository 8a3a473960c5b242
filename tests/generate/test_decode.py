"""Laws of decoding: the cache changes nothing, neighbours change nothing, stopping early changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.keys import Purpose, fold_key
from jaxlm.generate.decode import bucket_length, decode, generate_tokens, left_pad, prefill
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.decoder import DecoderConfig, make_decoder
from tests.drawn import drawn_params

VOCAB = 61
GREEDY = SamplingConfig(temperature=0)
SAMPLED = SamplingConfig(temperature=0.7, top_k=20, repetition_penalty=1.2)
PROMPTS = [[5, 9, 13, 2, 7, 30, 31, 8, 1], [40, 3], [17], [50, 51, 52, 53, 54]]
FORMS = {
    "mha": {},
    "gqa_windows": {"num_kv_heads": 2, "window_pattern": (4, None)},
    "learned_layernorm_unrolled": {"position": "learned", "norm": "layernorm", "mlp": "gelu", "scan_layers": False},
    "mqa_softcap": {"num_kv_heads": 1, "attn_softcap": 5.0, "logit_softcap": 10.0, "qk_norm": False},
}


@functools.cache
def tiny(form="mha"):
    config = DecoderConfig(
        vocab_size=VOCAB,
        max_seq_len=64,
        num_layers=2,
        model_dim=32,
        num_heads=4,
        mlp_dim=48,
        init_std=0.3,
        **FORMS[form],
    )
    model = make_decoder(config)
    return model, drawn_params(model)


STATIC = ("max_new_tokens", "sampling", "stop_ids", "pad_id")


@functools.cache
def jitted(form):
    return jax.jit(functools.partial(generate_tokens, tiny(form)[0]), static_argnames=STATIC)


def jitted_prefill():
    return jax.jit(functools.partial(prefill, tiny()[0]), static_argnames=STATIC)


def run(prompts, form="mha", n=10, sampling=GREEDY, key=None, **options):
    _, params = tiny(form)
    length = options.pop("length", 12)
    key = jnp.stack([fold_key(3, Purpose.SAMPLE, row) for row in range(len(prompts))]) if key is None else key
    out = jitted(form)(
        params, *left_pad(prompts, 0, length=length), max_new_tokens=n, sampling=sampling, key=key, **options
    )
    return jax.device_get(out)


@functools.cache
def forward(form):
    model, _ = tiny(form)
    return jax.jit(lambda params, tokens: jax.nn.log_softmax(model.apply_fn(params, tokens), axis=-1))


def full_forward_logprobs(form, prompt, completion):
    """Of the completion's tokens, and the most likely token at each of their places."""
    tokens = np.zeros((1, 32), np.int32)  # padded on the right, which a causal model cannot see
    tokens[0, : len(prompt) + len(completion)] = prompt + completion
    log_probs_tv = np.asarray(forward(form)(tiny(form)[1], tokens))[0]
    places = np.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return log_probs_tv[places, completion], log_probs_tv[places].argmax(-1)


@pytest.mark.parametrize("form", FORMS)
def test_greedy_is_the_full_forwards_argmax_and_logprobs_agree(form):
    out = run(PROMPTS, form)
    for row, prompt in enumerate(PROMPTS):
        logprobs, best = full_forward_logprobs(form, prompt, out.tokens_bn[row].tolist())
        np.testing.assert_array_equal(out.tokens_bn[row], best)
        np.testing.assert_allclose(out.logprobs_bn[row], logprobs, atol=1e-5)


def test_sampled_logprobs_are_the_full_forwards():
    out = run(PROMPTS, sampling=SAMPLED)
    for row, prompt in enumerate(PROMPTS):
        logprobs, _ = full_forward_logprobs("mha", prompt, out.tokens_bn[row].tolist())
        np.testing.assert_allclose(out.logprobs_bn[row], logprobs, atol=1e-5)


@pytest.mark.parametrize(("form", "sampling"), [("gqa_windows", GREEDY), ("mha", SAMPLED)])
def test_a_prompt_alone_and_in_a_batch_give_the_same(form, sampling):
    together = run(PROMPTS, form, sampling=sampling)
    for row, prompt in enumerate(PROMPTS):
        alone = run([prompt], form, sampling=sampling, key=fold_key(3, Purpose.SAMPLE, row)[None], length=16)
        np.testing.assert_array_equal(alone.tokens_bn[0], together.tokens_bn[row])
        np.testing.assert_allclose(alone.logprobs_bn[0], together.logprobs_bn[row], atol=1e-5)


def test_stop_tokens_end_a_row_and_all_rows_done_end_the_loop():
    free = run(PROMPTS)
    stop = int(free.tokens_bn[0, 3])
    out = run(PROMPTS, stop_ids=(stop, VOCAB - 1), pad_id=VOCAB - 2)
    for row in range(4):
        hits = [i for i, token in enumerate(free.tokens_bn[row].tolist()) if token in (stop, VOCAB - 1)]
        length = hits[0] + 1 if hits else 10
        assert out.lengths_b[row] == length
        assert out.stopped_b[row] == bool(hits)
        np.testing.assert_array_equal(out.tokens_bn[row, :length], free.tokens_bn[row, :length])
        assert (out.tokens_bn[row, length:] == VOCAB - 2).all()
        assert (out.logprobs_bn[row, length:] == 0).all()

    model, params = tiny()
    options = {"sampling": GREEDY, "stop_ids": (stop,)}
    state = jitted_prefill()(params, *left_pad(PROMPTS[:1], 0), max_new_tokens=10, key=jax.random.key(0), **options)
    state = jax.jit(lambda state: decode(model, params, state, until=10, **options))(state)
    assert state.num_sampled == out.lengths_b[0] < 10


def test_token_by_token_is_all_at_once():
    model, params = tiny()
    keys = jnp.stack([fold_key(3, Purpose.SAMPLE, row) for row in range(4)])
    state = jitted_prefill()(params, *left_pad(PROMPTS, 0, length=12), max_new_tokens=10, sampling=SAMPLED, key=keys)
    step = jax.jit(lambda state, until: decode(model, params, state, until=until, sampling=SAMPLED), donate_argnums=0)
    for until in range(2, 13):  # past max_new_tokens nothing is drawn
        state = step(state, until)
    np.testing.assert_array_equal(state.generated.tokens_bn, run(PROMPTS, sampling=SAMPLED).tokens_bn)


def test_rows_of_padding_are_done_from_the_start():
    out = run([PROMPTS[0], [], PROMPTS[2], []])
    assert out.lengths_b.tolist() == [10, 0, 10, 0]
    np.testing.assert_array_equal(out.tokens_bn[::2], run(PROMPTS).tokens_bn[::2])
    assert np.isfinite(out.logprobs_bn).all()


def test_one_token_needs_no_loop():
    assert run(PROMPTS, n=1).tokens_bn.shape == (4, 1)
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        run(PROMPTS, n=0)


def test_repetition_penalty_covers_prompt_and_completion():
    out = run(PROMPTS, n=10, sampling=SamplingConfig(temperature=0, repetition_penalty=1e6))
    for row, prompt in enumerate(PROMPTS):
        tokens = out.tokens_bn[row].tolist()
        assert len(set(tokens)) == 10
        assert not set(tokens) & set(prompt)


def test_left_pad():
    tokens, segments, positions = left_pad([[7, 8, 9], [5]], 0, multiple=4)
    assert tokens.tolist() == [[0, 7, 8, 9], [0, 0, 0, 5]]
    assert segments.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    assert positions.tolist() == [[0, 0, 1, 2], [0, 0, 0, 0]]
    assert {array.dtype for array in (tokens, segments, positions)} == {np.dtype(np.int32)}
    with pytest.raises(ValueError, match="length=2 is shorter than the longest prompt of 3"):
        left_pad([[7, 8, 9]], 0, length=2)


def test_buckets_waste_at_most_a_third():
    assert sorted({bucket_length(n) for n in range(1, 200)}) == [16, 24, 32, 48, 64, 96, 128, 192, 256]
    assert all(n <= bucket_length(n) < 1.5 * n + 1 for n in range(16, 5000))
