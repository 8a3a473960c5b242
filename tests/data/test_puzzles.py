"""The laboratory's puzzles: right by rules of their own, functions of (seed, cursor), and nothing held out is shown."""

import dataclasses
import itertools

import numpy as np
import pytest

from jaxlm.data.puzzles.arithmetic import ArithmeticConfig, draw_questions
from jaxlm.data.puzzles.arithmetic import spell as spell_sum
from jaxlm.data.puzzles.draws import draw_digits, held_out, supervised
from jaxlm.data.puzzles.instructions import (
    LETTERS,
    NUM_GIVEN,
    NUM_LETTERS,
    NUM_WORDS,
    ORDERS,
    InstructionsConfig,
    instruction_rows,
    spell,
    templates,
)
from jaxlm.data.puzzles.regressions import RegressionsConfig, regression_rows, ridge_guesses
from jaxlm.data.puzzles.repeats import RepeatsConfig, repeat_rows


def test_what_can_be_known_of_a_repeat_stood_behind_the_same_symbol_before():
    config = RepeatsConfig(num_symbols=16, seq_len=40, shortest=3, longest=9, leap=0.3)
    rows = repeat_rows(config, 0, 0, 200)
    assert 0.3 < rows["known"].mean() < 0.8
    lengths = set()
    for tokens, targets, known in zip(rows["tokens"], rows["targets"], rows["known"], strict=True):
        row = [*tokens.tolist(), int(targets[-1])]
        lengths.add(len(set(row)))
        behind: dict[int, int] = {}
        for place, (one, target) in enumerate(itertools.pairwise(row)):
            assert known[place] == (behind.get(one) == target), place
            behind.setdefault(one, target)
    assert lengths == set(range(3, 10))


def test_without_leaps_a_row_is_its_period_again_and_again():
    rows = repeat_rows(RepeatsConfig(num_symbols=8, seq_len=20, shortest=5, longest=5, leap=0.0), 0, 0, 50)
    np.testing.assert_array_equal(rows["tokens"][:, 5:], rows["tokens"][:, :-5])
    assert rows["known"][:, 5:].all()
    assert not rows["known"][:, :5].any()


def test_ridge_is_the_best_guess_and_least_squares_is_numpys():
    config = RegressionsConfig(dim=3, num_pairs=8, noise=0.3)
    rows = regression_rows(config, 0, 0, 4000)
    x_bni, y_bn = rows["x"], rows["y"]
    assert abs(float(y_bn.var()) - (1 + 0.3**2)) < 0.05
    np.testing.assert_allclose(ridge_guesses(x_bni, y_bn, 0.0)[:, 0], 0)
    for row, seen in ((0, 2), (1, 3), (2, 7)):
        w, *_ = np.linalg.lstsq(x_bni[row, :seen].astype(np.float64), y_bn[row, :seen].astype(np.float64))
        guess = ridge_guesses(x_bni[row : row + 1], y_bn[row : row + 1], 0.0)[0, seen]
        assert guess == pytest.approx(float(x_bni[row, seen] @ w), rel=1e-4)

    def error(penalty: float) -> float:
        return float(np.mean((ridge_guesses(x_bni, y_bn, penalty) - y_bn) ** 2))

    assert error(config.penalty) == min(error(factor * config.penalty) for factor in (0.3, 1.0, 3.0))


@pytest.mark.parametrize("kind", ["sum", "parity", "add", "multiply"])
def test_sums_are_right_and_so_are_their_steps(kind):
    length = {"sum": 8, "parity": 20}.get(kind, 3)
    drawn = draw_questions(ArithmeticConfig(kind, length), 0, 0, 50)
    for row in drawn.rows(with_steps=True):
        question, rest = spell_sum(row).split(":")
        steps, answer = rest.split("=")
        if kind in ("sum", "parity"):
            sums = itertools.accumulate(map(int, question))
            assert steps == "".join(str(total % (10 if kind == "sum" else 2)) for total in sums)
            assert answer == steps[-1]
        elif kind == "add":
            a, b = question.split("+")
            assert int(answer) == int(a) + int(b)
            assert steps[::2][::-1] == answer[1:]
            assert steps[-1] == answer[0]  # the last carry
        else:
            a, b = question.split("*")
            assert int(answer) == int(a) * int(b)
            at, total = 0, 0
            for shift, digit in enumerate(reversed(b)):
                digits_and_carries = steps[at : at + 2 * length]
                assert int(digits_and_carries[-1] + digits_and_carries[::2][::-1]) == int(a) * int(digit)
                at += 2 * length
                total += int(a) * int(digit) * 10**shift
                assert int(steps[at : at + length + shift + 1][::-1]) == total
                at += length + shift + 1
            assert at == len(steps)
    direct = drawn.rows(with_steps=False)
    assert spell_sum(direct[0]) == spell_sum(drawn.prompt(with_steps=False)[0]) + spell_sum(drawn.answer[0])


