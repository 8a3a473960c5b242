"""Outputs beside items: how they find each other, what is refused, and the figures of published outputs."""

import math

import pytest

from jaxlm.evals.grading import Output, compare, grade, pair_up, report, task_of_outputs
from jaxlm.evals.tasks.answers import Written
from jaxlm.evals.tasks.forms import FORMS
from jaxlm.evals.tasks.task import Item, Likelihood, Task
from jaxlm.evals.win_rates import win_rate
from jaxlm.io.eval_files.judgements import read_preferences
from jaxlm.io.eval_files.outputs import read_outputs
from jaxlm.io.eval_files.tasks import load_task
from tools import published_scores

ITEMS = (Item("m:0", "One and one?", "2"), Item("m:1", "Two and two?", "4"), Item("m:2", "One and one?", "2"))
TASK = Task("m", FORMS["multiarith"], ITEMS)


def _said(where, text, **facts):
    return Output(where, written=Written((text,)), **facts)


def test_outputs_find_their_items_by_name_or_question():
    outputs = [
        _said("a", "it is 2", question=" One  and one? "),
        _said("b", "it is 5", name="m:1", gold="4.0"),
        _said("c", "3", question="One and one?"),
    ]
    graded = grade(TASK, pair_up(TASK, outputs))
    assert [(one.item.name, one.answer, one.scores["accuracy"]) for one in graded] == [
        ("m:0", "2", 1.0),
        ("m:1", "5", 0.0),
        ("m:2", "3", 0.0),
    ]
    found = report(TASK, graded[:2])
    assert (found["accuracy"]["value"], found["num_missing"], found["majority"]) == (0.5, 1, pytest.approx(2 / 3))
    against = compare("accuracy", graded, [graded[1], graded[0]])
    assert (against["difference"], against["num_items"], against["p"]) == (0.0, 2, 1.0)


def test_systems_are_compared_group_by_group():
    items = tuple(Item(f"b:{i}", "", "g", ("g", "b"), 0, group="xy"[i % 2]) for i in range(8))
    task = Task("b", FORMS["blimp"], items)

    def system(right):
        logprobs = [(-1, -2) if right(i) else (-2, -1) for i in range(8)]
        return grade(
            task,
            [
                (item, Output("a", likelihoods=tuple(Likelihood(value, 1, 1, False) for value in pair)))
                for item, pair in zip(items, logprobs, strict=True)
            ],
        )

    found = compare("accuracy", system(lambda i: i % 2 == 0 or i < 4), system(lambda i: i % 2 == 0))
    assert found["difference"] == 0.25
    assert {name: one["difference"] for name, one in found["groups"].items()} == {"x": 0.0, "y": 0.5}
    assert found["groups"]["y"]["lower"] < 0.5 < found["groups"]["y"]["upper"]


@pytest.mark.parametrize(
    ("outputs", "match"),
    [
        ([_said("a", "2", name="m:9")], "a: 'm:9' is no item of task 'm'"),
        ([_said("a", "2", question="Who?")], "a: the question 'Who\\?' is no item"),
        ([_said("a", "2", name="m:0"), _said("b", "2", name="m:0")], "b answers m:0 again \\(first: a\\)"),
        ([_said("a", "2", name="m:0", gold="3")], "a holds '3' for right, m:0 has '2'"),
    ],
)
def test_outputs_of_other_items_are_refused(outputs, match):
    with pytest.raises(ValueError, match=match):
        pair_up(TASK, outputs)


def test_outputs_that_say_the_right_answers_need_no_files():
    outputs = [_said("a", "Yes.", gold="yes"), _said("b", "No. The answer is yes", gold="no")]
    task = task_of_outputs("coin_flip", FORMS["coin_flip"], outputs)
    found = report(
        task,
        grade(task, pair_up(task, [one._replace(name=i.name) for one, i in zip(outputs, task.items, strict=True)])),
    )
    assert (found["accuracy"]["value"], found["chance"]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="a says no gold answer"):
        task_of_outputs("coin_flip", FORMS["coin_flip"], [_said("a", "Yes.")])


def test_log_probabilities_are_graded_by_kind():
    pair = Task("blimp", FORMS["blimp"], (Item("b:0", "", "g", ("g", "b"), 0),))
    said = Output("a", "b:0", likelihoods=(Likelihood(-1, 1, 1, False), Likelihood(-2, 1, 1, False)))
    found = report(pair, grade(pair, pair_up(pair, [said])))
    assert found["accuracy"]["value"] == 1
    assert found["chance"] == 0.5
    with pytest.raises(ValueError, match="has 1 log-probabilities, b:0 asks for 2"):
        grade(pair, pair_up(pair, [said._replace(likelihoods=said.likelihoods[:1])]))
    with pytest.raises(ValueError, match="is scored by 'logprobs'"):
        grade(pair, pair_up(pair, [_said("a", "g", name="b:0")]))
    with pytest.raises(ValueError, match="a has log-probabilities: name the task's files"):
        task_of_outputs("blimp", FORMS["blimp"], [said])
    with pytest.raises(ValueError, match="some outputs are written"):
        grade(TASK, [(ITEMS[0], said), (ITEMS[1], _said("b", "2"))])
    with pytest.raises(ValueError, match="is answered in words"):
        grade(TASK, pair_up(TASK, [said._replace(name="m:0")]))


def test_draws_are_halves_and_what_was_not_judged_is_left_out():
    assert win_rate([2, 1, 0, None]).value == 0.5
    assert win_rate([1.75]).value == 0.75
    with pytest.raises(ValueError, match="preference 3 of pair 1"):
        win_rate([1, 3])
    with pytest.raises(ValueError, match="no pair"):
        win_rate([None])


def test_the_published_transcripts_give_the_published_accuracies(shared_data):
    for name, figures in published_scores.TRANSCRIPTS.items():
        task = load_task(name, shared_data)
        for how, figure in zip(("zero_shot", "zero_shot_cot"), figures, strict=True):
            outputs = read_outputs(shared_data / "reasoning" / "zero_shot_cot" / "log" / f"{name}_{how}.log.gz")
            found = report(task, grade(task, pair_up(task, outputs)))
            assert round(100 * found["accuracy"]["value"], 1) == figure
            assert found["num_missing"] == 0


def test_the_published_judgements_give_the_published_win_rates(shared_data):
    for name, figure in published_scores.JUDGED.items():
        path = shared_data / "preference" / "alpaca_eval" / f"{name}.annotations.json.gz"
        assert round(100 * win_rate(read_preferences(path)).value, 2) == figure


def test_codexs_outputs_give_the_recomputed_accuracies(shared_data):
    found = published_scores.bbh(shared_data)
    for how, figure in published_scores.BBH.items():
        assert math.isclose(round(found[how]["mean_of_printed"], 1), figure)
        assert len(found[how]["subtasks"]) == 18


def test_the_published_table_gives_the_published_averages(shared_data):
    found = published_scores.blimp(shared_data)
    assert found.pop("paradigms") == 45
    for one in found.values():
        assert round(one["mean_45"], 1) == one["published_45"]
        assert round(one["mean_67"], 1) == one["published_67"]
