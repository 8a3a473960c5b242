"""The embedded corpus: docstrings and sources of the running Python's standard library.

Nearly every docstring stands verbatim in its source file, so the split is by module: a top-level module or package lies
wholly in train or wholly in validation, together with its accelerator or fallback twin (``_pyio`` with ``io``). The
docstrings are cut out of the sources. Copies are dropped: a docstring or source that equals one before it up to case
and space, or shares more than half of its five-word runs with those before it. Training documents come first, so
a copy across the split is dropped from validation.
"""

import ast
import gc
import hashlib
import inspect
import io
import json
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig, Document
from jaxlm.io.corpora.report import CorpusReport, count, load_cached, store_cached
from jaxlm.text.dedup import normal_key, repeated_shares, unit_hash

VERSION = 4  # raise when the same sources would give other documents
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}
_MIN_DOCSTRING = 24  # characters; shorter ones ("Return self.") are a tenth of the documents and say nothing
_MIN_SOURCE = 200
_MAX_REPEATED = 0.5  # share of five-word runs that stood in a document before
# The character tables of the codecs are a tenth of all source and one file in all but their numbers.
_NO_SOURCES = {"encodings", "pydoc_data"}
_TOPICS = "pydoc_data.topics"  # counted with the docstrings: prose on Python; too large to be held out
_TWINS = {"ntpath": "os", "posixpath": "os", "genericpath": "os", "sre_compile": "re", "sre_parse": "re",
          "sre_constants": "re", "_collections_abc": "collections", "_strptime": "time"}  # fmt: skip


Kind = Literal["module", "class", "method", "function"]
"""What a docstring describes."""


class Module(NamedTuple):
    """One source file: its dotted name, its group for the split, its documents."""

    name: str
    group: str
    docstrings: list[Document]
    source: Document | None


def load(
    config: CorpusConfig, cache: Path | None, root: Path | None = None
) -> tuple[list[Document], list[Document], CorpusReport, str]:
    """(train, validation, report, content hash) of the standard library under ``root`` (the running Python's).

    Parsing takes some seconds; the result is kept under ``cache``, keyed by a hash of the sources.

    Raises:
        UserError: no source files there (a frozen or stripped Python).
    """
    root = Path(root or sysconfig.get_paths()["stdlib"])
    files = {path: path.read_bytes() for path in source_files(root)}
    if not files:
        raise UserError(f"no Python sources under {root}: this Python has no readable standard library; use other text")
    wanted = [VERSION, config.stdlib_part, config.validation_fraction, config.max_documents]
    key = hashlib.sha256(json.dumps(wanted).encode())
    for path, content in files.items():
        key.update(f"\0{path.relative_to(root)}\0{len(content)}\0".encode())
        key.update(content)
    stored = None if cache is None else cache / f"stdlib-{key.hexdigest()[:24]}.json"
    splits, dropped = _load_stored(stored)
    if splits is None:
        splits, dropped = _build(root, files, config)
        data = {"splits": splits, "dropped": dropped, "hash": _hash(splits)}
        store_cached(stored, data)
    train, validation = splits
    report = CorpusReport(count(train), count(validation), dropped=dropped)
    return train, validation, report, _hash(splits)


def _load_stored(path: Path | None) -> tuple[tuple[list[Document], list[Document]] | None, dict[str, int]]:
    try:
        data = load_cached(path)
        train, validation = ([Document(*item) for item in split] for split in data["splits"])
        splits = train, validation
        if data["hash"] == _hash(splits):
            return splits, dict(data["dropped"])
    except (KeyError, TypeError, ValueError):
        pass
    return None, {}


def _hash(splits: tuple[list[Document], list[Document]]) -> str:
    return hashlib.sha256(json.dumps(splits).encode()).hexdigest()