def test_batches_are_functions_of_seed_and_cursor():
    makers = (
        lambda seed, cursor: repeat_rows(RepeatsConfig(), seed, cursor, 4)["tokens"],
        lambda seed, cursor: regression_rows(RegressionsConfig(), seed, cursor, 4)["x"],
        lambda seed, cursor: draw_questions(ArithmeticConfig(), seed, cursor, 4).question,
        lambda seed, cursor: instruction_rows(InstructionsConfig(), seed, cursor, 4)[0],
    )
    for make in makers:
        np.testing.assert_array_equal(make(3, 5), make(3, 5))
        assert not np.array_equal(make(3, 5), make(3, 6))
        assert not np.array_equal(make(3, 5), make(4, 5))


def test_no_held_out_question_is_ever_learnt_from():
    config = ArithmeticConfig("sum", 3)
    learnt = {spell_sum(row) for cursor in range(40) for row in draw_questions(config, 0, cursor, 200).question}
    asked = {spell_sum(row) for row in draw_questions(config, 1, 0, 300, for_test=True).question}
    assert learnt.isdisjoint(asked)
    every = np.array(list(np.ndindex(10, 10, 10)))
    assert len(learnt) + held_out(every, 10).sum() == 1000  # all others are
    assert 40 < held_out(every, 10).sum() < 90
    digits = draw_digits(np.random.default_rng(0), 2, 20, 5000, for_test=False)
    assert abs(digits.mean() - 0.5) < 0.01


def test_templates_are_nested_diagonals_and_every_word_is_always_there():
    fewest, most = InstructionsConfig(8, 16), InstructionsConfig(48, 16)
    unseen = {tuple(pair) for pair in templates(most, 0, unseen=True)}
    assert unseen == {tuple(pair) for pair in templates(fewest, 0, unseen=True)}
    few, many = ({tuple(pair) for pair in templates(config, 0)} for config in (fewest, most))
    assert few < many
    assert many.isdisjoint(unseen)
    assert len(many | unseen) == NUM_WORDS**2
    for some in (few, unseen):
        assert {order for order, _ in some} == {letters for _, letters in some} == set(range(NUM_WORDS))


def test_instructions_are_followed_by_a_reading_of_their_words():
    assert all(sorted(letters) == list(range(NUM_LETTERS)) for letters in LETTERS.values())
    assert all(sorted(order) == list(range(6)) for order in ORDERS.values())
    rows, numbers = instruction_rows(InstructionsConfig(), 0, 0, 64, for_test=True)
    assert np.bincount(numbers).max() - np.bincount(numbers).min() <= 1
    for row in rows:
        words, answer = spell(row).split(" = ")
        order, letters, given = words.split(" ")
        assert answer == "".join(chr(ord("a") + LETTERS[letters][ord(given[i]) - ord("a")]) for i in ORDERS[order])
    learnt = set()
    for cursor in range(20):
        learnt |= {bytes(row[2:NUM_GIVEN]) for row in instruction_rows(InstructionsConfig(), 0, cursor, 200)[0]}
    assert learnt.isdisjoint({bytes(row[2:NUM_GIVEN]) for row in rows})


def test_only_the_end_of_a_row_is_learnt():
    batch = supervised(np.arange(12).reshape(2, 6), 4)
    np.testing.assert_array_equal(batch["tokens"][0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(batch["targets"][0][batch["loss_mask"][0] > 0], [4, 5])


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (RepeatsConfig(), {"shortest": 40}, "shortest=40"),
        (RepeatsConfig(), {"longest": 65}, "longest=65 is more than num_symbols=64"),
        (RepeatsConfig(), {"seq_len": 33}, "seq_len=33"),
        (RepeatsConfig(), {"leap": 1.0}, "leap=1.0"),
        (RegressionsConfig(), {"num_pairs": 3}, "num_pairs=3"),
        (RegressionsConfig(), {"noise": 0.0}, "noise=0.0"),
        (ArithmeticConfig(), {"length": 19}, "length=19 of kind='sum'"),
        (InstructionsConfig(), {"num_templates": 12}, "num_templates=12 is not a multiple of 8"),
        (InstructionsConfig(), {"num_templates": 56}, "are more than 64"),
    ],
)
def test_impossible_puzzles_are_refused_by_name(config, changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(config, **changes)
