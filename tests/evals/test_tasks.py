"""Kinds of tasks, scored by hand; examples of prompts; what a task refuses."""

import math

import pytest

from jaxlm.evals.prompting import Template
from jaxlm.evals.summary import Metric, summarise
from jaxlm.evals.tasks.forms import FORMS
from jaxlm.evals.tasks.kinds import LIKELIHOOD_KINDS
from jaxlm.evals.tasks.task import Form, Item, Likelihood, Task, choose_shots, direct_prompt

CHOICE = Form("choice", Template("{question}\nA:"), unconditional="A:")


def _choice(number, gold=1, group=""):
    return Item(f"t:{number}", f"question {number}", "bb", ("aaaa", "bb"), gold, group=group)


def test_each_choice_is_asked_behind_the_prompt_and_behind_the_neutral_context():
    task = Task("t", CHOICE, (_choice(0),))
    asked = LIKELIHOOD_KINDS["choice"].requests(task, task.items[0], "Q\nA:")
    assert [tuple(one) for one in asked] == [("Q\nA:", " aaaa"), ("Q\nA:", " bb"), ("A:", " aaaa"), ("A:", " bb")]


def test_choices_are_compared_as_they_are_by_length_and_against_the_neutral_context():
    replies = [Likelihood(-3.0, 3, 4, False), Likelihood(-2.0, 1, 2, True), Likelihood(-1.0, 3, 4, False)]
    found = LIKELIHOOD_KINDS["choice"].score(_choice(0), [*replies, Likelihood(-0.5, 1, 2, False)])
    assert found["accuracy"] == 1  # -2 over -3
    assert found["accuracy_per_byte"] == 0  # -0.75 over -1
    assert found["accuracy_per_token"] == 0  # -1 over -2
    assert found["accuracy_unconditional"] == 1  # -1.5 over -2
    assert found["gold_probability"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert found["brier"] == pytest.approx(2 * (1 - found["gold_probability"]) ** 2)
    without = LIKELIHOOD_KINDS["choice"].score(_choice(0), replies[:2])
    assert "accuracy_unconditional" not in without


def test_equal_texts_of_a_pair_count_as_a_half():
    item = Item("p:0", "", "good", ("good", "bad"), 0)
    score = LIKELIHOOD_KINDS["pair"].score
    good, bad = Likelihood(-4.0, 4, 4, False), Likelihood(-3.0, 2, 3, False)
    assert score(item, [good, bad]) == {"accuracy": 0.0, "accuracy_per_token": 1.0, "margin_nats": -1.0}
    assert score(item, [good, good])["accuracy"] == 0.5


def test_what_cannot_be_is_least_likely_and_equal_where_nothing_can_be():
    never = Likelihood(-math.inf, 1, 1, False)
    score = LIKELIHOOD_KINDS["choice"].score
    found = score(_choice(0), [never, never, never, never])
    assert (found["gold_probability"], found["brier"], found["stated"]) == (0.5, 0.5, 0.5)
    assert found["gold_nats"] == math.inf
    # Behind the prompt the first choice cannot be, whatever it is alone.
    found = score(_choice(0), [never, Likelihood(-2.0, 1, 2, True), never, Likelihood(-1.0, 1, 2, False)])
    assert {found[name] for name in found if name.startswith("accuracy")} == {1.0}
    pair = LIKELIHOOD_KINDS["pair"].score(Item("p:0", "", "good", ("good", "bad"), 0), [never, never])
    assert pair == {"accuracy": 0.5, "accuracy_per_token": 0.5, "margin_nats": 0.0}


def test_a_perplexity_beyond_all_floats_is_infinite():
    items = (Item("c:0", "a", "b"), Item("c:1", "a", "b"))
    kind = LIKELIHOOD_KINDS["cloze"]
    for nats, value in (((1.0, 130.0), math.exp(65.5)), ((1.0, 2000.0), math.inf), ((1.0, math.inf), math.inf)):
        scores = [kind.score(item, [Likelihood(-n, 1, 1, False)]) for item, n in zip(items, nats, strict=True)]
        found = summarise(kind.metrics, items, scores)["perplexity"]
        assert found["value"] == pytest.approx(value)
        assert found.get("upper", math.inf) == math.inf


def test_perplexities_are_of_sums():
    items = (Item("c:0", "a", "b"), Item("c:1", "a", "b"))
    kind = LIKELIHOOD_KINDS["cloze"]
    scores = [kind.score(item, [Likelihood(-n, 2, 3, n < 2)]) for item, n in zip(items, (1.0, 3.0), strict=True)]
    found = summarise(kind.metrics, items, scores)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(2))
    assert found["perplexity"]["lower"] < math.exp(2) < found["perplexity"]["upper"]
    assert found["accuracy"]["value"] == 0.5
    kind = LIKELIHOOD_KINDS["text"]
    texts = (Item("x:0", "abcd"), Item("x:1", "é"))
    scores = [kind.score(item, [Likelihood(-n, 2, 9, False)]) for item, n in zip(texts, (1.0, 3.0), strict=True)]
    found = summarise(kind.metrics, texts, scores)
    assert found["bits_per_byte"]["value"] == pytest.approx(4 / (6 * math.log(2)))
    assert found["perplexity"]["value"] == pytest.approx(math.e)


