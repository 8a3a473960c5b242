"""A source is refused at birth where it cannot be read, and two sources never share a name."""

import dataclasses

import pytest

from jaxlm.data.source import CodeRules, ReadLimits, SourceConfig, check_sources

GOOD = SourceConfig("web", "jsonl", ("a.jsonl",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "use letters"),
        ({"name": "a/b"}, "use letters"),
        ({"format": "docx"}, "format='docx' is none of text, jsonl"),
        ({"paths": "a.jsonl"}, "is one string"),
        ({"paths": ()}, "needs paths"),
        ({"weight": 0.0}, r"source 'web': weight=0.0 is not above 0"),
        ({"weight": -1.0}, "not above 0"),
        ({"weight": float("nan")}, "not above 0"),
        ({"weight": float("inf")}, "not above 0"),
        ({"language": "English"}, "ISO 639"),
        ({"licence": " "}, "licence is empty"),
        ({"fields": ()}, "name at least one field"),
        ({"fields": ("?",)}, "name at least one field"),
        ({"encodings": ("utf-8", "klingon")}, "'klingon' is unknown"),
        ({"encodings": ("utf-16",)}, "no single-byte line breaks"),
        ({"document": "word"}, "document='word' is none of"),
        ({"max_documents": 0}, "use None for all"),
        ({"format": "tfds"}, "give both or neither"),
        ({"tfds_name": "mnist"}, "give both or neither"),
        ({"format": "tfds", "tfds_name": "mnist"}, "has no paths"),
    ],
)
def test_bad_sources_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GOOD, **fields)


def test_two_sources_of_one_name_and_no_source_are_refused():
    check_sources([GOOD, dataclasses.replace(GOOD, name="books")])
    with pytest.raises(ValueError, match="sources 0 and 1 are both named 'WEB'"):
        check_sources([GOOD, dataclasses.replace(GOOD, name="WEB")])
    with pytest.raises(ValueError, match="needs at least one"):
        check_sources([])


def test_an_input_may_grow_by_ratio_above_a_floor_and_below_a_ceiling():
    limits = ReadLimits(max_expansion=10, expansion_floor=100, max_expanded_bytes=1000)
    assert [limits.expanded(n) for n in (0, 1, 10, 11, 100, 101)] == [100, 100, 100, 110, 1000, 1000]
    with pytest.raises(ValueError, match="max_expansion"):
        ReadLimits(max_expansion=0.5)
    with pytest.raises(ValueError, match="max_document_bytes"):
        ReadLimits(max_document_bytes=0)


@pytest.mark.parametrize(
    "fields", [{"suffixes": ".py"}, {"suffixes": ("py",)}, {"min_alphanumeric": 2.0}, {"max_line": 0}]
)
def test_bad_code_rules_are_refused(fields):
    with pytest.raises(ValueError):
        CodeRules(**fields)
