"""What `jaxlm inspect` shows: facts, documents, and rows with their segments, masks and padding."""

import re
from pathlib import Path

import numpy as np
import pytest

from jaxlm.data.batches import DataConfig, eval_plan, train_plan
from jaxlm.data.rows import ArraySource
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.run import inspect
from jaxlm.run.cli import main
from jaxlm.run.inspect import inspect_batches
from jaxlm.text.tokenizer import Tokenizer, TokenizerConfig

TEXTS = ["The cat sat.\nTwice.", "A [red] fox 狐狸", "x" * 100, "\x1b[31mno"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer(TokenizerConfig(kind="byte"), [])


@pytest.fixture
def split(tokenizer: Tokenizer) -> ArraySource:
    documents = [tokenizer.encode(text, bos=True, eos=True) for text in TEXTS]
    return ArraySource(np.concatenate(documents), np.cumsum([0, *map(len, documents)]))


def test_best_fit_rows_show_segments_positions_and_counts(tokenizer: Tokenizer, split: ArraySource) -> None:
    config = DataConfig(seq_len=48, shuffle=False)
    plan = train_plan(split, config, global_batch_size=4, seed=0)
    shown = inspect_batches(tokenizer, split, plan, config, dataset_key="0123456789abcdef", color=False)
    assert "\x1b" not in shown
    assert "byte, 281 ids, bos 257, eos 258, pad 256" in shown
    assert f"fingerprint {tokenizer.fingerprint[:16]}" in shown
    assert f"{split.num_tokens} tokens in 4 documents, hash 0123456789abcdef" in shown
    assert f"utilisation {plan.rows.utilisation:.2%}" in shown
    assert "<bos>The cat sat.⏎Twice.<eos>" in shown  # A segment runs to its last target.
    assert "<bos>A [red] fox 狐狸<eos>" in shown
    assert "␛[31mno" in shown  # Text cannot steer the terminal.
    found = re.search(r"= (\d+) counted targets \+ (\d+) masked \+ (\d+) pad", shown)
    assert found is not None
    found = re.search(r"= (\d+) counted targets \+ (\d+) masked \+ (\d+) pad", shown)
    assert found is not None
    counted, masked, padding = map(int, found.groups())
    assert counted + masked + padding == 4 * 48
    assert masked == 0
    assert counted == plan.rows.num_predictions
    assert "row 1: row 1 of epoch 0" in shown
    assert re.search(r"^ +2 +positions 0-\d+ +<bos>A \[red\]", shown, re.MULTILINE)


def test_windows_are_one_segment_and_the_end_is_shown(tokenizer: Tokenizer, split: ArraySource) -> None:
    config = DataConfig(seq_len=100, packing="concat")
    plan = eval_plan(split, config, batch_size=4)
    shown = inspect_batches(tokenizer, split, plan, config, num_batches=5, color=False)
    assert "batch 0:" in shown
    assert "batch 1:" not in shown  # The plan ends.
    assert "<eos><bos>A [red]" in shown
    assert "empty, it fills the last batch" in shown
    assert f"{plan.rows.num_rows * 100 - plan.rows.num_predictions} padding" in shown
    assert "there is no batch 7" in inspect_batches(tokenizer, split, plan, config, first_batch=7, color=False)


def test_masked_tokens_are_marked_with_and_without_colour(
    tokenizer: Tokenizer, split: ArraySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def masking(*args: object, **kwargs: object) -> dict[str, np.ndarray]:
        batch = make_batch(*args, **kwargs)  # type: ignore[arg-type]
        batch["loss_mask"][0, :4] = 0
        return batch

    make_batch = inspect.make_batch
    monkeypatch.setattr(inspect, "make_batch", masking)
    config = DataConfig(seq_len=48, shuffle=False)
    plan = train_plan(split, config, global_batch_size=1, seed=0)
    plain = inspect_batches(tokenizer, split, plan, config, num_documents=0, color=False)
    assert "positions 0-19, 4 masked" in plain
    assert "⟦<bos>⟧⟦The⟧ cat sat." in plain
    coloured = inspect_batches(tokenizer, split, plan, config, num_documents=0, color=True, width=100)
    assert "⟦" not in coloured
    assert re.search(r"\x1b\[[0-9;]*2;9[0-9;]*mThe\x1b\[0m", coloured)


def test_long_text_wraps_and_nothing_is_lost(tokenizer: Tokenizer, split: ArraySource) -> None:
    config = DataConfig(seq_len=128)
    plan = train_plan(split, config, global_batch_size=2, seed=0)
    shown = inspect_batches(tokenizer, split, plan, config, num_documents=0, color=False, width=60)
    assert max(map(len, shown.splitlines())) <= 60
    assert shown.count("x") >= 100


def test_colour_follows_the_terminal(tokenizer: Tokenizer, split: ArraySource, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(seq_len=48)
    plan = train_plan(split, config, global_batch_size=2, seed=0)
    assert "\x1b[" not in inspect_batches(tokenizer, split, plan, config)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\x1b[" in inspect_batches(tokenizer, split, plan, config)


def test_a_cache_that_cannot_be_written_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for cache in (file, file / "cache"):
        monkeypatch.setenv("JAXLM_CACHE_DIR", str(cache))
        assert main(["inspect", "quickstart"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: cannot write into the cache {cache}: ")
        assert "set JAXLM_CACHE_DIR" in said
        assert said.count("\n") == 1
