"""Conversations through packing and batches: masks by token, batch = f(seed, cursor), packed equals unpacked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataConfig, eval_batches, make_batch, train_plan
from jaxlm.data.conversations import ConversationSource, lay_out
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.text.chat.encoding import ChatFormat, EncodedChat
from jaxlm.text.chat.messages import Conversation, Message
from jaxlm.text.chat.templates import TEMPLATES
from jaxlm.train.objectives import causal_objective
from jaxlm.train.state import create_state
from jaxlm.train.step import make_train_step
from tests.drawn import drawn_params

SEQ_LEN = 64


def encoded(lengths, seed=0, vocab_size=50):
    rng = np.random.default_rng(seed)
    return [
        EncodedChat(rng.integers(1, vocab_size, n).astype(np.int32), (rng.random(n) < 0.6).astype(np.uint8))
        for n in lengths
    ]


@pytest.fixture(scope="module")
def chats():
    return encoded(np.random.default_rng(1).integers(3, SEQ_LEN, 40))


@pytest.fixture(scope="module")
def source(chats):
    return lay_out(chats, seq_len=SEQ_LEN).source


def test_rows_predict_exactly_the_counted_tokens(chats, source):
    config = DataConfig(seq_len=SEQ_LEN)
    found = []
    for batch in eval_batches(source, config, batch_size=4, pad_id=0):
        for row in range(4):
            segments = batch["segment_ids"][row]
            for segment in range(1, segments.max() + 1):
                here = segments == segment
                found.append(tuple(np.where(batch["loss_mask"][row], batch["targets"][row], -1)[here].tolist()))
            assert not batch["loss_mask"][row][segments == 0].any()
    wanted = [tuple(np.where(chat.loss_mask, chat.tokens, -1)[1:].tolist()) for chat in chats]
    assert sorted(found) == sorted(wanted)
    assert source.num_counted == sum(int(chat.loss_mask[1:].sum()) for chat in chats)


def test_a_batch_is_a_function_of_seed_and_number(source):
    config = DataConfig(seq_len=SEQ_LEN)
    plan = train_plan(source, config, global_batch_size=4, seed=7)
    again = train_plan(source, config, global_batch_size=4, seed=7)
    late = make_batch(source, again, again.row_ids(9), pad_id=0)
    batches = [make_batch(source, plan, plan.row_ids(i), pad_id=0) for i in range(10)]
    for name, array in batches[9].items():
        np.testing.assert_array_equal(array, late[name])
    halves = [make_batch(source, plan, plan.row_ids(9)[rows], pad_id=0) for rows in (slice(0, 2), slice(2, 4))]
    np.testing.assert_array_equal(np.concatenate([half["loss_mask"] for half in halves]), late["loss_mask"])
    other = train_plan(source, config, global_batch_size=4, seed=8)
    assert (other.row_ids(0) != plan.row_ids(0)).any()


def test_long_conversations_lose_their_end_and_hopeless_ones_are_left_out():
    late = EncodedChat(np.arange(1, 30, dtype=np.int32), np.repeat([0, 1], [20, 9]).astype(np.uint8))
    early = EncodedChat(np.arange(1, 30, dtype=np.int32), np.repeat([0, 1, 0], [3, 20, 6]).astype(np.uint8))
    laid = lay_out([late, early, late], seq_len=16)
    assert (laid.num_cut, laid.num_left_out) == (1, 2)
    assert laid.source.tokens.tolist() == list(range(1, 18))
    with pytest.raises(UserError, match="none of 2 conversations has an answer within seq_len=16"):
        lay_out([late, late], seq_len=16)
    with pytest.raises(ValueError, match="3 tokens, 2 of the mask"):
        ConversationSource(np.arange(3), np.arange(2), np.array([0, 3]))


# --- the model sees no difference


def decoder():
    config = DecoderConfig(
        vocab_size=50, num_layers=1, model_dim=32, num_heads=2, mlp_dim=64, max_seq_len=SEQ_LEN, compute_dtype="float32"
    )
    return make_decoder(config)


def loss_and_gradient(source, packing, rows, accum=1):
    """Of all conversations in one batch of ``rows`` rows, through the train step."""
    model = decoder()
    config = DataConfig(seq_len=SEQ_LEN, packing=packing)
    (batch,) = eval_batches(source, config, batch_size=rows, pad_id=0)
    tx = optax.sgd(1.0)
    step = make_train_step(causal_objective(model), tx, schedule=lambda step: 1.0, grad_accum_steps=accum)
    state = create_state(drawn_params(model), tx)
    after, metrics = jax.jit(step)(state, None, jax.tree.map(jnp.asarray, batch), jax.random.key(1))
    return metrics["loss"], jax.tree.map(jnp.subtract, state.params, after.params)


def same(a, b, rtol=1e-5):
    np.testing.assert_allclose(a[0], b[0], rtol=rtol)
    for x, y in zip(jax.tree.leaves(a[1]), jax.tree.leaves(b[1]), strict=True):
        assert np.linalg.norm(x - y) <= rtol * np.linalg.norm(y)


@pytest.fixture(scope="module")
def packed(source):
    return loss_and_gradient(source, "best_fit", 24)


def test_packed_equals_unpacked(source, packed):
    """40 conversations of unequal lengths: side by side in 24 rows, or each in a row of its own."""
    same(packed, loss_and_gradient(source, "none", 40))


def test_accumulation_over_8_parts_of_unequal_counts_equals_1(source, packed):
    same(loss_and_gradient(source, "best_fit", 24, accum=8), packed)


def test_a_conversation_cannot_see_its_neighbours(source):
    """Other words in every conversation but one leave that one's loss as it was, to the last bit."""
    model = decoder()
    params = drawn_params(model)
    (batch,) = eval_batches(source, DataConfig(seq_len=SEQ_LEN), batch_size=24, pad_id=0)
    row = int(np.argmax(batch["segment_ids"].max(1)))
    assert batch["segment_ids"][row].max() >= 2
    options = {name: jnp.asarray(batch[name][row : row + 1]) for name in ("segment_ids", "positions")}
    tokens = batch["tokens"][row : row + 1]
    changed = np.where(batch["segment_ids"][row] == 2, tokens, (tokens + 7) % 50)
    logits = [model.apply_fn(params, jnp.asarray(x), **options) for x in (tokens, changed)]
    own = np.flatnonzero(batch["segment_ids"][row] == 2)
    np.testing.assert_array_equal(logits[0][0, own], logits[1][0, own])
    assert (np.asarray(logits[0]) != np.asarray(logits[1])).any()


