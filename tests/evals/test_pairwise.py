"""Pairs: order, ties, swaps; rates at equal length: laws, simulated judges, and published judgements."""

import numpy as np
import pytest

from jaxlm.evals.length_controlled import length_controlled
from jaxlm.evals.pairwise import Pair, by_scores, by_writing, read_verdict, report
from jaxlm.io.eval_files.judgements import as_share, read_annotations

PAIRS = [Pair(f"p{i}", f"say {i} {{first}}", "x" * (i + 1), "yy") for i in range(6)]


def _judge(choose):
    """A judge of prompts: ``choose(first, second)`` gives its letter."""

    def generate(asks):
        texts = []
        for ask in asks:
            first = ask.prompt.split("Answer A: ")[1].split("\n")[0]
            second = ask.prompt.split("Answer B: ")[1].split("\n")[0]
            texts.append(choose(first, second))
        return texts

    return generate


def test_numbers_decide_with_a_margin():
    found = by_scores([1.0, 2.0, 0.95, 3.0], [0.5, 2.0, 1.0, 4.0], margin=0.1)
    assert [one.preference for one in found] == [1.0, 0.5, 0.5, 0.0]
    summary = report(found)
    assert (summary.wins, summary.draws, summary.losses, summary.win_rate.value) == (1, 2, 1, 0.5)
    assert summary.consistent is None
    with pytest.raises(ValueError, match="one finite number"):
        by_scores([1.0], [np.nan])


def test_a_judge_that_means_it_is_heard_and_one_that_likes_a_place_is_not():
    longer = by_writing(PAIRS, _judge(lambda a, b: "A" if len(a) > len(b) else "B" if len(b) > len(a) else "C"))
    assert [one.preference for one in longer] == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    summary = report(longer)
    assert summary.consistent is not None
    assert summary.first_place is not None
    assert (summary.consistent.value, summary.first_place.value) == (1.0, 0.5)
    place = report(by_writing(PAIRS, _judge(lambda a, b: "A")))
    assert place.consistent is not None
    assert place.first_place is not None
    assert (place.win_rate.value, place.consistent.value, place.first_place.value) == (0.5, 0.0, 1.0)
    # Swapping the systems turns every preference round.
    swapped = [pair._replace(answer=pair.reference, reference=pair.answer) for pair in PAIRS]
    back = by_writing(swapped, _judge(lambda a, b: "A" if len(a) > len(b) else "B" if len(b) > len(a) else "C"))
    assert [1 - (one.preference or 0.0) for one in back] == [one.preference for one in longer]


def test_what_cannot_be_read_is_counted():
    found = by_writing(PAIRS, _judge(lambda a, b: "B" if len(a) == 1 else "well"))
    assert [one.preference for one in found] == [0.5] + [None] * 5
    assert report(found).num_unjudged == 5
    with pytest.raises(ValueError, match="no pair was judged"):
        report(found[1:])
    assert [read_verdict(text) for text in (" B.", "(C)", "Answer A is better", "a")] == [0.0, 0.5, 1.0, None]


def _simulated(seed, *, skill, liking, more, count=600):
    """A judge whose log-odds are the skill and a liking for length; the model writes ``more`` characters on average."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(100, 900, count).astype(float)
    own = np.maximum(reference + more + 200 * rng.standard_normal(count), 5)
    apart = own - reference
    p = 1 / (1 + np.exp(-(skill + liking * np.tanh(apart / apart.std()))))
    return (rng.random(count) < p).astype(float), own, reference


def test_a_liking_for_length_is_taken_out():
    plain, controlled = [], []
    for seed in range(8):
        won, own, reference = _simulated(seed, skill=0.0, liking=2.0, more=200)
        found = length_controlled(won.tolist(), own, reference, draws=20)
        plain.append(found.raw)
        controlled.append(found.rate.value)
    assert np.mean(plain) > 0.7
    assert abs(np.mean(controlled) - 0.5) < 0.04


def test_without_such_a_liking_nothing_changes_and_the_interval_is_that_of_the_items():
    held = []
    for seed in range(12):
        won, own, reference = _simulated(seed, skill=0.85, liking=0.0, more=100)
        found = length_controlled(won.tolist(), own, reference, draws=100)
        assert abs(found.rate.value - found.raw) < 0.06
        held.append(found.rate.lower <= 1 / (1 + np.exp(-0.85)) <= found.rate.upper)
    assert sum(held) >= 10


def test_swapping_the_two_turns_the_rate_round():
    won, own, reference = _simulated(0, skill=0.4, liking=1.0, more=100)
    one = length_controlled(won.tolist(), own, reference, draws=2)
    other = length_controlled((1 - won).tolist(), reference, own, draws=2)
    assert one.rate.value == pytest.approx(1 - other.rate.value)
    assert one.length_effect == pytest.approx(other.length_effect)
    same = length_controlled([0.5] * 20, own[:20], own[:20], draws=2)
    assert same.rate.value == pytest.approx(0.5)


def test_hard_instructions_are_allowed_for_and_bad_input_refused():
    won, own, reference = _simulated(0, skill=0.4, liking=1.0, more=100)
    hard = np.random.default_rng(1).standard_normal(len(won))
    with_it = length_controlled(won.tolist(), own, reference, difficulty=hard, draws=2)
    without = length_controlled(won.tolist(), own, reference, draws=2)
    assert with_it.rate.value == pytest.approx(without.rate.value, abs=0.02)
    with pytest.raises(ValueError, match="9 judged pairs"):
        length_controlled([None, *won[:9].tolist()], own[:10], reference[:10])
    with pytest.raises(ValueError, match="one of each a pair"):
        length_controlled(won.tolist(), own[:5], reference)
    with pytest.raises(ValueError, match=r"give 0 \.\. 1"):
        length_controlled([2.0] * 10, own[:10], reference[:10])
    assert [as_share(one) for one in (None, 0, 1, 1.25, 2)] == [None, 0.5, 0, 0.25, 1]
    with pytest.raises(ValueError, match="neither 0"):
        as_share(0.5)


def test_published_judgements_at_equal_length(shared_data):
    rates = {}
    for name in ("text_davinci_001", "claude"):
        read = read_annotations(shared_data / "preference" / "alpaca_eval" / f"{name}.annotations.json.gz")
        lengths = [[one.length or 0 for one in read], [one.reference_length or 0 for one in read]]
        rates[name] = length_controlled([as_share(one.preference) for one in read], *lengths, draws=2)
    # Short answers lost by their shortness, long ones won by their length.
    assert rates["text_davinci_001"].rate.value > rates["text_davinci_001"].raw + 0.03
    assert rates["claude"].rate.value < rates["claude"].raw - 0.05
    assert rates["text_davinci_001"].num_unjudged == 1
