"""A fitted n-gram model as a directory: plain .npy arrays, mapped into memory when opened, and a JSON."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.models.ngram import NgramModel
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.models.ngram_table import Store

FORMAT_VERSION = 1
MODEL_DIR = "ngram"
"""The model's place in a run directory."""


def table_store(directory: Path) -> Callable[[int], Store]:
    """``store(n)`` for `fit_tokens`: each table goes straight into the file that `save_ngram` would write."""

    def store(n: int) -> Store:
        def keep(width: int, blocks: Iterator[np.ndarray]) -> np.ndarray:
            path = directory / table_name(n)
            num_rows = 0
            with open(path, "wb") as file:
                file.write(_header(num_rows, width))
                for block in blocks:
                    file.write(np.ascontiguousarray(block, "<u8").data)  # not tofile, whose error has no number
                    num_rows += len(block)
                file.seek(0)
                file.write(_header(num_rows, width))
            return np.load(path, mmap_mode="r", allow_pickle=False)

        return keep

    return store


def _header(num_rows: int, width: int) -> bytes:
    """The head of a .npy file of uint64 [num_rows, width], 128 bytes whatever the number."""
    text = f"{{'descr': '<u8', 'fortran_order': False, 'shape': ({num_rows}, {width}), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def save_ngram(directory: str | Path, model: NgramModel) -> None:
    """Writes the model into ``directory``, which is made; the JSON last."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / "unigrams.npy", model.unigrams, allow_pickle=False)
    for n, rows in enumerate(model.tables, start=2):
        path = directory / table_name(n)
        if not (isinstance(rows, np.memmap) and path.exists() and path.samefile(str(rows.filename))):
            np.save(path, rows, allow_pickle=False)
    record = {
        "format_version": FORMAT_VERSION,
        "config": dataclasses.asdict(model.config),
        "bos_id": model.bos_id,
        "eos_id": model.eos_id,
        "unk_id": model.unk_id,
        "vocab_size": model.vocab_size,
        "num_rows": [len(rows) for rows in model.tables],
        "facts": model.facts,
    }
    (directory / "model.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def table_name(n: int) -> str:
    """The file of the order's table."""
    return f"table_{n}.npy"


def load_ngram(directory: str | Path) -> NgramModel:
    """The model of a directory; its arrays stay in their files. Raises UserError where it is missing or damaged."""
    directory = Path(directory)
    path = directory / "model.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = record["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format {version}, this jaxlm reads {FORMAT_VERSION}: use the jaxlm that wrote it"
            )
        unigrams = _load(directory / "unigrams.npy")
        tables = tuple(_load(directory / table_name(n)) for n in range(2, record["config"]["order"] + 1))
        config = NgramConfig(**record["config"] | {"prune": tuple(record["config"]["prune"])})
        sizes = [len(rows) for rows in tables]
        if len(unigrams) != record["vocab_size"] or sizes != record["num_rows"]:
            raise ValueError("the arrays have other lengths than model.json says")
        return NgramModel(
            config, record["bos_id"], record["eos_id"], record["unk_id"], unigrams, tables, record["facts"]
        )
    except FileNotFoundError as error:
        raise UserError(f"no n-gram model in {directory}: {Path(error.filename).name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the n-gram model in {directory} is damaged: {error}") from error


def _load(path: Path) -> np.ndarray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.view(np.ndarray)  # a plain array over the mapping: memmap's own class slows every slice
