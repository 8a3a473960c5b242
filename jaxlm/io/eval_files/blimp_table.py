"""BLiMP's published accuracies by model, a paradigm a line (Warstadt et al. 2020, ``raw_results/summary``)."""

from pathlib import Path
from typing import NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.io.eval_files.records import field
from jaxlm.io.json_records import json_lines

MODELS = {"ngram": "n-gram", "lstm": "LSTM", "txl": "Transformer-XL", "gpt2": "GPT-2"}


class Row(NamedTuple):
    """One paradigm, or the published mean of a group of them."""

    paradigm: str
    """"overall" for a mean."""
    group: str
    """The term of linguistics; "overall" for the mean of all."""
    accuracy: dict[str, float]
    """By model."""
    cluster: str = ""


def read_table(path: Path) -> list[Row]:
    """All lines of the table. Raises UserError for a figure that is missing or no share."""
    rows = []
    for where, record in json_lines(path):
        accuracy = {}
        for model in MODELS:
            try:
                accuracy[model] = float(field(record, model, where))
            except ValueError:
                raise UserError(f"{where}: {model!r} is {record[model]!r}, no number") from None
            if not 0 <= accuracy[model] <= 1:
                raise UserError(f"{where}: {model!r} is {accuracy[model]}, not in 0 .. 1")
        rows.append(Row(field(record, "UID", where), field(record, "linguistics_term", where), accuracy))
    return rows
