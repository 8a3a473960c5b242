"""Constraints by a table: what keeps to each and what does not; strict and loose; IFEval's ids; prompts made up."""

import unicodedata

import pytest

from jaxlm.evals.grading import Output, grade, report
from jaxlm.evals.instructions.checks import CHECKS
from jaxlm.evals.instructions.grading import Constraint, kept, score, variants
from jaxlm.evals.instructions.ifeval import constraint_of
from jaxlm.evals.instructions.languages import detect, is_in
from jaxlm.evals.instructions.made_up import made_up
from jaxlm.evals.instructions.units import occurrences, sentences, words
from jaxlm.evals.tasks.answers import Written
from jaxlm.evals.tasks.forms import FORMS
from jaxlm.evals.tasks.task import Item, Task

TABLE = [
    # constraint, arguments, keeps, does not
    ("words", {"at_least": 3, "at_most": 4}, "It's a well-known fact.", "Two words."),
    ("words", {"exactly": 4}, "你好世界", "你好"),
    ("characters", {"at_most": 5}, " abcde ", "abcdef"),
    ("han_characters", {"exactly": 4}, "春眠，不觉 (spring)", "春眠不觉晓"),
    ("sentences", {"exactly": 3}, "Dr. Lee came at 3.5 p.m. yesterday. Who saw him? Nobody!", "One. Two."),
    ("sentences", {"at_most": 2}, "他来了。天黑了", "他来了。天黑了。雨停了！"),
    ("paragraphs", {"exactly": 2}, "a\n\nb\nc", "a\nb"),
    ("paragraphs", {"exactly": 2, "divider": "***"}, "a\n***\nb\n\nc", "a\n\nb"),
    ("lines", {"exactly": 2}, "a\n\nb", "a"),
    ("bullets", {"exactly": 2}, "So:\n* one\n- two", "* one\n**bold** is none"),
    ("bullets", {"exactly": 2}, "*第一点\n•第二点", "-\n-- two"),
    ("sections", {"marker": "SECTION", "at_least": 2}, "SECTION 1\na\nSECTION 2\nb", "SECTION one"),
    ("highlights", {"at_least": 2}, "*one* and **two**", "** and * are none"),
    ("placeholders", {"at_least": 2}, "[name] lives in [town]", "[] and [name]"),
    ("capital_words", {"at_most": 1}, "NASA flew", "NASA and ESA"),
    ("keyword_count", {"word": "cat", "exactly": 2}, "Cat, cats, cat.", "cat"),
    ("keyword_count", {"word": "cat", "exactly": 2, "within_words": True}, "Cat, cats", "cat"),
    ("keyword_count", {"word": "雪", "at_least": 2}, "雪下了，雪停了", "雪"),
    ("letter_count", {"letter": "e", "at_least": 3}, "Eeel", "eel"),
    ("keywords", {"words": ["wind", "风"]}, "The Wind, 大风", "windy 风"),
    ("forbidden", {"words": ["rain"]}, "The train came.", "Rain came."),
    ("order", {"phrases": ["first", "then"]}, "First this, then that", "then first"),
    ("sorted_lines", {}, "- ant\n- Bee\n- cat", "bee\nant"),
    ("json", {}, '```json\n{"a": [1]}\n```', '{"a": 1} is it'),
    ("title", {}, "<<A title>>\ntext", "<< >>\n<title>"),
    ("uppercase", {}, "ALL 3 OF IT", "ALL of it"),
    ("lowercase", {}, "all 3 of it", "All of it"),
    ("no_comma", {}, "one; two", "一，二"),
    ("quoted", {}, '"all of it"', '"some" of it'),
    ("quoted", {}, "「全部」", "「全部"),
    ("starts_with", {"phrase": "My friend"}, " my friend, hello", "Hello my friend"),
    ("ends_with", {"phrase": "That is all."}, 'So. "That is all."', "That is all. Bye"),
    ("paragraph_start", {"paragraph": 2, "word": "so", "of": 2}, "a\n\n**So** b", "a\n\nb so"),
    (
        "paragraph_start",
        {"paragraph": 1, "word": "首先", "of": 2},
        "首先，灯塔。\n\n其次，海。",
        "首席。\n\n首先，海。",
    ),
    ("postscript", {"marker": "P.S."}, "text\nP.S. more", "text, psst"),
    ("postscript", {"marker": "P.S."}, "text\n\n**P. S.** more", "text\nP.P.S. more"),
    ("postscript", {"marker": "附言"}, "海。\n附言再见", "再见"),
    ("postscript", {"marker": "***"}, "text\n*** more", "text"),
    ("postscript", {"marker": "P.P.S"}, "text\nP.P.S. more", "text\nP.S. more"),
    ("one_of", {"phrases": ["yes.", "no."]}, "I say no.", "I say maybe."),
    ("responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("language", {"language": "de"}, "Das ist nicht der Hund, den ich auf dem Bild sah.", "This is not the dog."),
    ("language", {"language": "zh-hans"}, "这是我们的书。", "這是我們的書。"),
    ("language", {"language": "zh-hant"}, "這是我們的書。", "这是我们的书。"),
]


@pytest.mark.parametrize(("name", "arguments", "keeps", "breaks"), TABLE)
def test_each_constraint_tells_what_keeps_to_it(name, arguments, keeps, breaks):
    constraint = Constraint(name, arguments)
    assert constraint.holds(keeps)
    assert not constraint.holds(breaks)
    assert not constraint.holds("  \n")


def test_the_table_has_every_constraint():
    assert {name for name, *_ in TABLE} == set(CHECKS)


def test_loose_grading_allows_for_what_stands_around_an_answer():
    said = 'Sure, here it is:\n{"a": 1}\nI hope that it helps!'
    assert kept([Constraint("json"), Constraint("no_comma"), Constraint("lowercase")], said) == [
        (False, True),
        (False, True),
        (False, True),
    ]
    assert kept([Constraint("ends_with", {"phrase": "the end"})], "This is **the end**") == [(False, True)]
    assert len(variants("one line")) == 8
    assert variants("a\n*b*\nc")[3::4] == ["*b*", "b"]
    for text in ("a\nb", "", "* x\n* y"):  # what is kept strictly is kept loosely
        for name, arguments, *_ in TABLE:
            ((strict, loose),) = kept([Constraint(name, arguments)], text)
            assert loose or not strict


LANGUAGE_TEXTS = {
    "en": "It is said that the king of the country was not at home.",
    "fr": "Le roi de ce pays n'est pas dans la maison avec nous.",
    "es": "El rey de este país no está en la casa con los otros.",
    "vi": "Đây là con mèo của tôi và nó không thích nước.",
    "sw": "Hii ni nyumba ya mtu na watoto wake katika mji.",
    "fi": "Se on hyvä, että hän oli siellä, mutta minä en ole.",
    "ru": "Это не то, что я видел, но он был с нами.",
    "bg": "Това е къщата, която се намира на брега и ще бъде наша.",
    "ar": "هذا هو البيت الذي كان في المدينة مع كل ذلك",
    "fa": "این کتاب را که برای شما است در خانه می خوانم و آن را",
    "ur": "یہ وہ گھر ہے جو شہر میں تھا اور اس نے کہا",
    "hi": "यह वह घर है जो शहर में था और उस ने कहा",
    "mr": "हे घर आहे आणि ते शहरात नाही",
    "ne": "यो घर हो र यसको लागि एक मानिस भएको छ",
    "bn": "এটা আমার বাড়ি", "kn": "ಇದು ನನ್ನ ಮನೆ", "pa": "ਇਹ ਮੇਰਾ ਘਰ ਹੈ", "ta": "இது என் வீடு", "ko": "이것은 나의 집이다",
    "th": "นี่คือบ้านของฉัน", "ja": "これは私の家です", "zh": "这是我的家", "te": "ఇది నా ఇల్లు", "gu": "આ મારું ઘર છે",
}  # fmt: skip


def test_languages_are_told_apart():
    assert {code: detect(text) for code, text in LANGUAGE_TEXTS.items()} == {code: code for code in LANGUAGE_TEXTS}
    assert detect("123, 456!") is None
    assert detect("猫猫猫猫 cat cat cat") is None
    assert not is_in("This is the house.", "zh-hans")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("wrods", {}, "'wrods' is unknown"),
        ("words", {}, "says no number"),
        ("words", {"at_least": -1}, "at_least=-1 is no whole number"),
        ("words", {"at_least": True}, "is no whole number"),
        ("words", {"atleast": 1}, "has no argument 'atleast'"),
        ("keywords", {"words": []}, "no list of texts"),
        ("keywords", {}, "lacks 'words'"),
        ("ends_with", {"phrase": ""}, "is empty"),
        ("language", {"language": "tlh"}, "'tlh' is none of"),
    ],
)
def test_bad_constraints_are_refused(name, arguments, says):
    with pytest.raises(ValueError, match=says):
        Constraint(name, arguments)


