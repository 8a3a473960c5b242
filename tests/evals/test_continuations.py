"""Continuations behind contexts: which tokens count, and what has no room. The model is a function of what it sees."""

from typing import Any

import numpy as np
import pytest

from jaxlm.evals.continuations import score_continuations, split_request


def _model(tokens_bt, targets_bt):
    """Says what it was asked: the target, and the sum of what it could see; its first choice is always token 5."""
    seen_bt = np.cumsum(tokens_bt, axis=1)
    return np.stack([-(targets_bt + seen_bt / 1000), targets_bt == 5], axis=-1).astype(np.float32)


def _encode(text):
    """Start symbol 1; a space goes to the word behind it, as in subword tokenizers."""
    words = text.replace(" ", " _").split(" ") if text else []
    return [1, *(2 + len(word) for word in words if word)]


@pytest.mark.parametrize(
    ("context", "continuation", "num_context", "num_continuation"),
    [
        ("ab cd", " e", 3, 1),
        ("ab cd ", "e", 3, 1),
        ("ab", " c d", 2, 2),
        ("", "ab cd", 1, 2),
        ("ab", "c", 1, 1),
        ("ab", "", 2, 0),
    ],
)
def test_the_continuation_is_what_goes_beyond_the_contexts_tokens(context, continuation, num_context, num_continuation):
    ids, start = split_request(context, continuation, _encode)
    assert ids == _encode(context + continuation)
    assert (start, len(ids) - start) == (num_context, num_continuation)


def test_only_the_continuation_counts_and_batches_change_nothing(rng):
    requests = []
    for _ in range(20):
        ids = rng.integers(1, 9, rng.integers(2, 15)).tolist()
        requests.append((ids, int(rng.integers(1, len(ids)))))
    requests += requests[:3]
    found = score_continuations(_model, requests, context=16, tokens_per_batch=32)
    for (ids, start), one in zip(requests, found, strict=True):
        expected = [-(ids[t] + sum(ids[:t]) / 1000) for t in range(start, len(ids))]
        np.testing.assert_allclose(one.logprobs, expected, rtol=1e-5)
        assert one.first_choice.tolist() == [token == 5 for token in ids[start:]]
        assert one.truncated == 0
        reply = one.reply("  é")
        assert reply.logprob == pytest.approx(sum(expected), rel=1e-5)
        assert (reply.num_tokens, reply.num_bytes) == (len(expected), 2)


def test_contexts_are_read_once_for_all_their_continuations(rng):
    """The stand-in says the target and the sum of what it sees: context, and continuation up to there."""
    batches = []

    def shared(contexts, continuations):
        count = len(continuations["tokens"]) // len(contexts["tokens"])
        batches.append((contexts["tokens"].shape, count))
        assert contexts["tokens"].size * count <= 400
        read = np.where(contexts["segment_ids"] > 0, contexts["tokens"], 0).sum(1).repeat(count)
        assert ((contexts["segment_ids"] > 0).sum(1).repeat(count) == continuations["positions"][:, 0]).all()
        seen = read[:, None] + np.cumsum(continuations["tokens"], axis=1)
        said = -(continuations["targets"] + seen / 1000)
        return np.stack([said, continuations["targets"] == 5], axis=-1).astype(np.float32)

    requests = []
    for length in (17, 20, 25, 5, 30, 20):
        context = rng.integers(1, 9, length).tolist()
        requests += [(context + rng.integers(1, 9, n).tolist(), length) for n in (1, 3, 6)]
    requests.append((rng.integers(1, 9, 45).tolist(), 40))  # has no room
    how: dict[str, Any] = {"context": 40, "tokens_per_batch": 64}
    found = score_continuations(_model, requests, shared_fn=shared, **how)
    for one, other in zip(found, score_continuations(_model, requests, **how), strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-5)
        assert (one.first_choice.tolist(), one.truncated) == (other.first_choice.tolist(), other.truncated)
    assert sum(rows for (rows, _), _ in batches) == 5  # of six contexts the short one is read whole
    assert found[-1].truncated == 4


def test_a_long_context_loses_its_first_tokens_and_a_long_continuation_none():
    ids = [1, 2, 3, 4, 5, 6, 7]
    (cut,) = score_continuations(_model, [(ids, 5)], context=4)
    assert cut.truncated == 2
    np.testing.assert_allclose(cut.logprobs, [-(6 + 12 / 1000), -(7 + 18 / 1000)], rtol=1e-5)  # 3 4 5, and 3 4 5 6
    (whole,) = score_continuations(_model, [(ids, 1)], context=4)
    assert (whole.truncated, len(whole.logprobs)) == (0, 6)
    (edge,) = score_continuations(_model, [(ids, 3)], context=4)
    assert (edge.truncated, len(edge.logprobs)) == (2, 4)
