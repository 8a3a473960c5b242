"""Finished runs as a table: N, D and loss from anyone's CSV or Parquet file, and our own written as both."""

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.run_dir import write_text
from jaxlm.scaling.checks import BadRunError

ROLES = {"n": "parameters", "d": "tokens", "flops": "compute", "loss": "nats a token"}
_FAR = 30.0
"""Compute over 6ND, or its inverse: attention, and embeddings left out of N, account for less."""
_TIMES = re.compile(r"^(?P<name>.+)\*(?P<factor>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)$", re.IGNORECASE)


class Table(NamedTuple):
    """A file's columns, as text or as what Parquet had."""

    columns: Mapping[str, list[str]]
    places: list[str]
    """Where each run stands in the file."""


def parse_columns(text: str) -> dict[str, str]:
    """``n=params,d=tokens,loss=eval loss`` -> role and column. Raises UserError for another role or a missing one."""
    columns = parse_roles(text, ROLES)
    if "loss" not in columns:
        raise UserError("--columns has no loss=COLUMN")
    if len({"n", "d", "flops"} & set(columns)) < 2:
        raise UserError("--columns needs two of n=COLUMN, d=COLUMN and flops=COLUMN (C = 6 N D gives the third)")
    return columns


def parse_roles(text: str, known: Mapping[str, str]) -> dict[str, str]:
    """``role=column,...`` of known roles (name and what it is). Raises UserError for another role, or one twice."""
    columns: dict[str, str] = {}
    for part in text.split(","):
        role, equals, column = part.partition("=")
        role, column = role.strip().lower(), column.strip()
        if not equals or not column or role not in known:
            roles = ", ".join(f"{name} ({what})" for name, what in known.items())
            raise UserError(f"--columns {part!r} is no ROLE=COLUMN: roles are {roles}")
        if role in columns:
            raise UserError(f"--columns names {role} twice: {columns[role]!r} and {column!r}")
        columns[role] = column
    return columns


def read_runs(path: Path, columns: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Arrays ``n``, ``d``, ``flops`` and ``loss``, a run each; what is not named follows from C = 6ND. ``places`` says
    where each stands in the file, for `naming_runs`.

    A column may be followed by ``*FACTOR`` where it counts something else: ``flops=gflops*1e9``. Raises UserError with
    line and column for what is no number, and for compute that is not above 0.
    """
    table = read_table(path)
    runs = {role: numbers(path, table, column) for role, column in columns.items()}
    runs["places"] = np.array(table.places)
    # Of N, D and the loss a fit says so itself, as diverged runs may be left out first.
    bad = np.flatnonzero(~((runs["flops"] > 0) & np.isfinite(runs["flops"]))) if "flops" in runs else np.empty(0, int)
    if len(bad):
        where, value = table.places[bad[0]], runs["flops"][bad[0]]
        raise UserError(
            f"{path} {where}: {columns['flops']} is {value:g}, which is no compute: mend it or leave it out"
        )
    if len({"n", "d", "flops"} & set(runs)) == 3:
        _check_compute(path, table, columns, runs)
    with np.errstate(divide="ignore", invalid="ignore"):
        if "flops" not in runs:
            runs["flops"] = 6 * runs["n"] * runs["d"]
        elif "d" not in runs:
            runs["d"] = runs["flops"] / (6 * runs["n"])
        elif "n" not in runs:
            runs["n"] = runs["flops"] / (6 * runs["d"])
    return runs


@contextlib.contextmanager
def naming_runs(path: Path, places: Sequence[str] | np.ndarray) -> Iterator[None]:
    """Inside, an error of single runs says where they stand in the file. Raises ValueError that does."""
    try:
        yield
    except BadRunError as error:
        raise ValueError(f"{path}: {error.named(places)}") from error


def _check_compute(path: Path, table: Table, columns: Mapping[str, str], runs: Mapping[str, np.ndarray]) -> None:
    """Raises UserError for compute that is far from 6ND, embeddings and attention included or not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        times = runs["flops"] / (6 * runs["n"] * runs["d"])
        far = np.flatnonzero(np.isfinite(times) & (times > 0) & ((times > _FAR) | (times < 1 / _FAR)))
    if len(far):
        at = far[0]
        raise UserError(
            f"{path} {table.places[at]}: {columns['flops']} is {runs['flops'][at]:.4g}, {times[at]:.3g} times 6 N D of "
            f"{columns['n']} and {columns['d']}: mixed units? Give single parameters, tokens and FLOPs"
        )


def read_table(path: Path) -> Table:
    """A CSV or Parquet file. Raises UserError for what is neither."""
    return _parquet(path) if path.suffix == ".parquet" else _csv(path)


def numbers(path: Path, table: Table, column: str) -> np.ndarray:
    """A column, ``*FACTOR`` applied. Raises UserError for a column that is not there, and for what is no number."""
    factor = 1.0
    times = _TIMES.match(column)
    if column not in table.columns and times is not None:
        column, factor = times["name"], float(times["factor"])
    if column not in table.columns:
        raise UserError(f"{path} has no column {column!r}: there are {', '.join(map(repr, table.columns))}")
    values = []
    for where, text in zip(table.places, table.columns[column], strict=True):
        try:
            values.append(float(text) * factor)
        except (TypeError, ValueError):
            raise UserError(f"{path} {where}: {column} is {text!r}, which is no number") from None
    return np.array(values, np.float64)


def _csv(path: Path) -> Table:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            # Where a row ends: blank lines are passed over, and a cell may have several.
            rows = [(f"line {reader.line_num}", row) for row in reader if row]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV: {error}") from error
    if len(rows) < 2:
        raise UserError(f"{path} has {len(rows)} lines: a line of names and one a run are needed")
    (_, names), *rest = rows
    for where, row in rest:
        if len(row) != len(names):
            raise UserError(f"{path} {where} has {len(row)} fields, and the line of names {len(names)}")
    names = [name.strip() for name in names]
    _check_names(path, names)
    columns = zip(*(row for _, row in rest), strict=True)
    table = {name: list(values) for name, values in zip(names, columns, strict=True)}
    return Table(table, [where for where, _ in rest])


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Raises UserError for a name that two columns have; columns without any are nobody's to ask for."""
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(
                f"{path} has {names.count(name)} columns {name!r}: which one is meant? Rename or leave out the others"
            )


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # `pq.read_table` knows no table with two columns of one name.
        with pq.ParquetFile(path) as file:
            table = file.read()
        _check_names(path, table.column_names)
        return Table(table.to_pydict(), [f"row {i}" for i in range(table.num_rows)])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is no Parquet file: {error}") from error


def write_runs(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of the same columns, at least one, as CSV at ``path`` and as Parquet beside it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path.with_suffix(".parquet"))
