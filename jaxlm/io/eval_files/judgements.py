"""Judgements of pairs of answers, in the files of AlpacaEval (Li et al. 2023)."""

from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.io.eval_files.records import json_objects


def read_preferences(path: Path) -> list[float | None]:
    """``preference`` of each object: 1 = the reference, 2 = the model, 0 = a draw; a number as text is one, null is
    None. Raises UserError for anything else."""
    found: list[float | None] = []
    for where, record in json_objects(path):
        value = record.get("preference", "")
        try:
            found.append(None if value is None else float(value))
        except (TypeError, ValueError):
            raise UserError(f"{where} has no 'preference' ({value!r}): write 0, 1, 2 or null") from None
    if not found:
        raise UserError(f"{path} holds no judgements")
    return found