def source_files(root: Path) -> list[Path]:
    """The library's own modules, without tests and installed packages, in order."""
    found = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        # _sysconfigdata holds the paths and flags of one build of Python, not text.
        if _SKIPPED_FOLDERS.isdisjoint(parts) and not parts[-1].startswith("_sysconfigdata"):
            found.append(path)
    return sorted(found, key=lambda p: p.relative_to(root).parts)


def _build(
    root: Path, files: dict[Path, bytes], config: CorpusConfig
) -> tuple[tuple[list[Document], list[Document]], dict[str, int]]:
    dropped = {"unparsable": 0, "short": 0, "repeated": 0, "near copy": 0}
    modules = []
    collecting = gc.isenabled()
    gc.disable()  # the parser makes millions of small objects: with collection on it takes five times as long
    try:
        for path, content in files.items():
            module = _parse(path.relative_to(root), content)
            if module is None:
                dropped["unparsable"] += 1
            else:
                modules.append(module)
    finally:
        if collecting:
            gc.enable()
    held_out = _validation_groups(modules, config.validation_fraction)
    parts = ("docstrings", "sources") if config.stdlib_part == "both" else (config.stdlib_part,)
    train: list[Document] = []
    validation: list[Document] = []
    for part in parts:
        least = _MIN_DOCSTRING if part == "docstrings" else _MIN_SOURCE
        seen: set[bytes] = set()
        fresh: dict[bool, list[tuple[str, Document]]] = {False: [], True: []}
        for is_validation in (False, True):  # train first: of two copies the training one stays
            for module in modules:
                if (module.group in held_out) != is_validation:
                    continue
                for document in module.docstrings if part == "docstrings" else [module.source]:
                    if document is None or len(document.text) < least:
                        dropped["short"] += document is not None
                        continue
                    key = normal_key(document.text)
                    dropped["repeated"] += key in seen
                    if key not in seen:
                        seen.add(key)
                        fresh[is_validation].append((module.name, document))
        both = [*fresh[False], *fresh[True]]
        near = iter(repeated_shares(document.text for _, document in both) > _MAX_REPEATED)
        original = [[item for item in fresh[side] if not next(near)] for side in (False, True)]
        dropped["near copy"] += len(both) - sum(map(len, original))
        train += _by_module(original[0])
        validation += _by_module(original[1])
    if config.max_documents is not None:
        # The modules are in alphabetical order, so the first ones would be no sample.
        places = sorted(unit_hash(d.origin + d.part) for d in train + validation)
        bar = places[min(config.max_documents, len(places)) - 1]
        train, validation = ([d for d in s if unit_hash(d.origin + d.part) <= bar] for s in (train, validation))
    return (train, validation), dropped


def _by_module(items: list[tuple[str, Document]]) -> list[Document]:
    """One document a module, its texts in their order: what a module says first is the context of the rest."""
    grouped: dict[str, list[Document]] = {}
    for name, document in items:
        grouped.setdefault(name, []).append(document)
    return [
        Document("\n\n".join(document.text.strip("\n") for document in documents) + "\n", name, documents[0].part)
        for name, documents in grouped.items()
    ]


def _validation_groups(modules: list[Module], fraction: float) -> set[str]:
    """Groups in the order of their hashes until they hold ``fraction`` of the text.

    Text is the mean of two shares, of the docstrings' and of the sources' characters: the two corpora have one split
    and can be mixed. A group with more than a quarter of the validation text stays in train, or one package would be
    most of what is scored.
    """
    sizes: dict[str, list[int]] = {}
    for module in modules:
        held = sizes.setdefault(module.group, [0, 0])
        held[0] += sum(len(d.text) for d in module.docstrings)
        held[1] += len(module.source.text) if module.source else 0
    totals = [max(1, sum(s[i] for s in sizes.values())) for i in (0, 1)]
    chosen: set[str] = set()
    taken = 0.0
    for group in sorted(sizes, key=unit_hash):
        share = sum(size / total for size, total in zip(sizes[group], totals, strict=True)) / 2
        if share <= fraction / 4 and taken + share <= fraction:
            chosen.add(group)
            taken += share
    return chosen