def test_ifevals_ids_become_constraints():
    made = constraint_of("length_constraints:number_words", {"num_words": 9, "relation": "less than", "other": None})
    assert made == Constraint("words", {"at_most": 8})
    assert constraint_of("keywords:existence", {"keywords": ["a"]}).holds("cat")
    with pytest.raises(ValueError, match="lacks 'num_words'"):
        constraint_of("length_constraints:number_words", {"relation": "at least"})
    with pytest.raises(ValueError, match="neither 'at least' nor"):
        constraint_of("length_constraints:number_words", {"relation": "about", "num_words": 9})
    with pytest.raises(ValueError, match="none of IFEval's 25"):
        constraint_of("x:y", {})


def test_made_up_prompts_are_the_same_each_time_and_have_many_constraints():
    items = made_up(200, seed=3)
    assert items == made_up(200, seed=3)
    assert items[:50] == made_up(50, seed=3)
    assert items != made_up(200, seed=4)
    assert len({one.name for item in items for one in item.constraints}) > 12
    assert {item.group for item in items} == {"en", "zh"}


def test_nothing_is_asked_to_follow_json():
    asked = [{one.name for one in item.constraints} for item in made_up(500)]
    assert any("json" in names for names in asked)
    assert not any({"json", "ends_with"} <= names for names in asked)


