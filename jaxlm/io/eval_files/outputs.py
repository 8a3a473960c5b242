"""What systems said to the items of a task, as files: our own items, other systems' texts, published outputs.

An object for each item, on a line (.jsonl) or in one array (.json), either packed (.gz):

    name or id              which item ("multiarith:17"); or
    question, input, prompt its question
    output, prediction or   the text; ``outputs``: several, to vote among
      response
    behind_cue              true: the prompt ended with "the answer is" or the like
    logprobs                in place of a text, natural log-probabilities ("-Infinity" of what cannot be): of each
                            choice, of a pair's good and bad text, of the one answer; with ``num_tokens``,
                            ``num_bytes``, ``is_greedy``, lists as long; figures that need
                            one which is absent are left out
    target or gold          the right answer; needed where no ``--data`` says it
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.grading import Output
from jaxlm.evals.tasks.answers import Written
from jaxlm.evals.tasks.task import Likelihood
from jaxlm.io.eval_files.records import as_number, json_objects, number_text, read_json, stem
from jaxlm.io.eval_files.transcripts import read_transcripts
from jaxlm.io.json_records import json_lines

_BESIDE = {"num_tokens": 1, "num_bytes": 1, "is_greedy": False}
"""What may stand beside ``logprobs``, and what stands in for it where it is absent; no score is made of that."""


def read_outputs(path: str | Path) -> list[Output]:
    """The outputs of a file, or of all files of a folder. Raises UserError for one that is missing, bad or empty."""
    path = Path(path)
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file() and one.suffix in (".json", ".jsonl", ".gz"))
        if not files:
            raise UserError(f"{path} holds no .json or .jsonl file of outputs")
        return [output for one in files for output in read_outputs(one)]
    if ".log" in path.suffixes:
        return read_transcripts(path)
    if ".jsonl" in path.suffixes:
        outputs = [_output(record, where) for where, record in json_lines(path)]
    else:
        value = read_json(path)
        if isinstance(value, dict) and isinstance(value.get("outputs"), list):
            return list(_bbh_outputs(path, value["outputs"]))
        outputs = [_output(record, where) for where, record in json_objects(path)]
    if not outputs:
        raise UserError(f"{path} holds no outputs: put an object for each item on a line")
    return outputs


def _bbh_outputs(path: Path, records: list[Any]) -> Iterator[Output]:
    """BIG-Bench Hard's: a file a subtask, in the order of its examples; ``input`` is the whole prompt."""
    for number, record in enumerate(records):
        where = f"{path} output {number + 1}"
        if not isinstance(record, dict):
            raise UserError(f"{where} is no object {{...}}")
        question = str(record.get("input", "")).rpartition("\n\nQ: ")[2].rpartition("\nA:")[0]
        output = _output(record, where)
        yield output._replace(name=f"bbh/{stem(path)}:{number}", question=question, group=stem(path))


def _output(record: dict[str, Any], where: str) -> Output:
    name = _first(record, "name", "id")
    question = _first(record, "question", "input", "prompt")
    gold = _first(record, "target", "gold")
    common = {
        "where": where,
        "name": None if name is None else _text(name),
        "question": None if question is None else _text(question),
        "gold": None if gold is None else _text(gold),
        "group": _text(_first(record, "group") or ""),
    }
    if record.get("logprobs") is not None:
        absent = frozenset(name for name in _BESIDE if record.get(name) is None)
        return Output(**common, likelihoods=_likelihoods(record, where), absent=absent)
    texts = _first(record, "outputs", "output", "prediction", "response")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where} has neither a text under 'output' nor a list under 'outputs' or 'logprobs'")
    return Output(**common, written=Written(tuple(texts), record.get("behind_cue") is True))


def _likelihoods(record: dict[str, Any], where: str) -> tuple[Likelihood, ...]:
    count = len(record["logprobs"]) if isinstance(record["logprobs"], list) else 0
    if not count:
        raise UserError(f"{where}: 'logprobs' is {record['logprobs']!r}, no list of numbers")
    columns = []
    for name, default in (("logprobs", None), *_BESIDE.items()):
        values = record.get(name)
        if values is None and default is not None:
            values = [default] * count
        if not isinstance(values, list) or len(values) != count:
            raise UserError(f"{where}: {name!r} is no list of {count} values")
        read = []
        for value in values:
            number = as_number(value)
            if number is None or not (math.isfinite(number) or (name == "logprobs" and number < 0)):
                raise UserError(f"{where}: {name!r} holds {value!r}, which is no number: mend or remove the line")
            read.append(number)
        columns.append(read)
    return tuple(Likelihood(float(a), int(b), int(c), bool(d)) for a, b, c, d in zip(*columns, strict=True))


def _first(record: dict[str, Any], *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _text(value: Any) -> str:
    return number_text(value) if isinstance(value, float) else str(value)
