"""``python -m experiments.scaling sweep CONFIG``: the runs of a ladder, and one table of them that `fit` reads.

Each run is an ordinary pretraining below the run directory: finished ones are kept, a killed sweep goes on, and a
ladder may grow. See docs/scaling.md.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.io.agree import say
from jaxlm.io.page import text_table
from jaxlm.io.run_dir import RunDir
from jaxlm.io.run_table import write_runs
from jaxlm.run.ladder_config import LadderConfig, Rung
from jaxlm.run.prepare import PreparedData, prepare_data
from jaxlm.run.pretrain import check_unresolved, pretrain
from jaxlm.run.several_runs import sweep_command, train_several

PROG = "python -m experiments.scaling sweep"
RUNS, TABLE = "runs", "runs.csv"
MOVED = ("corpus.paths", "corpus.validation_paths")
"""Of a run: where the same text lies."""
MAY_CHANGE = (
    "name",
    "budgets",
    "widths",
    "tokens_per_param",
    "max_epochs",
    "run.name",
    "run.corpus.paths",
    "run.corpus.validation_paths",
    "run.checkpoint",
    "run.log_every",
)
"""A ladder may grow: a run is known by its budget and width, and holds its own config. Where the text lies is no
matter: the data set's key says what is in it."""


class Ladder(NamedTuple):
    """A config with its text."""

    rungs: list[Rung]
    data: PreparedData
    vocab_size: int


def sweep_main(argv: list[str]) -> int:
    """``CONFIG [--processes N] [--dry-run] [--field.sub value ...] [--run-dir DIR]``; ends with a line of JSON."""
    return sweep_command(argv, LadderConfig, PROG, plan, sweep)


def plan(config: LadderConfig) -> dict[str, Any]:
    """The runs as a table on stderr, and their number, FLOPs and tokens. Raises UserError for bad input."""
    ladder = open_ladder(config)
    columns = ("run", "layers", "N", "without embeddings", "tokens", "a parameter", "epochs", "steps", "rows", "FLOPs")
    text = text_tokens(ladder.data)
    say(
        text_table(
            columns,
            [
                [
                    one.name,
                    f"{one.config.model.num_layers}",
                    f"{one.num_params:,}",
                    f"{one.non_embedding_params:,}",
                    f"{one.num_tokens:,}",
                    f"{one.num_tokens / one.num_params:.1f}",
                    f"{one.num_tokens / text:.2f}",
                    f"{one.config.num_steps}",
                    f"{one.config.global_batch_size}",
                    f"{one.flops:.3g}",
                ]
                for one in ladder.rungs
            ],
        )
    )
    return {
        "num_runs": len(ladder.rungs),
        "flops": sum(one.flops for one in ladder.rungs),
        "most_tokens": max(one.num_tokens for one in ladder.rungs),
        "text_tokens": text,
    }


def sweep(config: LadderConfig, run_dir: str | Path, *, processes: int = 1) -> dict[str, Any]:
    """Trains what is not trained yet; returns the table's place and the number of runs, or ``stopped_by``.

    Raises UserError for bad input, before anything is trained.
    """
    directory = RunDir(run_dir)
    with directory:
        ladder = begin(config, directory)
        stopped = train_rungs([(one, directory.path / RUNS / one.name) for one in ladder.rungs], processes)
        if stopped is not None:
            return {"stopped_by": stopped["stopped_by"], "run_dir": str(directory.path)}
        rows = table_of(directory, ladder)
        write_runs(directory.path / TABLE, rows)
        say(f"{directory.path / TABLE}: python -m experiments.scaling fit --csv it --columns {COLUMNS}")
        return {"num_runs": len(rows), "table": str(directory.path / TABLE), "run_dir": str(directory.path)}


COLUMNS = "n=n,d=d,flops=flops,loss=loss"
"""Of the table, for `fit`; ``n=n_non_embedding`` with ``--params non-embedding``."""


