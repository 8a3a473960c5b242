"""What the model is fed, for eyes: decoded rows with their segments, masks and padding."""

import io
import itertools
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from jaxlm.data.batches import BatchPlan, DataConfig, make_batch
from jaxlm.data.packing import EMPTY_ROW
from jaxlm.data.rows import TokenSource
from jaxlm.text.tokenizer import Tokenizer

# Neighbouring segments differ in colour; a terminal without colour still has one line a segment.
_COLOURS = ("cyan", "yellow", "green", "magenta", "bright_blue")
_MASKED = "dim strike"
_LEFT, _RIGHT = "⟦", "⟧"  # Around masked tokens where nothing can be dimmed.
# Control characters as pictures: text cannot steer the terminal, and a segment stays on its line.
_VISIBLE = {**{i: chr(0x2400 + i) for i in range(32)}, 127: "␡", ord("\n"): "⏎", ord("\t"): "⇥"}
_PLAIN_WIDTH = 120


def inspect_batches(
    tokenizer: Tokenizer,
    split: TokenSource,
    plan: BatchPlan,
    config: DataConfig,
    *,
    num_batches: int = 1,
    first_batch: int = 0,
    rows_per_batch: int = 4,
    num_documents: int = 3,
    dataset_key: str | None = None,
    color: bool | None = None,
    width: int | None = None,
) -> str:
    """The text of ``jaxlm inspect``: tokenizer and data set facts, the first documents, then batches row by row.

    A segment is a line: its number, positions, count of masked inputs, and its text from the first input to the last
    target. Inputs whose target is not counted are struck through and dim, or stand between ⟦ and ⟧ in plain text. Of an
    encoder's rows the text is what the model reads, and those marked are the places that it is to restore.
    Counts are of the whole batch, however few of its rows are shown.

    Args:
      color: None = as stdout is a terminal or not.
      width: columns; None = the terminal's, or 120.
    """
    coloured = sys.stdout.isatty() if color is None else color
    parts: list[RenderableType] = [_facts(tokenizer, split, plan, config, dataset_key)]
    parts += _documents(tokenizer, split, num_documents, coloured)
    last = first_batch + num_batches if plan.num_batches is None else min(first_batch + num_batches, plan.num_batches)
    for batch_id in range(first_batch, last):
        row_ids = plan.row_ids(batch_id)
        batch = make_batch(split, plan, row_ids, pad_id=tokenizer.pad_id)
        parts += _batch(tokenizer, batch_id, row_ids, batch, plan, rows_per_batch, coloured)
    if first_batch >= last:
        parts.append(Text(f"\nthere is no batch {first_batch}: the plan ends after {plan.num_batches}"))
    out = io.StringIO()
    columns = width if width is not None else None if coloured else _PLAIN_WIDTH
    console = Console(
        file=out,
        force_terminal=coloured,
        no_color=not coloured,
        width=columns,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(Group(*parts))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _facts(
    tokenizer: Tokenizer, split: TokenSource, plan: BatchPlan, config: DataConfig, dataset_key: str | None
) -> Table:
    num_documents = len(split.doc_offsets) - 1
    specials = ", ".join(f"{name} {getattr(tokenizer, f'{name}_id')}" for name in ("bos", "eos", "pad"))
    closed = ", closed (no bits per byte)" if tokenizer.closed else ""
    rows = plan.rows
    num_bytes = getattr(split, "num_bytes", None)
    size = f"{split.num_tokens:,} tokens in {num_documents:,} documents"
    if num_bytes:
        size += f", {num_bytes:,} bytes of text ({num_bytes / max(split.num_tokens, 1):.2f} a token)"
    table = Table.grid(padding=(0, 2))
    table.add_row("tokenizer", f"{tokenizer.kind}, {tokenizer.vocab_size:,} ids, {specials}{closed}")
    table.add_row("", f"fingerprint {tokenizer.fingerprint[:16]}")
    table.add_row("data set", f"{size}" + (f", hash {dataset_key[:16]}" if dataset_key else ""))
    table.add_row(
        "rows",
        f"{config.packing}, {rows.seq_len} predictions a row: {rows.num_rows:,} rows an epoch, "
        f"{rows.num_predictions:,} predictions, utilisation {rows.utilisation:.2%}",
    )
    order = f"shuffled by seed {plan.seed}" if plan.shuffle else "in the order of the corpus"
    end = f", ending after {plan.num_batches:,}" if plan.num_batches is not None else ""
    table.add_row(
        "batches", f"{plan.global_batch_size} rows, {order}: {plan.batches_per_epoch:,.1f} batches an epoch{end}"
    )
    return table


def _documents(tokenizer: Tokenizer, split: TokenSource, num_documents: int, color: bool) -> list[RenderableType]:
    offsets = np.asarray(split.doc_offsets[: num_documents + 1])
    lengths = np.diff(offsets)
    if not len(lengths):
        return []
    table = Table.grid(padding=(0, 2))
    shown = split.read(offsets[:-1], np.minimum(lengths, 64))
    for i, (tokens, length) in enumerate(zip(shown, lengths.tolist(), strict=True)):
        text = _tokens(tokenizer, tokens, np.ones(len(tokens)), _COLOURS[i % len(_COLOURS)], color)
        if length > len(tokens):
            text.append(" …")
        table.add_row(f"{i}", f"{length} tokens", text)
    return [Text("\nfirst documents", style="bold"), table]


def _batch(
    tokenizer: Tokenizer,
    batch_id: int,
    row_ids: np.ndarray,
    batch: dict[str, np.ndarray],
    plan: BatchPlan,
    rows_per_batch: int,
    color: bool,
) -> list[RenderableType]:
    spans = [_spans(batch, plan, i) for i in range(len(row_ids))]
    size = batch["tokens"].size
    in_use = sum(end - begin for row in spans for begin, end in row)
    counted = int(batch["loss_mask"].sum())
    restored = plan.rows.shift == 0
    kinds = ("masked targets", "shown") if restored else ("counted targets", "masked")
    title = (
        f"\nbatch {batch_id}: {size:,} places = {counted:,} {kinds[0]} + {in_use - counted:,} {kinds[1]} "
        f"+ {size - in_use:,} padding ({(size - in_use) / size:.1%}); utilisation {counted / size:.1%}; "
        f"{sum(map(len, spans)):,} segments"
    )
    parts: list[RenderableType] = [Text(title, style="bold")]
    for i, row_id in enumerate(row_ids[:rows_per_batch].tolist()):
        if row_id == EMPTY_ROW:
            parts.append(Text(f"row {i}: empty, it fills the last batch", style="italic"))
            continue
        epoch, number = divmod(row_id, plan.rows.num_rows)
        parts.append(Text(f"row {i}: row {number} of epoch {epoch}", style="italic"))
        row = {name: array[i] for name, array in batch.items()}
        parts.append(_row(tokenizer, row, spans[i], color, restored=restored))
    if len(row_ids) > rows_per_batch:
        parts.append(Text(f"… and {len(row_ids) - rows_per_batch} more rows", style="italic"))
    return parts


def _spans(batch: dict[str, np.ndarray], plan: BatchPlan, row: int) -> list[tuple[int, int]]:
    """Where each segment of a row begins and ends. A row without segment ids is one, up to its last target."""
    if plan.rows.segmented:
        ids = batch["segment_ids"][row]
    else:
        counted = np.flatnonzero(batch["loss_mask"][row])
        ids = (np.arange(batch["tokens"].shape[1]) <= counted.max(initial=-1)).astype(np.int32)
    cuts = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    return [(begin, end) for begin, end in itertools.pairwise(cuts) if ids[begin] != 0]


def _row(
    tokenizer: Tokenizer, row: dict[str, np.ndarray], spans: Sequence[tuple[int, int]], color: bool, restored: bool
) -> Table:
    table = Table.grid(padding=(0, 2))
    for number, (begin, end) in enumerate(spans, start=1):
        positions = row["positions"][begin:end] if "positions" in row else np.arange(begin, end)
        mask = row["loss_mask"][begin:end]
        # The last target is no input of this segment: it is shown too, so that a cut document reads on.
        tokens = np.append(row["tokens"][begin:end], row["targets"][end - 1])
        shown = np.append(mask, mask[-1])
        if restored:
            tokens, shown = tokens[:-1], 1 - mask
        colour = _COLOURS[(number - 1) % len(_COLOURS)]
        masked = int(np.count_nonzero(mask) if restored else len(mask) - np.count_nonzero(mask))
        table.add_row(
            Text(f"  {number}", style=colour),
            f"positions {positions[0]}-{positions[-1]}" + (f", {masked} masked" if masked else ""),
            _tokens(tokenizer, tokens, shown, colour, color),
        )
    padding = len(row["tokens"]) - (spans[-1][1] if spans else 0)
    if padding:
        table.add_row("", f"{padding} padding", "")
    return table


def _tokens(tokenizer: Tokenizer, tokens: np.ndarray, mask: np.ndarray, colour: str, color: bool) -> Text:
    """Tokens as text: runs of ordinary ones decoded together, specials by name, masked runs marked."""
    text = Text(overflow="fold")
    specials = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    kinds = np.array([token in specials for token in tokens.tolist()], bool)
    masked = np.asarray(mask) == 0
    changes = np.flatnonzero((np.diff(kinds) != 0) | (np.diff(masked) != 0)) + 1
    for begin, end in zip([0, *changes.tolist()], [*changes.tolist(), len(tokens)], strict=True):
        run = tokens[begin:end].tolist()
        is_special = bool(len(run)) and bool(kinds[begin])
        shown = "".join(specials[token] for token in run) if is_special else tokenizer.decode(run).translate(_VISIBLE)
        hidden = bool(len(run)) and bool(masked[begin])
        if hidden and not color:
            shown = f"{_LEFT}{shown}{_RIGHT}"
        text.append(shown, style=_MASKED if hidden else f"bold reverse {colour}" if is_special else colour)
    return text
