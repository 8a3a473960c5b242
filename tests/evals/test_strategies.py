"""Prompts that strategies write, to a model that is a function of its prompt; and the published ones, to the byte."""

import gzip
import json

import pytest

from jaxlm.evals import strategies
from jaxlm.evals.extraction import cut_at
from jaxlm.evals.tasks.answers import Written, read_answer
from jaxlm.evals.tasks.forms import FORMS
from jaxlm.evals.tasks.task import Item, Task
from jaxlm.io.eval_files.tasks import load_task

SHOT = Item("m:shot", "One and two?", "3", solution="1 + 2 = 3. ")
TASK = Task("m", FORMS["multiarith"], (Item("m:0", "Two and two?", "4"), Item("m:1", "Six less one?", "5")), (SHOT,))


def _run(strategy, reply, task=TASK):
    rounds = []

    def generate(asks):
        rounds.append(asks)
        return [reply(ask) for ask in asks]

    return strategies.run(strategy, task, task.items, generate), rounds


def test_directly():
    outcomes, rounds = _run(strategies.direct(), lambda ask: " 4.")
    assert [ask.prompt for ask in rounds[0]] == [
        "Q: Two and two?\nA: The answer (arabic numerals) is",
        "Q: Six less one?\nA: The answer (arabic numerals) is",
    ]
    assert [read_answer(TASK.form, one.written) for one in outcomes] == ["4", "4"]
    _, rounds = _run(strategies.direct(1), lambda ask: " 4.")
    assert rounds[0][0].prompt == "Q: One and two?\nA: 3\n\nQ: Two and two?\nA:"


def test_by_steps_of_examples():
    outcomes, rounds = _run(strategies.chain_of_thought(1), lambda ask: " 2 + 2 = 4. The answer is 4. It was 3 before.")
    assert rounds[0][0].prompt == "Q: One and two?\nA: 1 + 2 = 3. The answer is 3.\n\nQ: Two and two?\nA:"
    assert read_answer(TASK.form, outcomes[0].written) == "4"
    with pytest.raises(ValueError, match="m:1 shows no steps"):
        _run(strategies.chain_of_thought(1), lambda ask: "", Task("m", TASK.form, TASK.items, TASK.items))


def test_in_two_stages():
    outcomes, rounds = _run(strategies.zero_shot_cot(), lambda ask: " 4" if "Therefore" in ask.prompt else " Two is 2.")
    assert len(rounds) == 2
    assert rounds[1][0].prompt == (
        "Q: Two and two?\nA: Let's think step by step. Two is 2. \nTherefore, the answer (arabic numerals) is"
    )
    assert read_answer(TASK.form, outcomes[0].written) == "4"
    assert [prompt for prompt, _ in outcomes[0].exchanges[0]] == [asks[0].prompt for asks in rounds]


def test_steps_may_have_paragraphs_where_answers_have_none():
    item = Item("mmlu/a:0", "Which?\nA. w\nB. x\nC. y\nD. z", "B", tuple("ABCD"), 1)
    steps = "\n\nFirst, not A.\n\nSo B."

    def reply(ask):
        return cut_at(" B" if "Therefore" in ask.prompt else steps, ask.stop)

    (outcome,), rounds = _run(strategies.zero_shot_cot(), reply, Task("mmlu", FORMS["mmlu"], (item,)))
    assert steps in rounds[1][0].prompt
    assert rounds[1][0].stop == ("\n\n",)
    assert read_answer(FORMS["mmlu"], outcome.written) == "B"


def test_a_vote_of_samples():
    strategy = strategies.self_consistency(strategies.zero_shot_cot(), 3, temperature=0.5)
    outcomes, rounds = _run(strategy, lambda ask: f" {4 + (ask.sample == 1)}")
    assert [(ask.sample, ask.temperature) for ask in rounds[1]] == [(0, 0.5), (1, 0.5), (2, 0.5)] * 2
    assert outcomes[0].written.texts == (" 4", " 5", " 4")
    assert read_answer(TASK.form, outcomes[0].written) == "4"


def test_a_vote_is_of_values():
    """36 and 36.0 are one answer, as they are where answers are compared with the right one."""
    texts = ("40", "36", "36.0", "40", "$36")
    assert read_answer(TASK.form, Written(texts, behind_cue=True)) == "36"


def test_smaller_questions_first():
    def reply(ask):
        if ask.prompt.endswith("1."):
            return " What is two?\n2. What is a sum?\nNothing else."
        return " 4" if ask.prompt.endswith("Q: Two and two?\nA:") else " It is so."

    outcomes, rounds = _run(strategies.least_to_most(), reply)
    assert len(rounds) == 4
    assert rounds[1][0].prompt == "Two and two?\n\nQ: What is two?\nA:"
    assert rounds[3][0].prompt == (
        "Two and two?\n\nQ: What is two?\nA: It is so.\n\nQ: What is a sum?\nA: It is so.\n\nQ: Two and two?\nA:"
    )
    assert read_answer(TASK.form, outcomes[0].written) == "4"
    _, rounds = _run(strategies.least_to_most(), lambda ask: " none")
    assert rounds[1][0].prompt == "Q: Two and two?\nA:"  # the model named no question


@pytest.mark.parametrize(
    ("how", "strategy"), [("direct", strategies.direct(3)), ("cot", strategies.chain_of_thought(3))]
)
def test_prompts_are_those_that_codex_was_given(shared_data, how, strategy):
    """All of BIG-Bench Hard's, but those whose recorded prompt or item differs from the published file."""
    task = load_task("bbh", shared_data / "icl")
    other = ("snarks", "tracking_shuffled_objects_three_objects") if how == "direct" else ()
    items = [item for item in task.items if item.group not in other and item.name != "bbh/snarks:88"]
    recorded = {}
    for path in (shared_data / "icl" / "bbh" / f"code-davinci-002-{how}").iterdir():
        with gzip.open(path) as file:
            for number, output in enumerate(json.load(file)["outputs"]):
                recorded[f"bbh/{path.name.partition('.')[0]}:{number}"] = output["input"]
    outcomes = strategies.run(strategy, task, items, lambda asks: [""] * len(asks))
    assert len(outcomes) == (3833 if how == "direct" else 4260)
    assert all(one.exchanges[0][0][0] == recorded[one.item.name] for one in outcomes)
