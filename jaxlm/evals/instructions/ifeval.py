"""IFEval's instructions (Zhou et al. 2023) as constraints: its 25 ids with their arguments."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxlm.evals.instructions.grading import Constraint

Arguments = Mapping[str, Any]


def constraint_of(instruction: str, arguments: Arguments) -> Constraint:
    """An id such as "length_constraints:number_words" and its arguments, of which null is none.

    Raises ValueError for an unknown id, and for arguments that are missing or bad.
    """
    if instruction not in _TABLE:
        raise ValueError(f"instruction {instruction!r} is none of IFEval's {len(_TABLE)}")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"instruction {instruction!r}: its arguments {arguments!r} are no object {{...}}")
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return Constraint(*_TABLE[instruction](given))
    except KeyError as error:
        raise ValueError(f"instruction {instruction!r} lacks {error.args[0]!r}") from None


def _related(arguments: Arguments, relation: str, number: str) -> dict[str, int]:
    said = arguments[relation]
    if said not in ("at least", "less than"):
        raise ValueError(f"{relation} is {said!r}, neither 'at least' nor 'less than'")
    return {"at_least": int(arguments[number])} if said == "at least" else {"at_most": int(arguments[number]) - 1}


Made = tuple[str, dict[str, Any]]
_TABLE: dict[str, Callable[[Arguments], Made]] = {
    "keywords:existence": lambda a: ("keywords", {"words": list(a["keywords"]), "within_words": True}),
    "keywords:frequency": lambda a: (
        "keyword_count",
        {"word": a["keyword"], "within_words": True, **_related(a, "relation", "frequency")},
    ),
    "keywords:forbidden_words": lambda a: ("forbidden", {"words": list(a["forbidden_words"])}),
    "keywords:letter_frequency": lambda a: (
        "letter_count",
        {"letter": a["letter"], **_related(a, "let_relation", "let_frequency")},
    ),
    "language:response_language": lambda a: ("language", {"language": a["language"]}),
    "length_constraints:number_sentences": lambda a: ("sentences", _related(a, "relation", "num_sentences")),
    "length_constraints:number_paragraphs": lambda a: (
        "paragraphs",
        {"exactly": int(a["num_paragraphs"]), "divider": "***"},
    ),
    "length_constraints:number_words": lambda a: ("words", _related(a, "relation", "num_words")),
    "length_constraints:nth_paragraph_first_word": lambda a: (
        "paragraph_start",
        {"paragraph": int(a["nth_paragraph"]), "word": a["first_word"], "of": int(a["num_paragraphs"])},
    ),
    "detectable_content:number_placeholders": lambda a: ("placeholders", {"at_least": int(a["num_placeholders"])}),
    "detectable_content:postscript": lambda a: ("postscript", {"marker": a["postscript_marker"]}),
    "detectable_format:number_bullet_lists": lambda a: ("bullets", {"exactly": int(a["num_bullets"])}),
    "detectable_format:constrained_response": lambda a: (
        "one_of",
        {"phrases": ["My answer is yes.", "My answer is no.", "My answer is maybe."]},
    ),
    "detectable_format:number_highlighted_sections": lambda a: ("highlights", {"at_least": int(a["num_highlights"])}),
    "detectable_format:multiple_sections": lambda a: (
        "sections",
        {"marker": a["section_spliter"], "at_least": int(a["num_sections"])},
    ),
    "detectable_format:json_format": lambda a: ("json", {}),
    "detectable_format:title": lambda a: ("title", {}),
    "combination:two_responses": lambda a: ("responses", {}),
    "combination:repeat_prompt": lambda a: ("starts_with", {"phrase": a["prompt_to_repeat"]}),
    "startend:end_checker": lambda a: ("ends_with", {"phrase": a["end_phrase"]}),
    "change_case:capital_word_frequency": lambda a: (
        "capital_words",
        _related(a, "capital_relation", "capital_frequency"),
    ),
    "change_case:english_capital": lambda a: ("uppercase", {}),
    "change_case:english_lowercase": lambda a: ("lowercase", {}),
    "punctuation:no_comma": lambda a: ("no_comma", {}),
    "startend:quotation": lambda a: ("quoted", {}),
}
