"""KTO from records to a loss: rows with mismatched answers, the equation, and what is refused."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.preferences import judged_rows
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Judged, Message
from jaxlm.text.chat.templates import TEMPLATES
from jaxlm.train.kto_objective import kto_objective
from jaxlm.train.preference_objectives import PairConfig, answer_logprobs, pair_objective
from tests.drawn import drawn_params

FORM = ChatFormat(TEMPLATES["chatml"], ByteTokenizer())


def judged(prompt, answer, good):
    return Judged((Message("user", prompt),), answer, good, where="f line 1")


RECORDS = [judged("a?", "yes", True), judged("a?", "no way", False), judged("b?", "b", True), judged("c?", "cc", False)]


@functools.cache
def decoder():
    sizes: dict[str, Any] = {"num_layers": 1, "model_dim": 16, "num_heads": 2, "mlp_dim": 16, "max_seq_len": 96}
    model = make_decoder(DecoderConfig(vocab_size=281, **sizes))
    return model, drawn_params(model)


def test_the_second_place_holds_the_answer_to_another_prompt():
    arrays = judged_rows(FORM, RECORDS, seq_len=60).arrays
    said = [
        [FORM.tokenizer.decode(t[m == 1]).strip() for t, m in zip(tokens, masks, strict=True)]
        for tokens, masks in zip(arrays["targets"], arrays["loss_mask"], strict=True)
    ]
    assert said == [["yes", "b"], ["no way", "b"], ["b", "cc"], ["cc", "yes"]]
    assert arrays["desirable"].tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(arrays["tokens"][0, 0, :20], arrays["tokens"][0, 1, :20])  # behind one prompt
    long = [judged("a?", "x" * 50, True), judged("b?", "y", False), judged("c?", "z", True)]
    made = judged_rows(FORM, long, seq_len=40)
    assert (made.num_answers_left_out, len(made.sources)) == (1, 2)


def test_what_is_refused_names_the_record():
    with pytest.raises(UserError, match=r"f line 1: the prompt has .* leaves no room"):
        judged_rows(FORM, RECORDS, seq_len=10)
    passed: list[UserError] = []
    with pytest.raises(UserError, match="none of 0 answers fits"):
        judged_rows(FORM, RECORDS, seq_len=10, on_bad=passed.append)
    assert len(passed) == 4
    with pytest.raises(UserError, match="all answers are to one prompt"):
        judged_rows(FORM, RECORDS[:2], seq_len=60)
    with pytest.raises(ValueError, match="use kto_objective"):
        pair_objective(decoder()[0], PairConfig("kto"))


def test_the_loss_is_the_published_one():
    model, params = decoder()
    batch = {name: jnp.asarray(array) for name, array in judged_rows(FORM, RECORDS, seq_len=60).arrays.items()}
    own = np.asarray(jax.jit(lambda p, b: answer_logprobs(model, p, b)[0])(params, batch), np.float64)
    ref = (own + np.random.default_rng(0).normal(size=own.shape) - 0.5).astype(np.float32)
    batch["ref_logprobs"] = jnp.asarray(ref)
    batch["answer_mask"] = batch["answer_mask"].at[3].set(0)  # a row of padding
    config = PairConfig("kto", beta=0.3, desirable_weight=1.5, undesirable_weight=0.7)
    objective = kto_objective(model, config)
    terms, _ = jax.jit(lambda p, b: objective.terms(p, None, None, b, jax.random.key(0)))(params, batch)
    ratio = own - ref
    point = max(ratio[:3, 1].mean(), 0.0)
    sign = np.array([1, -1, 1])
    weights = np.array([1.5, 0.7, 1.5])
    wanted = weights * (1 - 1 / (1 + np.exp(-sign * 0.3 * (ratio[:3, 0] - point))))
    np.testing.assert_allclose(terms["kto"].total, wanted.sum(), rtol=1e-4)
    np.testing.assert_allclose(terms["kl"].total / terms["kl"].count, point, rtol=1e-4)
    assert float(terms["accuracy"].total) == (sign * (ratio[:3, 0] - point) > 0).sum()
    assert {name: float(count) for name, count in objective.counts(batch).items()} == dict.fromkeys(terms, 3.0)