def begin(config: LadderConfig, directory: RunDir) -> Ladder:
    """Opens the text and takes the directory for this ladder. Raises UserError where it or a run in it is another's."""
    directory.check_config(config, may_change=MAY_CHANGE)
    ladder = open_ladder(config)
    for one in ladder.rungs:
        # A name gives a budget to three digits, and budgets may have been moved by less.
        check_unresolved(RunDir(directory.path / RUNS / one.name), one.config, MOVED)
    directory.write_config(config, may_change=MAY_CHANGE)
    directory.require(dataset_key=ladder.data.dataset.key)
    return ladder


def open_ladder(config: LadderConfig) -> Ladder:
    """Raises UserError where a run would read the text more often than it may."""
    data = prepare_data(config.run, say)
    vocab_size = data.tokenizer.vocab_size
    rungs = config.rungs(vocab_size)
    for one in rungs:
        check_text(config, one, data)
    return Ladder(rungs, data, vocab_size)


def check_text(config: LadderConfig, one: Rung, data: PreparedData) -> None:
    """Raises UserError where one run would read the text more often than ``max_epochs``."""
    text = text_tokens(data)
    if one.num_tokens > config.max_epochs * text:
        raise UserError(
            f"{one.name} reads {one.num_tokens:,} tokens, {one.num_tokens / text:.2f} times the {text:,} to train on: "
            f"add text, lower budgets or tokens_per_param, or allow it with max_epochs (now {config.max_epochs:g})"
        )


def text_tokens(data: PreparedData) -> int:
    """Tokens to train on."""
    return int(data.dataset.splits["train"].num_tokens)


def train_rungs(runs: Sequence[tuple[Rung, Path]], processes: int) -> dict[str, Any] | None:
    """Trains those that are not finished, each in its directory; returns what `train_several` does."""
    waiting = [i for i, (_, path) in enumerate(runs) if RunDir(path).final_figures() is None]
    say(f"{len(runs)} runs, {len(waiting)} of them to do")
    return train_several(functools.partial(_train, runs), [one.name for one, _ in runs], waiting, processes)


def _train(runs: Sequence[tuple[Rung, Path]], number: int) -> dict[str, Any]:
    one, path = runs[number]
    return pretrain(one.config, path, may_change=MOVED)


def _finished(directory: RunDir, one: Rung) -> dict[str, Any] | None:
    return RunDir(directory.path / RUNS / one.name).final_figures()


def table_of(directory: RunDir, ladder: Ladder) -> list[dict[str, Any]]:
    """A row for each finished run that has a loss; says which diverged. Raises UserError where all did."""
    rows = []
    for one in ladder.rungs:
        figures = _finished(directory, one)
        if figures is None:
            continue
        row = row_of(one, figures, ladder.data, f"{RUNS}/{one.name}")
        if row["loss"] is None:
            say(f"{one.name} has no loss (it diverged): left out of the table")
        else:
            rows.append(row)
    if not rows:
        raise UserError(f"no run below {directory.path} has a loss: all diverged, at rates that are too high?")
    return rows


def row_of(one: Rung, figures: dict[str, Any], data: PreparedData, place: str) -> dict[str, Any]:
    """What the table says of a run."""
    config, optimizer = one.config, one.config.optimizer
    return {
        "run": one.name,
        "budget": one.budget,
        "flops": one.flops,
        "n": one.num_params,
        "n_non_embedding": one.non_embedding_params,
        "d": one.num_tokens,
        "loss": figures["eval/loss"],
        "held_out_tokens": int(data.dataset.splits["validation"].num_tokens),
        "epochs": one.num_tokens / text_tokens(data),
        "seconds": figures["perf/step_seconds"] * config.num_steps,
        "tokens_per_second": figures["perf/tokens_per_second"],
        "width": config.model.model_dim,
        "layers": config.model.num_layers,
        "steps": config.num_steps,
        "tokens_per_step": config.tokens_per_step,
        "peak_lr": optimizer.peak_lr,
        "seed": config.seed,
        "dir": place,
    }
