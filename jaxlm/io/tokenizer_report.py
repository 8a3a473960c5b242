"""report.html of a tokenizer study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import escape, grid_table, pictures, render_page, text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.run_dir import write_text

Rows = Sequence[Mapping[str, Any]]
"""What ``run.tokenizer_study.study_tokenizers`` returns."""
COLUMNS = (
    "tokenizer",
    "vocabulary",
    "source",
    "bytes a token",
    "tokens a word",
    "in bytes",
    "unknown",
    "ids used",
    "MB/s a core",
)


def write_tokenizer_report(path: Path, title: str, rows: Rows) -> None:
    """A page of `tokenizer_section`."""
    write_text(path, render_page(title, [f"<h1>{escape(title)}</h1>", *tokenizer_section(rows)]))


def tokenizer_table(rows: Rows) -> str:
    """The table for a terminal."""
    return text_table(COLUMNS, [_cells(row) for row in rows])


def tokenizer_section(rows: Rows) -> list[str]:
    """The pictures and the table, as HTML."""
    return [
        "<p class=quiet>held-out text of each source. A word is a run of letters and digits, or one Chinese character; "
        "in bytes: tokens that are one byte of a character of several; unknown: tokens for what cannot be spelled; "
        "MB/s: UTF-8 in a second of processor time</p>",
        pictures(draw_sweep(rows)),
        grid_table(COLUMNS, [_cells(row) for row in rows]),
    ]


def draw_sweep(rows: Rows) -> list[tuple[str, str]]:
    """(title, svg): bytes a token by vocabulary size, a picture for each kind that was swept, a curve a source."""
    drawn = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        curves = []
        for source in dict.fromkeys(row["source"] for row in rows):
            points = sorted(
                (row["vocab_size"], row["bytes_per_token"])
                for row in rows
                if row["kind"] == kind and row["source"] == source
            )
            if len(points) > 1:
                size, value = np.array(points, np.float64).T
                curves.append(Curve(source, size, value, markers=True))
        if curves and kind != "reference":
            title = f"{kind}: bytes a token by vocabulary size"
            drawn.append((title, draw_curves(title, curves, x_label="vocabulary size", log_x=True)))
    return drawn


def _cells(row: Mapping[str, Any]) -> list[str]:
    language = f" ({row['language']})" if row["language"] else ""
    return [
        row["tokenizer"],
        f"{row['vocab_size']:,}",
        f"{row['source']}{language}",
        f"{row['bytes_per_token']:.2f}",
        f"{row['fertility']:.2f}",
        f"{100 * row['byte_share']:.2f} %",
        f"{100 * row['unknown_share']:.2f} %",
        f"{row['used_ids']:,}",
        f"{row['mb_per_second']:.1f}",
    ]
