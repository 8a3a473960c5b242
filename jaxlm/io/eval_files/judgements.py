"""Judgements of pairs of answers, in the files of AlpacaEval (Li et al. 2023); and answers to be judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.evals.pairwise import Judgement, Pair
from jaxlm.io.eval_files.records import json_objects
from jaxlm.io.run_dir import write_json
from jaxlm.text.tokenizer import check_text


class Annotation(NamedTuple):
    """One judged pair."""

    preference: float | None
    """1 = the reference, 2 = the model, 0 = a draw, between 1 and 2 how much; None: not judged."""
    length: int | None
    """Characters of the model's answer, where the file has it."""
    reference_length: int | None


def read_annotations(path: Path) -> list[Annotation]:
    """``preference`` of each object (a number as text is one, null is None) and the lengths of ``output_2`` and
    ``output_1``. Raises UserError for anything else."""
    found = []
    for where, record in json_objects(path):
        value = record.get("preference", "")
        try:
            preference = None if value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{where} has no 'preference' ({value!r:.80}): write 0, 1, 2 or null") from None
        lengths = [
            len(text) if isinstance(text := record.get(name), str) else None for name in ("output_2", "output_1")
        ]
        found.append(Annotation(preference, *lengths))
    if not found:
        raise UserError(f"{path} holds no judgements")
    return found


def read_preferences(path: Path) -> list[float | None]:
    """The preferences alone."""
    return [one.preference for one in read_annotations(path)]


def as_share(preference: float | None) -> float | None:
    """AlpacaEval's number as the model's share: 0 .. 1. Raises ValueError for other numbers."""
    if preference is None:
        return None
    if preference != 0 and not 1 <= preference <= 2:
        raise ValueError(f"preference {preference} is neither 0 (a draw) nor in 1 .. 2")
    return 0.5 if preference == 0 else preference - 1


def read_answers(path: Path) -> dict[str, str]:
    """Prompt -> answer, of objects with ``prompt`` (or ``instruction``, ``question``, ``input``) and ``output`` (or
    ``response``, ``completion``, ``answer``). Raises UserError for one without, or a prompt that is there twice."""
    found: dict[str, str] = {}
    for where, record in json_objects(path):
        prompt = _text(record, ("prompt", "instruction", "question", "input"), where)
        if prompt in found:
            raise UserError(f"{where}: the prompt {prompt[:60]!r} is there twice: keep one answer to each")
        found[prompt] = _text(record, ("output", "response", "completion", "answer"), where)
    if not found:
        raise UserError(f"{path} holds no answers")
    return found


def pair_answers(answers: Mapping[str, str], references: Mapping[str, str]) -> list[Pair]:
    """Pairs of the prompts that both answered, in the order of the first. Raises UserError for none."""
    pairs = [
        Pair(f"pair:{i}", prompt, answer, references[prompt])
        for i, (prompt, answer) in enumerate(answers.items())
        if prompt in references
    ]
    if not pairs:
        raise UserError("the two files share no prompt: nothing can be compared")
    return pairs


def write_annotations(
    path: Path, pairs: Sequence[Pair], judgements: Sequence[Judgement], names: tuple[str, str]
) -> None:
    """Judged pairs in AlpacaEval's form; ``names``: of the model and of the reference."""
    write_json(
        path,
        [
            {
                "instruction": pair.prompt,
                "output_1": pair.reference,
                "generator_1": names[1],
                "output_2": pair.answer,
                "generator_2": names[0],
                "preference": None if one.preference is None else (0 if one.preference == 0.5 else 1 + one.preference),
                "orders": list(one.orders),
            }
            for pair, one in zip(pairs, judgements, strict=True)
        ],
    )


def _text(record: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    value = next((record[name] for name in names if isinstance(record.get(name), str)), None)
    if value is None:
        raise UserError(f"{where} has no text under {', '.join(map(repr, names))}")
    try:
        check_text(value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return value
