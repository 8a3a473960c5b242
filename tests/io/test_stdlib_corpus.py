"""The embedded corpus: split by module, docstrings cut out of the sources, no copies across the split."""

import ast
import warnings
from pathlib import Path

import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import open_corpus, stdlib
from jaxlm.text.dedup import copied_shares, normal_key

SOURCE = '''"""Module docstring, long enough to count."""
import os

def f(): "one line, sharing it with code, long enough"

class C:
    """Class docstring 床前明月光, long enough to be kept."""

    def only(self):
        r"""The only statement of its body, long enough."""

    async def nested(self):
        """Outer docstring,
            indented, long enough.
        """
        def inner():
            """Inner docstring, long enough to be kept."""
            return "not a docstring"
        "a string statement, no docstring"

if os:
    def g():
        """Under an if statement, long enough to count."""
        "would become the docstring if the first were cut away"
        return 1
else:
    try:
        x = 1
    except ValueError:
        def h():
            """In a handler, long enough to be kept."""
            return 2
    finally:
        x = 2
'''


def test_a_folder_is_one_group_whatever_its_name():
    module = stdlib._parse(Path("config-3.11-linux", "tool.py"), SOURCE.encode())
    assert module is not None
    assert (module.name, module.group) == ("config-3.11-linux.tool", "config-3.11-linux")


def _docstrings(source: str) -> list[str]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = list(ast.walk(ast.parse(source)))
    return [d for node in nodes if isinstance(node, holders) and (d := ast.get_docstring(node))]


@pytest.fixture
def library(tmp_path):
    """A standard library of 40 modules."""
    root = tmp_path / "lib"
    for number in range(40):
        folder = root / f"package{number}"
        folder.mkdir(parents=True)
        # Each module has code of its own, and one long docstring that differs from the others' in a number alone.
        own = f"values = [{', '.join(f'name_{number}_{i}' for i in range(60))}]\n"
        near_copy = " ".join(f"word{i}" for i in range(60))
        own += f'def near():\n    """{near_copy} {number}."""\n'
        (folder / "__init__.py").write_text(SOURCE.replace("long enough", f"number {number} of the modules") + own)
    (root / "shared.py").write_text('"""A docstring that two modules share word for word."""\n')
    (root / "_shared.py").write_text('"""A  docstring that two modules share word for Word."""\n')
    (root / "broken.py").write_text("def (:")
    (root / "latin.py").write_bytes(
        b'# -*- coding: latin-1 -*-\n"""A docstring in latin-1: caf\xe9 au lait."""\nx = 1\n'
    )
    for skipped in ("test/test_x.py", "pkg/tests/y.py", "site-packages/z.py", "_sysconfigdata_linux.py"):
        path = root / skipped
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Never to be read, however long this docstring is."""\n')
    return root


def _load(root, cache=None, **fields):
    return stdlib.load(CorpusConfig(**fields), cache, root)


def test_docstrings_are_cut_out_and_the_rest_stays_python():
    with_docstrings = len(_docstrings(SOURCE))
    assert with_docstrings == 8
    module = stdlib._parse(stdlib.Path("m.py"), SOURCE.encode())
    assert module is not None
    assert sorted(d.text for d in module.docstrings) == sorted(_docstrings(SOURCE))
    assert {d.origin for d in module.docstrings} == {"m", "m.f", "m.C", "m.C.only", "m.C.nested",
                                                     "m.C.nested.inner", "m.g", "m.h"}  # fmt: skip
    assert module.source is not None
    assert _docstrings(module.source.text) == []
    assert "long enough" not in module.source.text
    assert '"not a docstring"' in module.source.text


def test_a_module_lies_on_one_side(library):
    for part in ("docstrings", "sources", "both"):
        train, validation, report, _ = _load(library, stdlib_part=part)
        tops = [{d.origin.split(".")[0] for d in split} for split in (train, validation)]
        assert tops[0].isdisjoint(tops[1])
        assert tops[1]
        assert (report.train.documents, report.validation.documents) == (len(train), len(validation))
        assert not any("Never to be read" in d.text for d in train + validation)
        assert report.dropped["unparsable"] == 1
    assert {d.part for d in train} == {"docstrings", "sources"}


def test_copies_are_dropped_and_never_reach_validation(library):
    train, validation, report, _ = _load(library)
    texts = [d.text for d in train + validation]
    assert len({normal_key(text) for text in texts}) == len(texts)
    assert report.dropped["repeated"] >= 1
    assert report.dropped["near copy"] > 0  # the modules differ in one number
    assert any("café" in text for text in texts)


def test_split_does_not_depend_on_the_part(library):
    sides = []
    for part in ("docstrings", "sources"):
        train, validation, _, _ = _load(library, stdlib_part=part)
        sides.append([{d.origin.split(".")[0] for d in split} for split in (train, validation)])
    assert sides[0][0].isdisjoint(sides[1][1])
    assert sides[1][0].isdisjoint(sides[0][1])


def test_twins_share_a_group():
    groups = {name: stdlib._group(name) for name in ("io", "_io", "_pyio", "_py_abc", "abc", "ntpath", "os", "py", "_")}
    assert groups["io"] == groups["_io"] == groups["_pyio"]
    assert groups["abc"] == groups["_py_abc"]
    assert groups["ntpath"] == groups["os"]
    assert groups["py"] == "py"
    assert groups["_"] == "_"


def test_kept_result_equals_a_fresh_one_and_damage_rebuilds_it(library, tmp_path):
    cache = tmp_path / "cache"
    fresh = _load(library, cache)
    (stored,) = cache.iterdir()
    assert _load(library, cache) == fresh == _load(library)
    stored.write_text(stored.read_text().replace("Module", "Nodule", 1))
    assert _load(library, cache) == fresh
    (library / "shared.py").write_text('"""Another docstring, which changes the content hash."""\n')
    assert _load(library, cache)[3] != fresh[3]


def test_max_documents_samples_modules(library):
    train, validation, _, _ = _load(library, max_documents=30, stdlib_part="sources")
    assert len(train) + len(validation) == 30


def test_no_sources_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no Python sources"):
        _load(tmp_path)


def test_running_library_holds_the_laws(tmp_path):
    corpus = open_corpus(CorpusConfig(), data_dir=tmp_path)
    report = corpus.report
    train, validation = [[d.text for d in split] for split in (corpus.train(), corpus.validation())]
    assert report.train.bytes > 1_200_000
    assert 0.08 < report.validation.bytes / (report.train.bytes + report.validation.bytes) < 0.12
    modules = [{d.origin.split(".")[0] for d in split} for split in (corpus.train(), corpus.validation())]
    assert modules[0].isdisjoint(modules[1])
    assert len(modules[1]) >= 15
    assert {normal_key(t) for t in train}.isdisjoint(normal_key(t) for t in validation)
    assert copied_shares(validation, train).max() <= 0.5
    assert open_corpus(CorpusConfig(), data_dir=tmp_path).content_hash == corpus.content_hash


@pytest.mark.slow
def test_running_librarys_sources_hold_no_docstring():
    corpus = open_corpus(CorpusConfig(stdlib_part="sources"), data_dir=None)
    for document in (*corpus.train(), *corpus.validation()):
        assert _docstrings(document.text) == [], document.origin
