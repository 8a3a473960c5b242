"""Whether what judges a model is apart from what it learns from: the same files, and the same records."""

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.io.corpora.hashes import hash_files


def check_held_out(
    train: Sequence[str],
    validation: Sequence[str],
    fields: tuple[str, str],
    hashes: Sequence[Sequence[str]] | None = None,
) -> None:
    """Raises UserError for a file to judge by that is one to learn from, and where all of them are copies of such.

    A single copy among others passes: folders of text hold the same licence.

    Args:
      train, validation: paths of files.
      fields: where the two are given, for errors.
      hashes: of the bytes of both (`hash_files`), where they are known.
    """
    mend = "a score on what was learnt by heart says nothing, name other files"
    own = {os.path.realpath(path) for path in train}
    for path in validation:
        if os.path.realpath(path) in own:
            raise UserError(f"{path} is in {fields[0]} and in {fields[1]}: {mend}")
    own_hashes, others = hashes or [hash_files([Path(path) for path in paths], None) for paths in (train, validation)]
    copied = {digest: path for path, digest in zip(train, own_hashes, strict=True) if digest}  # "": unreadable
    if others and all(digest in copied for digest in others):
        raise UserError(f"{validation[0]} in {fields[1]} is a copy of {copied[others[0]]} in {fields[0]}: {mend}")


def tell_repeated(
    train: Iterable[Hashable], validation: Sequence[Hashable], fields: tuple[str, str], say: Callable[[str], None]
) -> None:
    """Says how much of what is held out is in the training data word for word, where any is."""
    known = set(train)
    count = sum(one in known for one in validation)
    if count:
        say(f"  {count:,} of {len(validation):,} in {fields[1]} stand in {fields[0]} word for word")
