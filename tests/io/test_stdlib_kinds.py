"""The task of the standard library's docstrings: kinds as the sources say, split as the corpus is, classes even."""

from collections import Counter

import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import stdlib
from jaxlm.io.corpora.stdlib_kinds import KINDS, load_kinds

SOURCE = '''"""Module @ a@ b@ c@ d@ e@ f@ g@."""

class C:
    """Class @ h@ i@ j@ k@ l@ m@ n@."""

    def method(self):
        """Method @ o@ p@ q@ r@ s@ t@ u@."""

        def inner():
            """Inner @ v@ w@ x@ y@ z@ aa@ bb@."""

if True:
    async def f():
        """Function @ cc@ dd@ ee@ ff@ gg@ hh@."""

    def g():
        """short"""
'''


def test_kinds_are_even_and_split_as_the_corpus(tmp_path):
    for n in range(40):
        (tmp_path / f"mod{n}.py").write_text(SOURCE.replace("@", str(n)))
    (tmp_path / "broken.py").write_text("def (")
    train, validation, _, _ = stdlib.load(CorpusConfig(), None, tmp_path)
    found = load_kinds(None, tmp_path)
    for examples, documents in zip(found, (train, validation), strict=True):
        counts = Counter(one.label for one in examples)
        assert set(counts) == set(KINDS)
        assert len(set(counts.values())) == 1
        texts = {document.origin: document.text for document in documents}
        for one in examples:
            assert one.text in texts[one.module]
            said = one.text.split()[0].lower()
            assert one.label == ("function" if said == "inner" else said)
    assert not {one.module for one in found[0]} & {one.module for one in found[1]}
    assert load_kinds(None, tmp_path) == found


def test_a_kind_that_is_missing_is_refused(tmp_path):
    for n in range(40):
        (tmp_path / f"mod{n}.py").write_text(f'"""Module w{n} with words w{n}a w{n}b w{n}c of its own."""\n')
    with pytest.raises(UserError, match="no docstring of a class"):
        load_kinds(None, tmp_path)
