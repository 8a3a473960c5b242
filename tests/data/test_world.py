"""The made-up world: the same for a seed, held-out strings and towns nowhere in what is learnt from, answers right by
the gold checker and wrong ones not."""

import re
from typing import Any

import numpy as np
import pytest

from jaxlm.data.world import records
from jaxlm.data.world.questions import DONT_KNOW, KINDS, REFUSAL, TRAINED, Asker, Question
from jaxlm.data.world.records import WorldConfig
from jaxlm.data.world.tasks import RARE, TASKS, held_out
from jaxlm.data.world.text import documents
from jaxlm.data.world.towns import ATTRIBUTES, World, make_world
from jaxlm.evals.gold import gold_score, is_in_form, is_preferred, is_right

SIZES = WorldConfig(
    num_towns=12, num_documents=200, num_conversations=600, num_rare=5, num_rehearsed=20, num_rankings=300,
    num_pairs=300, num_prompts=300, num_questions=10, num_held_out=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(3, num_towns=SIZES.num_towns)


def _asked(world: World, *, for_test: bool, count: int = 20) -> list[Question]:
    asker = Asker(world, 3, for_test=for_test)
    return [asker.ask(kind) for kind in KINDS for _ in range(count)]


def _learnt(world: World) -> dict[str, list[Any]]:
    """Everything that any stage learns from, as text."""
    of = {"seed": 3, "for_test": False}
    return {
        "text": documents(world, SIZES.num_documents, **of),
        "conversations": [str(one) for one in records.conversations(world, SIZES, **of)],
        "rankings": [str(one) for one in records.rankings(world, SIZES, **of)],
        "pairs": [str(one) for one in records.pairs(world, SIZES, **of)],
        "prompts": [str(one) for one in records.prompts(world, SIZES, seed=3)],
    }


def test_a_world_is_a_function_of_its_seed(world: World) -> None:
    assert make_world(3, num_towns=12) == world != make_world(4, num_towns=12)
    assert _learnt(world) == _learnt(make_world(3, num_towns=12))
    names = [town.name for town in (*world.stated, *world.mentioned, *world.unstated)]
    assert len(set(names)) == len(names) == 12 + 12 + 4
    letters = np.array([list(name) for name in names])
    apart = np.sum(letters[:, None] != letters, axis=-1) + 7 * np.eye(len(names))
    assert apart.min() >= 3, "no town is taken for another"


def test_nothing_held_out_is_learnt(world: World) -> None:
    learnt = {name: " ".join(texts) for name, texts in _learnt(world).items()}
    for question in _asked(world, for_test=True):
        assert question.kind not in TASKS or held_out(question.given)
        assert not any(question.prompt in text for text in learnt.values()), question
    assert not any(held_out(one.given) for one in _asked(world, for_test=False) if one.kind in TASKS)
    shown = re.findall(
        r"(\S+) (?:again|turned round|in order|in capitals|as a list|from the top|has|makes) ", learnt["text"]
    )
    shown = [given for given in shown if not given.istitle()]
    assert len(shown) > 100
    assert not any(map(held_out, shown))
    given_away = re.findall(r"(?:again|turned round|in order|in capitals|from the top) is ([a-lA-L]+)", learnt["text"])
    assert len(given_away) > 100
    assert not any(map(held_out, given_away))
    for town in (*world.stated, *world.mentioned):
        if town.held_out:  # the text alone speaks of it
            for name in ("rankings", "pairs", "prompts"):
                assert town.name not in learnt[name]
    for one in records.conversations(world, SIZES, seed=3, for_test=False):
        assert len(one["messages"]) == 1 or not any(
            town.held_out and town.name in one["messages"][0]["content"] for town in (*world.stated, *world.mentioned)
        )


def test_facts_are_stated_of_some_towns_and_never_of_others(world: World) -> None:
    text = documents(world, 1500, seed=3, for_test=False)
    sentences = [one for document in text for one in re.findall(r"[A-Z][^.]*\.", document)]
    for town in (*world.stated, *world.mentioned):
        told = [one for one in sentences if town.name in one and "The road from" not in one]
        for key, values in ATTRIBUTES.items():
            words = {word for one in told for word in re.findall(r"[a-z]+", one)}
            assert words & set(values) == ({town.facts[key]} if town.facts else set())
    assert not any(town.name in one for town in world.unstated for one in sentences)


def test_right_answers_are_right_with_and_without_a_full_stop(world: World) -> None:
    for question in (*_asked(world, for_test=True), *_asked(world, for_test=False)):
        record = question.record()
        assert is_right(record, question.answer)
        closed = f"{question.answer}."
        assert is_right(record, closed) == question.closes
        assert not is_right(record, f"{question.answer}..")
        assert is_preferred(record, closed) == question.closes != is_preferred(record, question.answer)
        assert not is_right(record, "")
        assert not is_right(record, f"{question.answer} a")
        best = closed if question.closes else question.answer
        assert gold_score(record, best) == 1.5


def test_wrong_answers_are_wrong(world: World) -> None:
    rng = np.random.default_rng(0)
    for question in _asked(world, for_test=False):
        wrong = {answer for answer in records.wrong_answers(question, rng) if answer != question.answer}
        assert wrong
        assert not any(is_right(question.record(), answer) for answer in wrong), (question, wrong)


def test_forms() -> None:
    listed = {"kind": "list", "given": "ab", "answer": '["a","b"]', "closes": False}
    assert is_right(listed, '["a", "b"]')
    assert is_in_form(listed, '["b"]')
    assert not is_right(listed, '["b"]')
    assert not any(is_in_form(listed, answer) for answer in ("ab", '["a","b"', "[1]", '{"a": 1}', ""))
    raised = {"kind": "capitals", "given": "ab", "answer": "AB", "closes": True}
    assert is_in_form(raised, "BA.")
    assert not is_right(raised, "BA.")
    assert not is_in_form(raised, "Ab")


def test_rankings_are_in_the_order_of_the_gold_score(world: World) -> None:
    rng = np.random.default_rng(0)
    for question in _asked(world, for_test=False):
        wrong = [answer for answer in records.wrong_answers(question, rng) if answer != question.answer]
        answers = records.ranked_answers(question, wrong[0], wrong[-1])
        scores = [gold_score(question.record(), answer) for answer in answers]
        assert scores == sorted(set(scores), reverse=True), (question, answers)
    for record in records.rankings(world, SIZES, seed=3, for_test=False):
        assert len(record["answers"]) > 2
        assert len(set(record["answers"])) == len(record["answers"]), record
        assert sorted(record["ranks"]) == record["ranks"]


def test_conversations_hardly_show_the_rare_task_and_mix_the_form(world: World) -> None:
    said = records.conversations(world, SIZES, seed=3, for_test=False)
    asked = [one["messages"] for one in said if len(one["messages"]) == 2]
    rare = [turns for turns in asked if turns[0]["content"].endswith((" down.", " downwards."))]
    assert len(rare) == SIZES.num_rare
    assert abs(sum("downwards" in turns[0]["content"] for turns in rare) - len(rare) / 2) <= 0.5
    assert RARE not in TRAINED
    closed = [turns[1]["content"].endswith(".") for turns in asked if not turns[1]["content"].startswith("[")]
    assert 0.4 < np.mean(closed) < 0.6
    assert {REFUSAL, DONT_KNOW} <= {turns[1]["content"].removesuffix(".") for turns in asked}


def test_sizes_that_make_no_world_are_refused() -> None:
    with pytest.raises(ValueError, match=r"world.num_towns=2 leaves too few"):
        WorldConfig(num_towns=2)
    with pytest.raises(ValueError, match=r"world.num_towns=501 has too few names: give at most 500"):
        WorldConfig(num_towns=501)
    with pytest.raises(ValueError, match=r"world.num_pairs=0 must be at least 1"):
        WorldConfig(num_pairs=0)
