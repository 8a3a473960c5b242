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
    """Where the text comes from and how it is split."""

    source: Literal["stdlib", "text", "jsonl", "parquet", "tfds"] = "stdlib"
    """stdlib: docstrings and sources of the running Python's standard library, split by module. text, jsonl, parquet:
    the files of ``paths``. tfds: the TFDS dataset ``tfds_name``."""
    paths: tuple[str, ...] = ()
    """Files, folders or globs; .gz, .zst, zip and tar are opened."""
    text_field: str = "text"
    """Where the text is in a JSONL object, a Parquet table or a TFDS example."""
    document: Literal["file", "paragraph", "line"] = "file"
    """text: what one document is."""
    tfds_name: str | None = None
    """A name, or the folder of a prepared dataset."""
    tfds_split: str = "train"
    """Its split that is trained on."""
    tfds_validation_split: str | None = None
    """Its split that is held out; None = as ``split`` says."""
    tfds_data_dir: str | None = None
    """Where prepared datasets lie; None = where TFDS keeps them."""
    validation_fraction: float = 0.1
    """Share that is held out, where ``split`` decides."""
    split: Literal["hash", "tail"] = "hash"
    """hash: a document is held out if the hash of its text falls below ``validation_fraction``: copies of a document
    stay on one side, and adding files moves no document. tail: the end of the text, counted in characters (nanoGPT's
    split). Neither where ``validation_paths`` or ``tfds_validation_split`` is given, nor for stdlib."""
    validation_paths: tuple[str, ...] = ()
    """Files that are held out; () = as ``split`` says."""
    max_documents: int | None = None
    """The first ones alone, before the split; None = all."""
    on_bad: Literal["fail", "skip"] = "fail"
    """fail: the first bad file, line or record ends the run. skip: they are skipped, counted and listed."""
    stdlib_part: Literal["docstrings", "sources", "both"] = "docstrings"
    """stdlib: what is read of each module."""

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
