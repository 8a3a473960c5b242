"""A recipe: order, fates, and that a verdict never depends on the neighbours."""

import dataclasses

import numpy as np
import pytest

from jaxlm.text.column import TextColumn
from jaxlm.text.edits.boilerplate import DropBoilerplate
from jaxlm.text.edits.c4 import C4Lines
from jaxlm.text.edits.script import UnifyScript
from jaxlm.text.recipe import NOTHING_LEFT, clean
from jaxlm.text.rules import presets
from jaxlm.text.rules.badwords import BadWords
from jaxlm.text.rules.gopher import GopherQuality
from jaxlm.text.rules.language import Language
from jaxlm.text.steps import Edit, Rule, above, below, decide

RECIPES = {name: value for name, value in vars(presets).items() if name.isupper()}
PROSE = "The committee said that it would have to be seen. It met again on Monday with {} of its members. "
TEXTS = [
    "",
    " \n",
    "short",
    PROSE.format("nine") * 2,
    PROSE.format(7) * 9,
    "天地玄黄，宇宙洪荒。" * 3,
    "#" * 80,
    "a b c\n" * 30,
]
TEXTS += ["".join(PROSE.format(f"word{i * j}") for i in range(9)) for j in range(1, 9)]


def without_packages(recipe):
    """The steps that need no optional package."""
    return tuple(step for step in recipe if not isinstance(step, Language | UnifyScript))


@pytest.mark.parametrize("name", RECIPES)
def test_presets_are_recipes(name):
    recipe = RECIPES[name]
    names = [step.name for step in recipe]
    assert len(set(names)) == len(names)
    for step in recipe:
        assert dataclasses.is_dataclass(step)
        assert not isinstance(step, type)
        assert isinstance(step, Edit) != isinstance(step, Rule)
        assert hash(step) == hash(dataclasses.replace(step))


@pytest.mark.parametrize("name", RECIPES)
def test_a_fate_does_not_depend_on_the_batch(name):
    recipe = without_packages(RECIPES[name])
    together = clean(TEXTS, recipe)
    alone = [fate for text in TEXTS for fate in clean([text], recipe)]
    backwards = clean(TEXTS[::-1], recipe)[::-1]
    assert repr(together) == repr(alone) == repr(backwards)  # repr: nan equals itself


@pytest.mark.parametrize("name", RECIPES)
def test_rules_judge_alone_as_in_a_batch(name):
    for step in without_packages(RECIPES[name]):
        if isinstance(step, Rule):
            whole = step.judge(TextColumn(TEXTS))
            for i, text in enumerate(TEXTS):
                one = step.judge(TextColumn([text]))
                assert one.reason_n[0] == whole.reason_n[i]
                np.testing.assert_array_equal(one.value_n[0], whole.value_n[i])


def test_fates():
    recipe = (C4Lines(min_words=1), BadWords(("bad",)), GopherQuality(min_words=3, min_stop_words=0))
    lost, bad, few, kept = clean(["no mark", "Bad.", "It is. \nmenu", "One two three."], recipe)
    assert (lost.text, lost.step, lost.reason, lost.changes) == ("", 0, NOTHING_LEFT, (1, 0, 0))
    assert (bad.text, bad.step, bad.reason, bad.value) == ("Bad.", 1, "bad words", 1.0)
    assert (few.text, few.step, few.reason, few.value, few.changes) == (
        "It is.", 2, "fewer than 3 words", 2.0, (1, 0, 0),
    )  # fmt: skip
    assert (kept.text, kept.step, kept.reason, kept.changes) == ("One two three.", -1, "", (0, 0, 0))


def test_what_is_no_step_is_refused():
    with pytest.raises(TypeError, match="step 1"):
        clean(["a"], (DropBoilerplate(), "gopher"))  # pyright: ignore[reportArgumentType]


def test_the_first_check_that_fails_counts():
    value = np.array([1.0, 5.0, 9.0, np.nan])
    verdicts = decide([below("low", value, 3), above("high", value, 4)])
    assert verdicts.reason_n.tolist() == [0, 1, 1, -1]
    np.testing.assert_array_equal(verdicts.value_n, np.array([1, 5, 9, np.nan], np.float32))
    assert verdicts.kept_n.tolist() == [False, False, False, True]