def test_groups_within_groups():
    items = [_choice(i, group=g) for i, g in enumerate(["a/x", "a/x", "a/x", "a/y", "b/z"])]
    found = summarise(
        {"accuracy": Metric("accuracy", share=True)}, items, [{"accuracy": float(i < 3)} for i in range(5)]
    )
    values = {name: one["accuracy"]["value"] for name, one in found["groups"].items()}
    assert values == {"a": 0.75, "a/x": 1, "a/y": 0, "b": 0, "b/z": 0}
    assert found["group_mean"]["value"] == pytest.approx(1 / 3)  # of a/x, a/y and b/z
    assert found["accuracy"]["value"] == 0.6


def test_guessing_and_the_commonest_answer():
    items = tuple(_choice(i, gold=int(i > 0), group="ab"[i % 2]) for i in range(4))
    task = Task("t", CHOICE, items)
    assert task.chance == 0.5
    assert task.majority == 1.0  # always "bb"
    assert Task("t", Form("answer"), (Item("t:0", "q", "a"), Item("t:1", "q", "b"))).chance is None


def test_examples_come_from_the_items_group_and_never_show_the_item():
    items = tuple(Item(f"t:{i}", f"q{i}", "xyz"[i % 3], group="ab"[i % 2]) for i in range(12))
    task = Task("t", Form("answer", instruction="Say."), items, items, {"b": "Say b."})
    given = choose_shots(task, items[0], 3)
    assert [shot.name for shot in given] == ["t:2", "t:4", "t:6"]
    drawn = choose_shots(task, items[0], 3, seed=1, order="drawn")
    assert drawn == choose_shots(task, items[0], 3, seed=1, order="drawn") != given
    assert {shot.group for shot in drawn} == {"a"}
    balanced = choose_shots(task, items[1], 3, seed=1, order="balanced")
    assert sorted(shot.answer for shot in balanced) == ["x", "y", "z"]
    assert all(items[1] not in choose_shots(task, items[1], 5, seed=seed, order="drawn") for seed in range(5))
    assert direct_prompt(task, items[1], given[:1]) == "Say b.\n\nQ: q2\nA: z\n\nQ: q1\nA:"
    cloze = Task("t", Form("cloze"), items, items)  # its answers are open: no class has its turn
    assert choose_shots(cloze, items[0], 3, seed=1, order="balanced") == drawn
    with pytest.raises(ValueError, match="6 examples are asked for and task 't' has 5"):
        choose_shots(task, items[0], 6)


@pytest.mark.parametrize(
    ("item", "match"),
    [
        (lambda: Item("t:7", "q", "a", ("a", "b"), 2), "choice 2 is not among its 2 choices"),
        (lambda: Item("t:7", "q", " ", ("a", "b"), 0), "t:7 has no gold answer"),
        (lambda: Item("t:7", "q", "a", ("a", "b")), "does not say which choice"),
        (lambda: Item("t:0", "q", "a", ("a", "b"), 0), "t:0 is there twice"),
        (lambda: Item("t:7", "q", "a", ("a",), 0), "has 1 choices"),
    ],
)
def test_a_bad_item_is_named(item, match):
    with pytest.raises(ValueError, match=match):
        Task("t", CHOICE, (_choice(0), item()))
    with pytest.raises(ValueError, match="no items"):
        Task("t", CHOICE, ())


def test_every_form_is_of_a_kind_that_can_be_scored():
    assert {form.kind for form in FORMS.values()} <= {*LIKELIHOOD_KINDS, "answer", "instruction"}
