"""What a corpus is: its configuration and its documents. ``io.corpora`` reads them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Document(NamedTuple):
    """One text. ``origin`` says where it stands (file, line, module); ``part`` names its kind within the corpus."""

    text: str
    origin: str
    part: str = ""


@dataclass(frozen=True)
class CorpusConfig:
    """Where the text comes from and how it is split.

    source
        "stdlib": docstrings and sources of the running Python's standard library, split by module.
        "text", "jsonl", "parquet": files, folders or globs in ``paths``; .gz, .zst, zip and tar are opened.
        "tfds": the TFDS dataset ``tfds_name`` (a name, or the folder of a prepared dataset).
    split
        "hash": a document is validation if the hash of its text falls below ``validation_fraction``: copies of a
        document stay on one side, and adding files moves no document.
        "tail": the last ``validation_fraction`` of the text, counted in characters (nanoGPT's split).
        Neither is used where ``validation_paths`` or ``tfds_validation_split`` is given, nor for "stdlib".
    on_bad
        "fail": the first bad file, line or record ends the run. "skip": they are skipped, counted and listed.
    """

    source: Literal["stdlib", "text", "jsonl", "parquet", "tfds"] = "stdlib"
    paths: tuple[str, ...] = ()
    text_field: str = "text"  # of a JSONL object, a Parquet table or a TFDS example
    document: Literal["file", "paragraph", "line"] = "file"  # for "text": what one document is
    tfds_name: str | None = None
    tfds_split: str = "train"
    tfds_validation_split: str | None = None
    tfds_data_dir: str | None = None
    validation_fraction: float = 0.1
    split: Literal["hash", "tail"] = "hash"
    validation_paths: tuple[str, ...] = ()
    max_documents: int | None = None  # the first ones, before the split
    on_bad: Literal["fail", "skip"] = "fail"
    stdlib_part: Literal["docstrings", "sources", "both"] = "docstrings"

    def __post_init__(self) -> None:
        choices = {
            "source": ("stdlib", "text", "jsonl", "parquet", "tfds"),
            "document": ("file", "paragraph", "line"),
            "split": ("hash", "tail"),
            "on_bad": ("fail", "skip"),
            "stdlib_part": ("docstrings", "sources", "both"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(allowed)}")
        for name in ("paths", "validation_paths"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}={getattr(self, name)!r} is one string: write a tuple of paths")
        if self.source in ("text", "jsonl", "parquet"):
            if not self.paths:
                raise ValueError(f"source={self.source!r} needs paths: name files, folders or globs")
        elif self.paths or self.validation_paths:
            raise ValueError(f"source={self.source!r} reads no paths: set source to 'text', 'jsonl' or 'parquet'")
        if (self.source == "tfds") != (self.tfds_name is not None):
            raise ValueError(f"source={self.source!r} with tfds_name={self.tfds_name!r}: give both or neither")
        if self.source == "stdlib" and self.split == "tail":
            raise ValueError("split='tail' is not for source='stdlib', which is split by module: use split='hash'")
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction={self.validation_fraction} is outside 0 .. 1 (1 excluded)")
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"max_documents={self.max_documents} is below 1: use None for all")
