"""Prompts of labelled examples, and the choice of the likeliest continuation."""

import numpy as np

from jaxlm.evals.prompting import Template, choose, draw_shots


def test_a_prompt_ends_where_the_label_is_to_come():
    shots, template = [("one", "a"), ("two {x}", "b")], Template("{question}\nis:")
    assert template.prompt(shots, "three") == "one\nis: a\n\ntwo {x}\nis: b\n\nthree\nis:"
    assert template.prompt([], "three") == "three\nis:"
    assert template.prompt([], "three", instruction="Say.") == "Say.\n\nthree\nis:"


def test_shots_take_the_classes_in_turn_and_depend_on_the_seed_alone():
    labels = ["a"] * 20 + ["b"] * 20 + ["c"] * 2
    drawn = draw_shots(labels, 6, seed=0)
    assert sorted(labels[i] for i in drawn) == ["a", "a", "b", "b", "c", "c"]
    assert draw_shots(labels, 6, seed=0) == drawn != draw_shots(labels, 6, seed=1)
    assert sorted(draw_shots(labels, 100, seed=0)) == list(range(42))
    assert draw_shots(labels, 0, seed=0) == []
    classes = [tuple(labels[i] for i in draw_shots(labels, 3, seed)) for seed in range(20)]
    assert len(set(classes)) > 3  # not always in one order


def test_the_seed_says_which_classes_are_left_out_where_shots_are_fewer():
    labels = list("ABCDE") * 4
    drawn = [[labels[i] for i in draw_shots(labels, 7, seed)] for seed in range(200)]
    assert all(set(found) == set("ABCDE") for found in drawn)  # a whole turn first
    twice = "".join(name for found in drawn for name in "ABCDE" if found.count(name) == 2)
    assert all(50 < twice.count(name) < 110 for name in "ABCDE")  # of 200, 80 each


def test_the_likeliest_choice_is_taken_whatever_the_prompt_costs():
    cost = {"p a": 7.0, "p b": 5.0, "q a": 100.0, "q b": 101.0}
    found = choose(lambda texts: [cost[text] for text in texts], ["p", "q"], ["a", "b"])
    np.testing.assert_array_equal(found, [1, 0])
    assert choose(lambda texts: [], [], ["a", "b"]).shape == (0,)