def test_a_task_of_instructions_is_graded():
    items = (
        Item("a", "Two words.", constraints=(Constraint("words", {"exactly": 2}), Constraint("lowercase"))),
        Item("b", "Anything.", constraints=(Constraint("no_comma"),)),
    )
    task = Task("instructions", FORMS["instructions"], items)
    outputs = [Output("x", written=Written(("Two words",))), Output("y", written=Written(("here:\nit is",)))]
    found = report(task, grade(task, list(zip(items, outputs, strict=True))))
    assert found["prompt_strict"]["value"] == 0.5
    assert found["instruction_strict"]["value"] == pytest.approx(2 / 3)
    assert found["constraints"]["words"] == {"num": 1} | {
        w: found["constraints"]["words"][w] for w in ("strict", "loose")
    }
    assert "majority" not in found
    with pytest.raises(ValueError, match="c has no constraints"):
        Task("instructions", FORMS["instructions"], (Item("c", "?"),))
    assert score(items[0].constraints, "")["prompt_loose"] == 0.0


def test_units():
    assert sentences("") == []
    assert sentences("Mr. A. B. Smith, e.g. him, came. Then") == ["Mr. A. B. Smith, e.g. him, came.", "Then"]
    assert words("a_b c") == ["a", "b", "c"]


def test_marks_go_on_their_word():
    hindi = "मैं हिन्दी में लिखता हूँ"
    assert words(hindi) == hindi.split()
    assert occurrences("दिल्ली बड़ी है", "दिल") == 0
    assert occurrences("दिल्ली बड़ी है", "दिल्ली") == 1
    decomposed = unicodedata.normalize("NFD", "café déjà vu")
    assert len(words(decomposed)) == len(words("café déjà vu")) == 3
