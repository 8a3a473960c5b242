"""The Chinese rules at both sides of every threshold, and what they say of real verse."""

import dataclasses
import gzip
import json

import pytest

from jaxlm.text.column import TextColumn
from jaxlm.text.rules.chinese import ChineseQuality, ChineseRepetition
from jaxlm.text.rules.presets import POETRY
from jaxlm.text.steps import Rule

OFF = ChineseQuality(
    min_chars=0, min_han=0.0, min_punctuation=0.0, max_punctuation=1.0, max_latin=1.0, max_digits=1.0, max_symbols=1.0
)


def reason(rule, text):
    verdicts = rule.judge(TextColumn(["甲", text, "a"]))
    return "" if verdicts.reason_n[1] < 0 else verdicts.reasons[verdicts.reason_n[1]]


@pytest.mark.parametrize(
    ("only", "kept", "removed", "why"),
    [
        ({"min_chars": 50}, "天 " * 50, "天\u3000" * 49, "fewer than 50 characters"),
        ({"max_chars": 60}, "天" * 60, "天" * 61, "more than 60 characters"),
        ({"min_han": 0.5}, "天" * 5 + "abcde", "天" * 5 + "abcdef", "little Han"),
        ({"max_latin": 0.3}, "天" * 7 + "abc", "天" * 7 + "abcd", "much Latin"),
        ({"max_digits": 0.2}, "天" * 8 + "12", "天" * 8 + "１２3", "many digits"),
        ({"max_symbols": 0.1}, "天" * 9 + "★", "天" * 9 + "★=", "many symbols"),
        ({"min_punctuation": 0.01}, "天" * 99 + "。", "天" * 100 + "。", "little punctuation"),
        ({"max_punctuation": 0.3}, "天" * 7 + "，。！", "天" * 7 + "，。！？", "much punctuation"),
    ],
)
def test_quality_at_its_thresholds(only, kept, removed, why):
    rule = dataclasses.replace(OFF, **only)
    assert reason(rule, kept) == ""
    assert reason(rule, removed) == why


def han(count, start=0):
    """Different Han characters."""
    return "".join(chr(0x4E00 + start + i) for i in range(count))


@pytest.mark.parametrize(("order", "limit"), ChineseRepetition().repeated)
def test_repeated_runs_at_their_threshold(order, limit):
    rule = ChineseRepetition(1.0, 1.0, (), ((order, limit),))
    for filler in range(1, 250, 3):
        text = han(order) + han(filler, 1000) + han(order)
        assert (reason(rule, text) != "") == (order / len(text) > limit)
    assert reason(rule, han(order) + han(order - 1)) == ""


@pytest.mark.parametrize(("order", "limit"), ChineseRepetition().top)
def test_most_frequent_runs_at_their_threshold(order, limit):
    rule = ChineseRepetition(1.0, 1.0, ((order, limit),), ())
    for filler in range(1, 100):
        text = han(order) + han(filler, 1000) + han(order)
        assert (reason(rule, text) != "") == (2 * order / len(text) > limit)


def test_spam_is_removed_and_prose_is_kept():
    rule = ChineseRepetition()
    prose = "委员会决定在年底之前公布这次调查的结果，并向公众说明情况。随后，几位专家就报告的细节回答了记者提出的问题。"
    assert reason(rule, prose) == ""
    assert reason(rule, "点击这里免费领取红包！" * 5) != ""
    assert reason(rule, prose + "\n" + prose) != ""
    assert reason(ChineseQuality(), prose) == ""
    assert reason(ChineseQuality(), "ISO-8859-1 " * 10 + "下载") == "little Han"


def test_tang_poems_are_kept(shared_data):
    """Nearly all verse passes the preset for it; its own language's rules, not English ones, judge it."""
    path = shared_data / "chinese" / "tang" / "poet.tang.0.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        poems = ["\n".join(poem["paragraphs"]) for poem in json.load(file)]
    poems = [poem for poem in poems if len(poem) >= 20]
    column = TextColumn(poems)
    for rule in POETRY[1:]:
        assert isinstance(rule, Rule)
        assert rule.judge(column).kept_n.mean() > 0.99, rule.name
    assert ChineseRepetition().judge(column).kept_n.mean() > 0.95
