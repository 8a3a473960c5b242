"""An encoder behind the handle: pseudo-log-likelihood by hand, filling, vectors, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers import CharTokenizer, train_tokenizer
from jaxlm.models.encoder import make_encoder
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.run.encoder_lm import EncoderLM
from jaxlm.text.tokenizer import TokenizerConfig
from tests.run.encoder_runs import make_encoder_run


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "run"
    model, params = make_encoder_run(path)
    lm = jaxlm.load(path)
    assert (lm.family, lm.step, lm.context) == ("encoder", 5, 32)
    log_probs = jax.jit(lambda tokens: jax.nn.log_softmax(model.apply_fn(params, tokens)))
    return lm, lambda ids: np.asarray(log_probs(jnp.asarray([ids], jnp.int32)))[0]


def test_pseudo_log_likelihood_masks_each_token_in_turn(opened):
    lm, log_probs = opened
    texts = ["to be", "or not to", ""]
    scores = lm.pseudo_log_likelihood(texts, batch_size=4)
    ids = lm.encode(texts[0])
    assert ids[0] == lm.tokenizer.bos_id
    assert ids[-1] == lm.tokenizer.eos_id
    expected = [log_probs([*ids[:i], lm.mask_id, *ids[i + 1 :]])[i, ids[i]] for i in range(1, len(ids) - 1)]
    np.testing.assert_allclose(scores[0].logprobs, expected, rtol=1e-4)
    assert scores[0].nats == pytest.approx(-sum(expected), rel=1e-4)
    assert [score.num_tokens for score in scores] == [5, 9, 0]
    assert all(score.bits_per_byte is None for score in scores)
    alone = lm.pseudo_log_likelihood(texts[1:2])[0]
    np.testing.assert_allclose(alone.logprobs, scores[1].logprobs, rtol=1e-4)


def test_fill_gives_the_likeliest_symbols_of_each_mask(opened):
    lm, log_probs = opened
    first, second = lm.fill("to <mask>e or<mask>not", top_k=3)
    ids = lm.encode("to <mask>e or<mask>not")
    at = [i for i, token in enumerate(ids) if token == lm.mask_id]
    for filled, place in zip((first, second), at, strict=True):
        found = log_probs(ids)[place]
        assert [f.token for f in filled] == np.argsort(-found)[:3].tolist()
        np.testing.assert_allclose([f.probability for f in filled], np.exp(np.sort(found)[::-1][:3]), rtol=1e-4)


def test_embed_is_the_mean_over_the_tokens_whatever_stands_beside(opened):
    lm, _ = opened
    both, alone = lm.embed(["to be", "a longer text here"]), lm.embed(["to be"])
    assert both.shape == (2, 16)
    np.testing.assert_allclose(both[0], alone[0], rtol=1e-4, atol=1e-5)
    assert np.any(lm.embed(["to be"], pooling="first") != alone)


def test_refusals(opened):
    lm, _ = opened
    for call, words in [
        (lambda: lm.score(["a"]), "pseudo_log_likelihood"),
        (lambda: lm.generate(["a"]), "cannot generate"),
        (lambda: lm.fill("no hole"), "holds no <mask>"),
        (lambda: lm.fill("<mask>", top_k=0), "top_k=0"),
        (lambda: lm.embed(["a" * 40]), "more than the context of 32"),
        (lambda: lm.embed("a"), "one string"),
        (lambda: lm.embed(["a"], pooling="max"), "pooling='max'"),
        (lambda: lm.embed(["a"], batch_size=0), "batch_size=0"),
        (lambda: lm.pseudo_log_likelihood(["a"], batch_size=-1), "batch_size=-1"),
        (lambda: EncoderLM(make_encoder(lm.config), {}, CharTokenizer("ab"), {}), "names no <mask>"),
    ]:
        with pytest.raises(UserError, match=words):
            call()


def test_the_space_before_a_mask_belongs_to_the_missing_word(repo):
    text = (repo / "docs" / "encoder.md").read_text()
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=400), [text])
    config = EncoderConfig(vocab_size=400, num_layers=1, model_dim=16, num_heads=2)
    lm = EncoderLM(make_encoder(config), {}, tokenizer, {})
    begin, end = [tokenizer.bos_id], [tokenizer.eos_id]
    expected = [*begin, *tokenizer.encode("the"), lm.mask_id, *tokenizer.encode(" of"), lm.mask_id, *end]
    assert lm.encode("the <mask> of<mask>") == expected
