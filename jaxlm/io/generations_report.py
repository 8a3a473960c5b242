"""report.html of the generations side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import completion, escape, grid_table, pictures, render_page, text_table
from jaxlm.io.plots import Curve, draw_curves
from jaxlm.io.progress import format_count
from jaxlm.io.run_dir import write_text

Rows = Mapping[str, Mapping[str, Any]]
COLUMNS = (
    "model",
    "parameters",
    "training FLOPs",
    "training seconds",
    "tokens seen",
    "bits per byte",
    "nats a token",
    "pseudo-nats a token",
)


def write_generations_report(path: Path, title: str, rows: Rows) -> None:
    """A page of `generations_section`."""
    write_text(path, render_page(title, [f"<h1>{escape(title)}</h1>", *generations_section(rows)]))


def generations_table(rows: Rows) -> str:
    """The table for a terminal."""
    return text_table(COLUMNS, [_cells(name, row) for name, row in rows.items()])


def generations_section(rows: Rows) -> list[str]:
    """The table, the pictures and the samples of ``rows`` (see ``run.generations.compare_generations``), as HTML."""
    about = (
        "An n-gram's parameters are a probability and a back-off weight for each n-gram that it keeps. Its context "
        "ends at its order; a recurrent state has no end but fades; a decoder sees its whole context. "
    )
    if any(row["pseudo_nats_per_token"] is not None for row in rows.values()):
        about += (
            "An encoder guesses each token with those after it in sight: its pseudo-nats are no likelihood, and are "
            "not to be compared with the nats of the others."
        )
    body = [
        "<p class=quiet>one corpus, one tokenizer, the same held-out text; lower bits per byte are better, and a model "
        "that saw fewer tokens was trained for less</p>",
        grid_table(COLUMNS, [_cells(name, row) for name, row in rows.items()]),
        pictures(draw_generations(rows)),
        f"<p class=quiet>{about}</p>",
    ]
    for name, row in rows.items():
        samples = [completion(one["prompt"], one["completion"]) for one in row["samples"]]
        body += [f"<h3>{escape(name)} <small>the prompt in bold</small></h3>", *samples] if samples else []
    return body


def draw_generations(rows: Rows) -> list[tuple[str, str]]:
    """(title, svg): loss by position in the context, and time by its length."""
    by_position = [
        Curve(
            name,
            np.asarray([one["last"] for one in row["by_position"]]),
            np.asarray([one["nats"] for one in row["by_position"]]),
            markers=True,
        )
        for name, row in rows.items()
        if row["by_position"]
    ]
    by_length = [
        Curve(
            name,
            np.asarray([int(length) for length in row["milliseconds_by_length"]]),
            np.asarray(list(row["milliseconds_by_length"].values())),
            markers=True,
        )
        for name, row in rows.items()
        if row["milliseconds_by_length"]
    ]
    title, timed = "loss by position (nats a token)", "time to score a text (ms)"
    drawn = [(title, draw_curves(title, by_position, x_label="position in the text, tokens", log_x=True))]
    if by_length:
        drawn.append((timed, draw_curves(timed, by_length, x_label="length, tokens", log_x=True, log_y=True)))
    return drawn


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    flops = row["train_flops"]
    scores = (row[key] for key in ("bits_per_byte", "nats_per_token", "pseudo_nats_per_token"))
    return [
        name,
        f"{row['num_params']:,}",
        "-" if flops is None else f"{flops:.2e}",
        f"{row['train_seconds']:.1f}",
        format_count(row["train_tokens"]),
        *("-" if score is None else f"{score:.3f}" for score in scores),
    ]