def _group(top: str) -> str:
    """The name that a module shares with its twins: ``_pydecimal`` and ``_decimal`` go with ``decimal``."""
    if top in _TWINS:
        return _TWINS[top]
    bare = top.lstrip("_")
    return bare[2:].lstrip("_") if top.startswith("_py") and len(bare) > 2 else bare or top


def module_name(path: Path) -> str:
    """The dotted name of a file, its path relative to the library: ``asyncio/__init__.py`` is ``asyncio``."""
    names = [*path.parts[:-1], path.stem]
    return ".".join(names[:-1] if len(names) > 1 and names[-1] == "__init__" else names)


def parse_source(content: bytes) -> tuple[str, ast.Module] | None:
    """(text, syntax tree) of a source file; None for one that is no Python."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding).replace("\r\n", "\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old modules
            return text, ast.parse(text)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return None


def _parse(path: Path, content: bytes) -> Module | None:
    parsed = parse_source(content)
    if parsed is None:
        return None
    text, tree = parsed
    name = module_name(path)
    documents, places = [], []
    for found in docstrings(tree.body, name, "module"):
        cleaned = inspect.cleandoc(found.text)
        if cleaned and _is_unicode(cleaned):
            documents.append(Document(cleaned, found.name, "docstrings"))
        places.append(found.body)
    if name == _TOPICS:
        documents += [Document(value, f"{name}.{key}", "docstrings") for key, value in _topics(tree)]
    top = path.parts[0] if len(path.parts) > 1 else path.stem  # a folder's name may hold a dot
    group = _group(top)
    source = None
    if top not in _NO_SOURCES and _is_unicode(text):
        source = Document(_cut_out(text, places).strip("\n") + "\n", name, "sources")
    return Module(name, group, documents, source)


def _topics(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(topic, text) of what ``help("for")`` prints: the language reference, in a dict of a generated module."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                match key, value:
                    case ast.Constant(value=str(topic)), ast.Constant(value=str(text)):
                        yield topic, text.strip("\n") + "\n"


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Docstring(NamedTuple):
    """One docstring as it stands in the source, not cleaned."""

    name: str
    """Qualified, of what it describes."""
    kind: Kind
    body: list[ast.stmt]
    """The statements that it opens."""
    text: str


def docstrings(body: list[ast.stmt], name: str, kind: Kind, *, opens: bool = True) -> Iterator[Docstring]:
    """Every docstring at or below ``body``, statements of a ``kind``; ``opens``: from its first one on.

    Goes through statements alone, never into expressions, where no docstring can be.
    """
    match body:
        case [ast.Expr(value=ast.Constant(value=str(text))), *_] if opens:
            yield Docstring(name, kind, body, text)
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from docstrings(node.body, f"{name}.{node.name}", "class")
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from docstrings(node.body, f"{name}.{node.name}", "method" if kind == "class" else "function")
            continue
        for block in ("body", "orelse", "finalbody"):
            inner = getattr(node, block, None)
            if isinstance(inner, list):
                yield from docstrings(inner, name, kind, opens=False)
        for handler in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from docstrings(handler.body, name, kind, opens=False)


def _cut_out(source: str, bodies: list[list[ast.stmt]]) -> str:
    """``source`` without the first statement of each body, still parsable: its lines go, or ``...`` takes its place.

    ``...`` stands where the body would be empty, where code shares the line, or where the next statement is a string
    that would become a docstring.
    """
    lines = [line.encode() for line in source.split("\n")]  # columns of the syntax tree count UTF-8 bytes
    for node, *others in sorted(bodies, key=lambda body: -body[0].lineno):  # from the end: earlier places stay valid
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        string_next = others and isinstance(others[0], ast.Expr) and isinstance(others[0].value, ast.Constant)
        if others and not string_next and not before.strip() and not after.strip():
            lines[first : last + 1] = []
        else:
            lines[first : last + 1] = [before + b"..." + after]
    return b"\n".join(lines).decode()
