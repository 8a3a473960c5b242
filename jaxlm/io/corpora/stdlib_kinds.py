"""A task made from the embedded corpus: does a docstring describe a module, a class, a method or a function?

The texts are those of the corpus and are split as it is, by module: a model of its training text never saw the
validation texts. All classes have equally many, so that always saying one of them is right as often as its share.
"""

import gc
import inspect
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig, Document
from jaxlm.io.corpora import stdlib
from jaxlm.text.dedup import unit_hash

KINDS: tuple[str, ...] = get_args(stdlib.Kind)
_LEAST = 24  # characters, as in the corpus


class KindExample(NamedTuple):
    """A docstring, what it describes, and the module that it stands in."""

    text: str
    label: str
    module: str


def load_kinds(cache: Path | None, root: Path | None = None) -> tuple[list[KindExample], list[KindExample]]:
    """(train, validation), each in an order that is random and always the same, with equally many of each kind.

    ``root``: the library; None = the running Python's. Parsing takes some seconds.

    Raises:
      UserError: no sources there, or a split in which a kind does not occur.
    """
    root = Path(root or sysconfig.get_paths()["stdlib"])
    train, validation, _, _ = stdlib.load(CorpusConfig(), cache, root)
    found = list(_examples(root))
    return _balanced(found, train, "train"), _balanced(found, validation, "validation")


def _balanced(examples: Iterable[KindExample], documents: Iterable[Document], split: str) -> list[KindExample]:
    """Those that stand in ``documents``, where a copy has one place."""
    texts = {document.origin: document.text for document in documents}
    by_kind: dict[str, dict[str, KindExample]] = {kind: {} for kind in KINDS}
    for one in examples:
        if one.text in texts.get(one.module, ""):
            by_kind[one.label].setdefault(one.text, one)
    least, kind = min((len(found), kind) for kind, found in by_kind.items())
    if not least:
        raise UserError(f"the {split} text of the standard library has no docstring of a {kind}: give files of a task")
    chosen = [one for found in by_kind.values() for one in sorted(found.values(), key=_place)[:least]]
    return sorted(chosen, key=_place)


def _place(one: KindExample) -> float:
    return unit_hash(f"{one.module}\0{one.label}\0{one.text}")


def _examples(root: Path) -> Iterator[KindExample]:
    """Every docstring of the library."""
    collecting = gc.isenabled()
    gc.disable()  # as in `stdlib`: the parser makes millions of small objects
    try:
        for path in stdlib.source_files(root):
            module, parsed = stdlib.module_name(path.relative_to(root)), stdlib.parse_source(path.read_bytes())
            for found in () if parsed is None else stdlib.docstrings(parsed[1].body, module, "module"):
                text = inspect.cleandoc(found.text).strip("\n")
                if len(text) >= _LEAST:
                    yield KindExample(text, found.kind, module)
    finally:
        if collecting:
            gc.enable()
