"""C4's page rules, FineWeb, repetition, bad words and language, at both sides of every threshold."""

import dataclasses

import pytest

from jaxlm.core.errors import UserError
from jaxlm.text.column import TextColumn
from jaxlm.text.rules.badwords import BadWords
from jaxlm.text.rules.c4 import C4Pages, sentences_n
from jaxlm.text.rules.fineweb import FineWeb
from jaxlm.text.rules.language import Language
from jaxlm.text.rules.repetition import Repetition


def reason(rule, text):
    verdicts = rule.judge(TextColumn(["first", text, "last"]))
    return "" if verdicts.reason_n[1] < 0 else verdicts.reasons[verdicts.reason_n[1]]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One. Two! Three? Four", 4),
        ("One.\nTwo\n\nThree.", 3),
        ("Mr. J. Smith of Acme Inc. paid 3.50 for it. So what?", 2),
        ('He said "No." and left. "Why?" she asked...', 4),
        ("version 1.2.3 of www.example.org", 1),
        ("一句话。两句话！三句话？", 3),
    ],
)
def test_sentences(text, count):
    assert sentences_n(TextColumn(["A. B", text, "x"])).tolist()[1] == count


def test_c4_pages():
    five = "This is one. This is two. And three. And four. And five."
    assert reason(C4Pages(), five) == ""
    assert reason(C4Pages(), five[: five.rindex("And five")]) == "fewer than 5 sentences"
    assert reason(C4Pages(), five + " Lorem Ipsum.") == "holds 'lorem ipsum'"
    assert reason(C4Pages(), five + " if (x) {") == "holds '{'"
    assert reason(C4Pages(min_sentences=0, forbidden=()), "") == ""
    for text, why in (("Ähnliche INHALTE", "holds 'Ähnliche Inhalte'"), ("ähnliche inhalte", "")):  # ASCII case alone
        assert reason(C4Pages(min_sentences=0, forbidden=("Ähnliche Inhalte",)), text) == why


FINEWEB_OFF = FineWeb(min_ended_lines=0.0, max_short_lines=1.0, max_repeated_chars=1.0, max_breaks=9.0)


@pytest.mark.parametrize(
    ("only", "kept", "removed", "why"),
    [
        ({"min_ended_lines": 0.12}, ["a"] * 22 + ["b."] * 3, ["a"] * 23 + ["b。"] * 3, "few lines end in punctuation"),
        ({"max_short_lines": 0.67}, ["x" * 30] * 67 + ["y" * 31] * 33, ["x" * 30] * 68 + ["y" * 31] * 32,
         "lines of at most 30 characters"),
        ({"max_repeated_chars": 0.01}, ["x", "x"] + ["y" * 98], ["x", "x"] + ["y" * 97],
         "characters in repeated lines"),
        ({"max_breaks": 0.3}, ["a b c d", "e f", "g h", "i j"], ["a b c d", "e f", "g h", "i"], "line breaks a word"),
    ],
)  # fmt: skip
def test_fineweb(only, kept, removed, why):
    rule = dataclasses.replace(FINEWEB_OFF, **only)
    assert reason(rule, "\n".join(kept)) == ""
    assert reason(rule, "\n".join(removed)) == why
    assert reason(rule, " \n") == "no text"


def test_repetition():
    rule = Repetition()
    words = " ".join(f"word{i}" for i in range(100))
    assert reason(rule, words + " " + "=" * 9) == ""
    assert reason(rule, "abcdefgh" * 10 + "=" * 20) == ""  # 0.2
    assert reason(rule, "abcdefgh" * 10 + "=" * 21) == "runs of 10 equal characters"
    assert reason(rule, "abc def " * 45 + "buy " * 11) == ""  # 10 echoes of 101 words
    assert reason(rule, "abc def " * 45 + "buy " * 12) == "words that echo the one before"
    few = Repetition(min_distinct=0.05)
    assert reason(few, " ".join(f"w{i % 10}" for i in range(200))) == ""
    assert reason(few, " ".join(f"w{i % 9}" for i in range(200))) == "few different words"
    assert reason(few, " ".join(f"w{i % 2}" for i in range(199))) == ""  # too short to be judged


def test_bad_words_are_whole_words_in_any_case():
    rule = BadWords(("ass", "Two Words", "坏"))
    for text in ("a class act", "two", "two\nword", "好"):
        assert reason(rule, text) == ""
    for text in ("an ASS.", "TWO words", "two  words", "很坏的", "(ass)"):
        assert reason(rule, text) == "bad words"
    assert reason(BadWords(("ass",), max_count=1), "ass") == ""
    assert reason(BadWords(("ass",), max_count=1), "ass ass") == "bad words"


def test_a_bad_word_has_the_case_of_letters_beyond_ascii_as_it_stands():
    rule = BadWords(("Дурак", "Été NOIR"))
    for text in ("он Дурак", "été noir", "an Été noir"):
        assert reason(rule, text) == ("bad words" if text != "été noir" else "")
    assert reason(rule, "он дурак") == ""


def test_bad_words_do_not_cross_texts():
    assert BadWords(("two words",)).judge(TextColumn(["two", "words"])).kept_n.all()


def test_bad_words_are_checked():
    with pytest.raises(ValueError, match="entry 1 of words is empty"):
        BadWords(("a", " "))
    with pytest.raises(ValueError, match="leave the rule out"):
        BadWords(())


SPOKEN = {
    "en": "The committee decided to publish the results of the survey before the end of the year.",
    "de": "Der Ausschuss beschloss, die Ergebnisse der Umfrage noch vor Ende des Jahres zu veröffentlichen.",
    "fr": "Le comité a décidé de publier les résultats de cette enquête avant la fin de l'année.",
    "zh": "委员会决定在年底之前公布这次调查的结果，并向公众说明情况。",
}


@pytest.mark.parametrize("code", SPOKEN)
def test_language(code):
    pytest.importorskip("lingua", reason="needs jaxlm[clean]")
    candidates = ("en", "de", "fr", "zh")
    assert Language((code,), candidates=candidates).detect(SPOKEN[code])[0] == code
    assert reason(Language((code,), candidates=candidates), SPOKEN[code]) == ""
    other = next(c for c in SPOKEN if c != code)
    assert reason(Language((other,), candidates=candidates), SPOKEN[code]) == f"not in {other}"
    assert reason(Language((code,), minimum=1.0, candidates=candidates), SPOKEN["en"][:12]) != ""
    assert reason(Language((code,), candidates=candidates), "1234 --- 5678") == "no language"


def test_language_is_checked():
    pytest.importorskip("lingua", reason="needs jaxlm[clean]")
    with pytest.raises(UserError, match="'xx'"):
        Language(("xx",)).detect("text")
    with pytest.raises(ValueError, match="allowed is empty"):
        Language(())
    with pytest.raises(ValueError, match="nothing to tell apart"):
        Language(("en",), candidates=("en",))
