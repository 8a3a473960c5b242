"""The handle against the model itself, on run directories made by hand."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers import ByteTokenizer, train_tokenizer
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.handle import load
from jaxlm.text.tokenizer import TokenizerConfig

TEXT = "to be, or not to be: that is the question\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run):
    path = tmp_path_factory.mktemp("runs") / "byte"
    model, params = make_run(path)
    return path, model, params, load(path)


def test_load_gives_the_newest_parameters_on_one_device(run):
    path, _, params, lm = run
    assert (lm.step, lm.family, lm.context, lm.is_ema) == (7, "decoder", 32, False)
    assert load(path, step=3).step == 3
    jax.tree.map(np.testing.assert_array_equal, lm.params, params)
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(lm.params))


def test_ema_is_preferred_where_the_run_kept_it(run, tmp_path, make_run):
    _, params = make_run(tmp_path / "ema", ema=True)
    assert load(tmp_path / "ema").is_ema
    half = jax.tree.map(lambda p: p * 0.5, params)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "ema").params, half)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "ema", ema=False).params, params)
    with pytest.raises(UserError, match="holds no averaged parameters"):
        load(run[0], ema=True)


def test_logits_are_the_models(run):
    _, model, params, lm = run
    tokens = np.random.default_rng(0).integers(0, 256, (3, 11))
    out = lm.logits(tokens)
    assert out.dtype == np.float32
    assert out.shape == (3, 11, lm.config.vocab_size)
    np.testing.assert_allclose(out, model.apply_fn(params, jnp.asarray(tokens, jnp.int32)), atol=1e-5)
    for bad in (tokens[0], tokens * 1.0, tokens - 300, np.zeros((1, 33), int)):
        with pytest.raises(UserError, match="tokens"):
            lm.logits(bad)


def by_hand(lm, sequence):
    """-log p of each token but the first, the sequence at most one context long."""
    log_probs = jax.nn.log_softmax(lm.logits([sequence[:-1]])[0], axis=-1)
    return -np.asarray(log_probs)[np.arange(len(sequence) - 1), sequence[1:]]


def test_score_is_the_log_likelihood_given_bos(run):
    lm = run[-1]
    texts = ["to be", "天下", "", "not to be: that is the q"]
    for text, score in zip(texts, lm.score(texts), strict=True):
        ids = lm.tokenizer.encode(text)
        assert (score.num_tokens, score.num_bytes) == (len(ids), len(text.encode()))
        if text:
            nll = by_hand(lm, [lm.tokenizer.bos_id, *ids])
            np.testing.assert_allclose(score.nats, nll.sum(), rtol=1e-5)
            np.testing.assert_allclose(-score.logprobs, nll, atol=1e-4)
            assert score.bits_per_byte == pytest.approx(score.nats / math.log(2) / len(text.encode()))
    assert lm.score([""])[0].bits_per_byte is None


def test_a_long_text_is_scored_in_windows_each_token_once(run):
    lm = run[-1]
    ids = [lm.tokenizer.bos_id, *lm.tokenizer.encode(TEXT * 2)]
    expected = []
    while len(expected) < len(ids) - 1:  # the rule, written plainly: ends advance by half a context
        end = min(len(ids) - 1, len(expected) + (16 if expected else 32))
        nll = by_hand(lm, ids[max(0, end - 32) : end + 1])
        expected += nll[len(expected) - end :].tolist()
    (score,) = lm.score([TEXT * 2])
    assert score.num_tokens == len(expected) == len((TEXT * 2).encode())
    np.testing.assert_allclose(-score.logprobs, expected, atol=1e-4)
    # Every token sees more: the finest stride is at least as exact as a full forward of each prefix's last window.
    (finest,) = lm.score([TEXT], stride=1)
    np.testing.assert_allclose(-finest.logprobs[-1], by_hand(lm, ids[: len(TEXT) + 1][-33:])[-1], atol=1e-4)


def test_scores_do_not_depend_on_the_other_texts(run):
    lm = run[-1]
    texts = [TEXT[:n] for n in (5, 12, 42)]
    for text, score in zip(texts, lm.score(texts), strict=True):
        assert lm.score([text])[0].nats == pytest.approx(score.nats, rel=1e-5)


def test_generation_is_scored_as_it_was_drawn(run):
    lm = run[-1]
    (greedy,) = lm.generate(["to be"], max_new_tokens=8, temperature=0)
    ids = [lm.tokenizer.bos_id, *lm.tokenizer.encode("to be"), *greedy.tokens]
    np.testing.assert_allclose(-np.asarray(greedy.logprobs), by_hand(lm, ids)[5:], atol=1e-5)
    assert len(greedy.logprobs) == len(greedy.tokens) <= 8
    assert isinstance(greedy.text, str)


def test_generation_repeats_by_seed_and_ignores_neighbours_and_batching(run):
    lm = run[-1]
    options = {"max_new_tokens": 6, "temperature": 1.0, "num_samples": 2}
    prompts = ["to be", "or", "that is the"]
    first = lm.generate(prompts, seed=5, **options)
    assert [g.prompt for g in first] == [p for p in prompts for _ in range(2)]
    assert [g.tokens for g in lm.generate(prompts, seed=5, batch_size=2, **options)] == [g.tokens for g in first]
    assert [g.tokens for g in lm.generate(prompts[:1], seed=5, **options)] == [g.tokens for g in first[:2]]
    assert [g.tokens for g in lm.generate(prompts, seed=6, **options)] != [g.tokens for g in first]
    assert first[0].tokens != first[1].tokens


def test_stop_strings_cut_the_text(run):
    lm = run[-1]
    (free,) = lm.generate(["to be"], max_new_tokens=20, seed=2)
    stop = free.text[4:6]
    (cut,) = lm.generate(["to be"], max_new_tokens=20, seed=2, stop=[stop])
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish == "stop"
    assert cut.tokens == free.tokens[: len(cut.tokens)]
    assert len(cut.tokens) == len(cut.logprobs)


def test_a_reserved_symbol_stops_as_a_token(run):
    lm = run[-1]
    (free,) = lm.generate(["to be"], max_new_tokens=20, seed=2)
    tokenizer = ByteTokenizer()
    tokenizer.special_tokens["<|im_end|>"] = free.tokens[3]  # a model this raw never draws the real one
    again = CausalLM(run[1], lm.params, tokenizer, lm.run_config)
    (cut,) = again.generate(["to be"], max_new_tokens=20, seed=2, stop=["<|im_end|>"])
    count = free.tokens.index(free.tokens[3]) + 1
    assert (cut.tokens, cut.finish) == (free.tokens[:count], "stop")
    with pytest.raises(UserError, match="stop=''"):
        lm.generate(["to be"], stop=[""])


def test_int8_weights_score_and_write_nearly_the_same(run):
    path, _, params, lm = run
    small = load(path, weights="int8")
    kernels = {leaf.dtype for leaf in jax.tree.leaves(small.params["tail_0"]["mlp"]) if leaf.ndim == 2}
    assert kernels == {jnp.dtype(jnp.int8)}
    (exact,), (rough,) = lm.score([TEXT]), small.score([TEXT])
    assert rough.num_tokens == exact.num_tokens
    assert rough.nats != exact.nats
    np.testing.assert_allclose(rough.nats, exact.nats, rtol=0.02)
    (written,) = small.generate(["to be"], max_new_tokens=6, temperature=0)
    prompt = small.encode("to be")  # pyright: ignore[reportAttributeAccessIssue]
    logits = small.logits([prompt + written.tokens[:-1]])[0]
    assert logits[-6:].argmax(-1).tolist() == written.tokens
    jax.tree.map(np.testing.assert_array_equal, lm.params, params)


def test_unknown_weights_are_refused(run):
    with pytest.raises(UserError, match="weights='int4' is unknown: choose trained, int8, row"):
        load(run[0], weights="int4")  # pyright: ignore[reportArgumentType]


def test_streaming_says_what_generate_says(run):
    from jaxlm.generate.sampling import SamplingConfig

    lm = run[-1]
    (whole,) = lm.generate(["to be"], max_new_tokens=6, seed=4)
    pieces = list(lm.stream("to be", max_new_tokens=6, sampling=SamplingConfig(), seed=4))
    assert "".join(text for _, text in pieces) == whole.text
    assert [token for token, _ in pieces] == whole.tokens


def test_the_context_bounds_a_completion_unless_it_slides(run):
    lm = run[-1]
    with pytest.raises(UserError, match=r"prompts\[1\] has 43 tokens, more than the context of 32"):
        lm.generate(["a", TEXT], max_new_tokens=1)
    with pytest.raises(UserError, match=r"max_new_tokens=30 exceed the context of 32: ask for at most 26"):
        lm.generate(["to be"], max_new_tokens=30)
    with pytest.raises(UserError, match="context of 32: shorten the prompt"):
        lm.generate(["a" * 31], max_new_tokens=1)
    assert len(lm.generate(["a" * 30])[0].tokens) == 1  # the default asks for what is left
    alone = lm.generate(["to be"], max_new_tokens=50, slide=True)[0]
    both = lm.generate(["to be", TEXT], max_new_tokens=50, slide=True)
    assert both[0].tokens == alone.tokens
    assert all(len(g.tokens) == 50 or g.finish == "stop" for g in both)


@pytest.mark.parametrize("prompt_tokens", [25, 31, 43])
def test_a_prompt_loses_what_its_completion_needs_and_no_more(run, prompt_tokens, monkeypatch):
    lm = run[-1]
    monkeypatch.setattr(lm, "start_id", None)
    prompt = TEXT[:prompt_tokens].ljust(prompt_tokens, "x")
    how = {"max_new_tokens": 8, "temperature": 0.0}
    (cut,) = lm.generate([prompt], slide=True, **how)
    (fitting,) = lm.generate([prompt[-24:]], **how)
    assert cut.tokens == fitting.tokens
    assert (cut.truncated, fitting.truncated) == (prompt_tokens - 24, 0)
    (long,) = lm.generate([prompt], slide=True, max_new_tokens=20, temperature=0.0)
    assert long.truncated == (prompt_tokens if len(long.tokens) > 16 else prompt_tokens - 16)


def test_learned_positions_are_read_up_to_the_last(tmp_path, make_run):
    """No bucket of lengths takes a prompt, a context or a continuation that fits beyond them."""
    make_run(tmp_path / "run", seq_len=115, max_seq_len=115, position="learned")
    lm = load(tmp_path / "run")
    assert isinstance(lm, CausalLM)
    assert len(lm.generate(["a" * 110], max_new_tokens=4, temperature=0.0)[0].tokens) <= 4
    requests = [("a" * 110, "bcd"), ("a" * 17, "b" * 97)]
    for (context, continuation), reply in zip(requests, lm.likelihoods(requests), strict=True):
        (whole,) = lm.score([context + continuation])
        np.testing.assert_allclose(reply.token_logprobs, whole.logprobs[len(context) :], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": "to be"}, "pass a list"),
        ({"prompts": [3]}, r"prompts\[0\] is of type int"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"top_p": 2.0}, "top_p=2.0"),
    ],
)
def test_bad_options_are_named(run, options, message):
    with pytest.raises(UserError, match=message):
        run[-1].generate(**{"prompts": ["to be"]} | options)


def test_a_closed_tokenizer_without_start_symbol(tmp_path, make_run):
    make_run(tmp_path / "char", kind="char")
    lm = load(tmp_path / "char")
    (score,) = lm.score(["to be"])
    assert (score.num_tokens, score.num_bytes, score.bits_per_byte) == (4, 5, None)
    with pytest.raises(UserError, match="no start symbol"):
        lm.generate([""])


def test_without_bos_the_first_token_is_charged_at_even_odds(tmp_path, make_run):
    make_run(tmp_path / "run", data={"add_bos": False})
    lm = load(tmp_path / "run")
    (score,) = lm.score(["to be"])
    assert score.num_tokens == 4
    assert score.bits_per_byte == pytest.approx((score.nats + math.log(lm.config.vocab_size)) / math.log(2) / 5)
    make_run(tmp_path / "stream", data={"add_bos": False, "packing": "concat"})
    stream = load(tmp_path / "stream")
    assert isinstance(stream, CausalLM)
    assert stream.start_id == stream.tokenizer.eos_id
    assert stream.score(["to be"])[0].num_tokens == 5


def test_incomplete_run_directories_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        load(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tmp_path)
    record = json.loads((run[0] / "config.json").read_text())
    config = tmp_path / "config.json"
    other = record["config"]["model"] | {"family": "oracle"}
    config.write_text(json.dumps(record | {"config": record["config"] | {"model": other}}))
    with pytest.raises(UserError, match="family 'oracle'"):
        load(tmp_path)
    config.write_text(json.dumps(record))
    with pytest.raises(UserError, match="no tokenizer/"):
        load(tmp_path)
    train_tokenizer(TokenizerConfig(kind="byte"), [TEXT]).save(tmp_path / "tokenizer")
    with pytest.raises(UserError, match="no checkpoints/"):
        load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint in"):
        load(tmp_path)
    with pytest.raises(UserError, match="no checkpoint for step 4"):
        load(run[0], step=4)
    record["config"]["model"]["vocab_size"] = 100
    config.write_text(json.dumps(record))
    with pytest.raises(UserError, match="vocab_size=100 is less than the tokenizer's"):
        load(tmp_path)
