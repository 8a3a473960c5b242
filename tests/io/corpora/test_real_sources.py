"""The published data beside a developer's checkout: every record of it counted, against figures of its README."""

import pydoc

import pytest

from jaxlm.data.source import CodeRules, SourceConfig
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import find_files, read_source

# name -> (fields of the source, path under shared/data, documents)
REAL = {
    "brown": ({"format": "tagged", "include": ("c[a-r][0-9][0-9]",)}, "text/brown", 450),
    "speeches": ({"format": "text", "exclude": ("README",), "encodings": ("utf-8", "cp1252")}, "text/state_union", 65),
    "names": ({"format": "text", "document": "line"}, "text/names", 32_033),
    "shakespeare": ({"format": "text"}, "text/tinyshakespeare", 1),
    "wikitext": ({"format": "text", "document": "line", "include": ("train*",)}, "text/wikitext-2", None),
    "tang": ({"format": "json", "fields": ("title", "paragraphs"), "separator": "\n"}, "chinese/tang", 40_021),
    "song_ci": ({"format": "json", "fields": ("rhythmic", "paragraphs")}, "chinese/song_ci", 12_000),
    "lunyu": ({"format": "json", "fields": ("chapter", "paragraphs")}, "chinese/lunyu.json", 20),
    "belle": (
        {"format": "jsonl", "fields": ("instruction", "instances.*.input", "instances.*.output")},
        "chinese/belle_zh_seed_tasks.jsonl",
        175,
    ),
    "cmmlu": ({"format": "csv", "fields": ("Question", "A", "B", "C", "D")}, "chinese/cmmlu/test", 5_664),
    "flan": (
        {"format": "tsv", "header": False, "fields": ("0", "2", "1"), "unescape": True},
        "reasoning/flan_cot",
        7_473 + 2_728 + 2_061 + 1_084,
    ),
    "gsm8k": ({"format": "jsonl", "fields": ("question", "answer")}, "reasoning/gsm8k", 7_473),
}


@pytest.mark.parametrize("name", REAL)
def test_every_record_of_the_published_data_is_a_document(shared_data, name):
    fields, path, count = REAL[name]
    source = SourceConfig(name, paths=(str(shared_data / path),), **fields)
    bad = BadInput()  # the first bad record would raise
    documents = [document for file in find_files(source, bad) for document in read_source(file, source, bad)]
    assert not bad.num_passed
    assert count is None or len(documents) == count
    assert len({document.origin for document in documents}) == len(documents)
    if name == "brown":
        assert documents[0].text.startswith(
            "The Fulton County Grand Jury said Friday an investigation of Atlanta's recent primary election produced "
            "“no evidence” that any irregularities took place.\n\nThe jury further said"
        )
    if name == "shakespeare":
        assert len(documents[0].text) == 1_115_394
    if name == "wikitext":
        assert sum(len(d.text.split()) for d in documents) == 2_051_910


def test_pages_that_pydoc_writes_and_the_standard_library_are_read(tmp_path, monkeypatch):
    import string

    pytest.importorskip("trafilatura", reason="pip install 'jaxlm[clean]'", exc_type=ImportError)
    (tmp_path / "string.html").write_text(pydoc.HTMLDoc().page("string", pydoc.HTMLDoc().document(string)))
    source = SourceConfig("pydoc", "html", (str(tmp_path),))
    (file,) = find_files(source, BadInput())
    (document,) = read_source(file, source, BadInput())
    assert "Return a copy of the string" in document.text or "capwords" in document.text
    assert "<" not in document.text.splitlines()[0]
    code = SourceConfig("stdlib", "code", (pydoc.__file__,), code=CodeRules((".py",)))
    (document,) = read_source(find_files(code, BadInput())[0], code, BadInput())
    assert document.text.startswith("#!/usr/bin/env python3")
    assert document.part.startswith("python ")
