"""report.html of a small model fine-tuned against a larger one prompted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.io.page import escape, grid_table, render_page, text_table
from jaxlm.io.run_dir import write_text

COLUMNS = (
    "model",
    "how",
    "parameters",
    "accuracy",
    "FLOPs of training on the task",
    "FLOPs an answer",
    "milliseconds an answer",
)


def write_small_large_report(path: Path, title: str, results: Mapping[str, Any]) -> None:
    """A page of `small_large_section`."""
    write_text(path, render_page(title, [f"<h1>{escape(title)}</h1>", *small_large_section(results)]))


def small_large_table(results: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    return text_table(COLUMNS, [_cells(row) for row in results["rows"]])


def small_large_section(results: Mapping[str, Any]) -> list[str]:
    """The table of ``results`` (see ``run.small_large.compare_small_large``) and what it means, as HTML."""
    task = results["task"]
    about = (
        f"{task['about']}: {', '.join(task['labels'])}; {task['num_train']:,} training examples, the same "
        f"{task['num_answered']:,} validation examples answered by all; ± is one standard error"
    )
    notes = (
        "FLOPs an answer: 2N for each token read, and attention; N leaves out tables that are only looked up. The "
        "prompted model reads its prompt once for each label and takes the label whose words it finds likeliest. "
        "Pretraining is not counted in the FLOPs of training on the task. Milliseconds: median, one text at a time, "
        "compiled before."
    )
    return [
        f"<p class=quiet>{escape(about)}</p>",
        grid_table(COLUMNS, [_cells(row) for row in results["rows"]]),
        f"<p class=quiet>{escape(notes)}</p>",
        f"<details><summary>a prompt</summary><pre>{escape(results['prompt'])}</pre></details>",
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    def shown(key: str, form: str) -> str:
        return "-" if row[key] is None else format(row[key], form)

    return [
        row["model"],
        row["how"],
        shown("num_params", ","),
        f"{row['accuracy']:.3f} ± {row['standard_error']:.3f}",
        "0" if row["train_flops"] == 0 else shown("train_flops", ".2e"),
        shown("answer_flops", ".2e"),
        shown("answer_milliseconds", ".1f"),
    ]
