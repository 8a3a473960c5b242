"""Sums over batches, and scoring of sequences of any length."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.evals.perplexity import make_eval_step
from jaxlm.evals.scoring import plan_windows, score_sequences
from jaxlm.models.decoder import DecoderConfig, make_decoder
from tests.drawn import drawn_params

VOCAB = 23


@pytest.fixture(scope="module")
def tiny():
    model = make_decoder(DecoderConfig(vocab_size=VOCAB, max_seq_len=16, num_layers=1, model_dim=16, init_std=0.4))
    return model, drawn_params(model)


def test_eval_step_sums_counted_targets(tiny, rng):
    model, params = tiny
    tokens, targets = rng.integers(0, VOCAB, (2, 3, 8)).astype(np.int32)
    loss_mask = rng.integers(0, 2, (3, 8)).astype(np.float32)
    log_probs = np.asarray(jax.nn.log_softmax(jax.jit(model.apply_fn)(params, tokens), axis=-1))
    targets[0, 2] = log_probs[0, 2].argmax()
    loss_mask[0, 2] = 1
    nats = -np.take_along_axis(log_probs, targets[..., None], -1)[..., 0] * loss_mask
    correct = (log_probs.argmax(-1) == targets) * loss_mask
    batch = {"tokens": tokens, "targets": targets, "loss_mask": loss_mask}
    sums = jax.jit(make_eval_step(model))(params, batch)
    np.testing.assert_allclose(sums["nats"], nats.sum(), rtol=1e-5)
    assert (sums["tokens"], sums["correct"]) == (loss_mask.sum(), correct.sum())
    assert sums["correct"] >= 1
    rows = jax.jit(make_eval_step(model, per_row=True))(params, batch)
    np.testing.assert_allclose(rows["nats"], nats.sum(1), rtol=1e-5)
    np.testing.assert_array_equal(rows["tokens"], loss_mask.sum(1))
    chunked = jax.jit(make_eval_step(model, loss_chunk=3))(params, batch)
    jax.tree.map(lambda ours, whole: np.testing.assert_allclose(ours, whole, rtol=1e-6), chunked, sums)


def test_a_chunked_evaluation_holds_no_logits_of_a_whole_row(tiny):
    wide = make_decoder(dataclasses.replace(tiny[0].config, vocab_size=20_000, max_seq_len=64))
    batch = {name: jnp.ones((2, 64), jnp.int32) for name in ("tokens", "targets", "loss_mask")}
    held = []
    for chunk in (None, 8):
        step = jax.jit(make_eval_step(wide, loss_chunk=chunk))
        compiled = step.lower(jax.eval_shape(wide.init, jax.random.key(0)), batch).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        held.append(analysis.temp_size_in_bytes)
    assert held[0] > 2 * 64 * 20_000 * 4 > 3 * held[1]


def test_rows_that_are_all_padding_add_exactly_nothing(tiny):
    model, params = tiny
    zeros = jnp.zeros((2, 8), jnp.int32)
    batch = {
        "tokens": zeros,
        "targets": zeros,
        "loss_mask": jnp.zeros((2, 8)),
        "segment_ids": zeros,
        "positions": zeros,
    }
    assert {k: float(v) for k, v in jax.jit(make_eval_step(model))(params, batch).items()} == {
        "nats": 0.0,
        "tokens": 0.0,
        "correct": 0.0,
    }


@pytest.mark.parametrize(
    ("num_predictions", "context", "stride"), [(0, 4, 2), (1, 4, 2), (4, 4, 4), (37, 8, 3), (9, 8, 8)]
)
def test_windows_count_every_prediction_once(num_predictions, context, stride):
    counted = np.zeros(num_predictions, int)
    for window in plan_windows(num_predictions, context, stride):
        assert 0 <= window.start <= window.counted < window.end <= num_predictions
        assert window.end - window.start <= context
        assert window.start == 0 or window.counted - window.start >= context - stride
        counted[window.counted : window.end] += 1
    assert (counted == 1).all()


def test_a_stride_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="stride=9 must lie between 1 and the context of 8"):
        plan_windows(20, 8, 9)


def test_each_tokens_score_comes_from_its_own_window(rng):
    """A stand-in model whose log-probability spells out what it was asked: target, and the tokens it could see."""

    def logprob_fn(tokens_bt, targets_bt):
        assert tokens_bt.shape[0] * tokens_bt.shape[1] <= 64
        return -(targets_bt + np.cumsum(tokens_bt, axis=1) / 1000).astype(np.float32)

    sequences = [rng.integers(1, 9, n).astype(np.int32) for n in (1, 2, 5, 17, 40, 0, 33, 3, 3, 3)]
    for scores, sequence in zip(
        score_sequences(logprob_fn, sequences, context=16, tokens_per_batch=64), sequences, strict=True
    ):
        assert len(scores) == max(0, len(sequence) - 1)
        for window in plan_windows(len(sequence) - 1, 16, 8):
            for j in range(window.counted, window.end):
                expected = -(sequence[j + 1] + sequence[window.start : j + 1].sum() / 1000)
                assert scores[j] == pytest.approx(expected, rel=1e-5)
