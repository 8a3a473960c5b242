"""Made-up prompts with constraints, from a seed: a subject and one to three things to keep to, in English or Chinese.

Small, and enough to see whether a model that was taught to follow instructions does, and which ones it does not.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlm.evals.instructions.grading import Constraint
from jaxlm.evals.tasks.task import Item

Rng = np.random.Generator
SUBJECTS = {
    "en": ("a lighthouse", "how bread is baked", "a train that is late", "the first snow", "a library at night",
           "why leaves fall", "an old bicycle", "the sea in winter"),
    "zh": ("灯塔", "怎样烤面包", "一列晚点的火车", "第一场雪",
           "夜里的图书馆", "树叶为什么落下", "一辆旧自行车", "冬天的海"),
}  # fmt: skip
WORDS = {"en": ("wind", "door", "river", "morning", "stone", "light"), "zh": ("风", "门", "河", "早晨", "石头", "光")}
_ASK = {"en": "Write about {}.", "zh": "请写一写{}。"}

Maker = Callable[[Rng, str], tuple[dict[str, Any], str]]


def _pick(rng: Rng, language: str, count: int) -> list[str]:
    return [WORDS[language][i] for i in rng.permutation(len(WORDS[language]))[:count]]


def _said(language: str, english: str, chinese: str) -> str:
    return english if language == "en" else chinese


def _length(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    n = int(rng.integers(2, 9)) * 10
    if language == "zh":
        return {"id": "han_characters", "at_most": n}, f"不超过{n}个汉字。"
    if rng.random() < 0.5:
        return {"id": "words", "at_most": n}, f"Use at most {n} words."
    return {"id": "words", "at_least": n}, f"Use at least {n} words."


def _sentences(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    n = int(rng.integers(2, 6))
    return {"id": "sentences", "exactly": n}, _said(language, f"Use exactly {n} sentences.", f"正好用{n}句话。")


def _bullets(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    n = int(rng.integers(2, 6))
    english = f"Answer with a list of exactly {n} bullet points, each on a line that begins with *."
    return {"id": "bullets", "exactly": n}, _said(language, english, f"用正好{n}个要点回答，每行以*开头。")


def _paragraphs(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    n = int(rng.integers(2, 5))
    english = f"Use exactly {n} paragraphs with a blank line between."
    return {"id": "paragraphs", "exactly": n}, _said(language, english, f"正好分{n}段，段间空一行。")


def _keywords(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    words = _pick(rng, language, 2)
    text = _said(language, f"Use the words {words[0]} and {words[1]}.", f"要用到“{words[0]}”和“{words[1]}”。")
    return {"id": "keywords", "words": words}, text


def _forbidden(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    (word,) = _pick(rng, language, 1)
    return {"id": "forbidden", "words": [word]}, _said(language, f"Do not use the word {word}.", f"不要出现“{word}”。")


def _order(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    a, b = _pick(rng, language, 2)
    text = _said(language, f"Mention {a} first and {b} after it.", f"先写到“{a}”，后写到“{b}”。")
    return {"id": "order", "phrases": [a, b]}, text


def _case(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    if language == "zh":
        return {"id": "language", "language": "zh"}, "只用中文。"
    which = ("uppercase", "lowercase")[int(rng.integers(2))]
    return {"id": which}, {"uppercase": "Use capital letters only.", "lowercase": "Use no capital letters."}[which]


def _end(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    phrase = _said(language, "That is all.", "就是这样。")
    return {"id": "ends_with", "phrase": phrase}, _said(language, f"End with: {phrase}", f"以“{phrase}”结尾。")


def _comma(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    return {"id": "no_comma"}, _said(language, "Use no commas.", "不要用逗号。")


def _json(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    return {"id": "json"}, _said(language, "Answer in JSON only.", "只用JSON格式回答。")


def _title(rng: Rng, language: str) -> tuple[dict[str, Any], str]:
    english = "Give it a title in double angle brackets, as in <<title>>."
    return {"id": "title"}, _said(language, english, "加一个标题，写在双尖括号里，如<<标题>>。")


# What cannot be kept together, or hardly, is of one family: at most one of each is asked for.
_FAMILIES: tuple[tuple[Maker, ...], ...] = (
    (_sentences, _bullets, _paragraphs, _json),
    (_length,),
    (_keywords, _forbidden, _order),
    (_case, _title),
    (_comma, _end),
)


def made_up(count: int, seed: int = 0) -> list[Item]:
    """``count`` items, English and Chinese in turn, named "instructions:N", the language as their group."""
    items = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        language = ("en", "zh")[number % 2]
        families = rng.permutation(len(_FAMILIES))[: int(rng.integers(1, 4))]
        asked = [_FAMILIES[i][int(rng.integers(len(_FAMILIES[i])))](rng, language) for i in sorted(families.tolist())]
        if any(one["id"] == "json" for one, _ in asked):  # nothing may follow it
            asked = [(one, text) for one, text in asked if one["id"] != "ends_with"]
        subject = SUBJECTS[language][int(rng.integers(len(SUBJECTS[language])))]
        prompt = _said(language, " ", "").join([_ASK[language].format(subject), *(text for _, text in asked)])
        constraints = tuple(
            Constraint(one["id"], {key: value for key, value in one.items() if key != "id"}) for one, _ in asked
        )
        items.append(Item(f"instructions:{number}", prompt, group=language, constraints=constraints))
    return items