def test_from_messages_to_batches():
    form = ChatFormat(TEMPLATES["chatml"], ByteTokenizer())
    texts = [("One?", "Two."), ("A longer question, is it not?", "Yes."), ("x", "y")]
    conversations = [Conversation((Message("user", u), Message("assistant", a))) for u, a in texts]
    laid = lay_out(map(form.encode, conversations), seq_len=128)
    (batch,) = eval_batches(laid.source, DataConfig(seq_len=128), batch_size=2, pad_id=form.tokenizer.pad_id)
    said = batch["targets"][batch["loss_mask"] == 1]
    stop = form.tokenizer.special_tokens["<|im_end|>"]
    assert form.tokenizer.decode(said) == "Two.Yes.y"
    assert (said == stop).sum() == 3


def test_pretraining_rows_count_every_target_as_before(source):
    from jaxlm.data.rows import ArraySource

    plain = ArraySource(source.tokens, source.doc_offsets)
    for packing in ("best_fit", "none", "concat"):
        config = dataclasses.replace(DataConfig(seq_len=SEQ_LEN), packing=packing)
        for batch in eval_batches(plain, config, batch_size=8, pad_id=0):
            assert set(np.unique(batch["loss_mask"])) <= {0, 1}
        total = sum(b["loss_mask"].sum() for b in eval_batches(plain, config, batch_size=8, pad_id=0))
        documents = 1 if packing == "concat" else len(source.doc_offsets) - 1
        assert total == source.num_tokens - documents
