"""Readers, splits and the refusal of bad input."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig, Document
from jaxlm.io.corpora import open_corpus
from jaxlm.io.corpora.documents import read_documents


def _open(tmp_path, source, paths, **fields):
    fields.setdefault("validation_fraction", 0.0)
    paths = (paths,) if isinstance(paths, str) else paths
    config = CorpusConfig(source=source, paths=tuple(str(tmp_path / p) for p in paths), **fields)
    return open_corpus(config, data_dir=tmp_path / "cache")


def _texts(documents) -> list[str]:
    return [document.text for document in documents]


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "web"},
        {"source": "text"},
        {"source": "text", "paths": "a.txt"},
        {"paths": ("a",)},
        {"source": "tfds"},
        {"tfds_name": "x"},
        {"split": "tail"},
        {"validation_fraction": 1.0},
        {"max_documents": 0},
        {"on_bad": "ignore"},
    ],
)
def test_bad_configs_are_refused(fields):
    with pytest.raises(ValueError):
        CorpusConfig(**fields)


def test_text_documents_are_files_paragraphs_or_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo \r\n\n\n  three\x0cx\n")
    assert _texts(_open(tmp_path, "text", "a.txt").train()) == ["one\r\ntwo \r\n\n\n  three\x0cx\n"]
    paragraphs = _open(tmp_path, "text", "a.txt", document="paragraph").train()
    assert list(paragraphs) == [
        Document("one\ntwo ", f"{tmp_path}/a.txt:1"),
        Document("  three\x0cx", f"{tmp_path}/a.txt:5"),
    ]
    assert _texts(paragraphs) == _texts(paragraphs)  # re-iterable
    assert _texts(_open(tmp_path, "text", "a.txt", document="line").train()) == ["one", "two ", "  three\x0cx"]


def test_folders_and_globs_are_sorted_and_skip_hidden_files(tmp_path):
    for name in ("b/2.jsonl", "a.jsonl.gz", "b/1.jsonl", ".hidden.jsonl", "notes.txt"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"text": name}).encode() + b"\n\n"
        path.write_bytes(gzip.compress(line) if name.endswith(".gz") else line)
    assert _texts(_open(tmp_path, "jsonl", "data").train()) == ["a.jsonl.gz", "b/1.jsonl", "b/2.jsonl"]
    assert _texts(_open(tmp_path, "jsonl", "data/b/*.jsonl").train()) == ["b/1.jsonl", "b/2.jsonl"]
    assert _texts(_open(tmp_path, "jsonl", "data", max_documents=2).train()) == ["a.jsonl.gz", "b/1.jsonl"]


def test_parquet_reads_the_named_column(tmp_path):
    pq.write_table(pa.table({"id": [1, 2, 3], "body": ["x", "", "床前"]}), tmp_path / "t.parquet")
    corpus = _open(tmp_path, "parquet", "t.parquet", text_field="body")
    assert _texts(corpus.train()) == ["x", "床前"]
    assert corpus.report.train.bytes == 7
    with pytest.raises(UserError, match=r"no column 'text' \(it has id, body\)"):
        _open(tmp_path, "parquet", "t.parquet")


BAD = {
    "missing.txt": ("text", None, r"missing\.txt does not exist"),
    "empty.txt": ("text", b"", r"empty\.txt is empty"),
    "empty.txt.gz": ("text", gzip.compress(b""), r"empty\.txt\.gz is empty"),
    "latin.txt": ("text", b"caf\xe9 au lait", r"latin\.txt is not utf-8: 0xe9 \(byte 3\)"),
    "cut.txt.gz": ("text", gzip.compress(bytes(range(128)) * 99)[:-20], r"cut\.txt\.gz is truncated"),
    "plain.txt.gz": ("text", b"no gzip at all", r"plain\.txt\.gz is not a whole gzip"),
    "bad.jsonl": ("jsonl", b'{"text": "ok"}\n{"text": \n', r"bad\.jsonl line 2 is not JSON"),
    "list.jsonl": ("jsonl", b'["text"]\n', r"list\.jsonl line 1 is a JSON list"),
    "field.jsonl": ("jsonl", b'{"body": "x"}\n', r"line 1 has no field 'text' \(it has body\)"),
    "number.jsonl": ("jsonl", b'{"text": 3}\n', r"line 1 has a field 'text' that is int"),
    "lone.jsonl": ("jsonl", b'{"text": "\\ud800"}\n', r"lone surrogate U\+D800"),
    "latin.jsonl": ("jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', r"line 2 is not utf-8: 0xff \(byte 25\)"),
    "deep.jsonl": ("jsonl", b"[" * 100_000 + b"\n", r"line 1 is n"),
    "cut.jsonl.gz": ("jsonl", gzip.compress(b'{"text": "ok"}\n' * 999)[:-9], r"cut\.jsonl\.gz is truncated"),
    "not.parquet": ("parquet", b"PAR1 nothing", r"not\.parquet is not a whole Parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name_or_skipped_and_listed(tmp_path, name):
    source, content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    good = "good.parquet" if source == "parquet" else f"good.{source}"
    if source == "parquet":
        pq.write_table(pa.table({"text": ["good"]}), tmp_path / good)
    else:
        (tmp_path / good).write_text('{"text": "good"}' if source == "jsonl" else "good")
    with pytest.raises(UserError, match=message) as error:
        _open(tmp_path, source, (name, good))
    assert "\n" not in str(error.value)
    for _ in range(2):  # the second time from the kept report
        corpus = _open(tmp_path, source, (name, good), on_bad="skip")
        assert corpus.report.num_skipped == 1
        assert len(corpus.report.skipped) == 1
        assert name in corpus.report.skipped[0]
        assert _texts(corpus.train())[-1] == "good"
        assert corpus.report.train.documents == len(list(corpus.train()))


def test_hash_split_keeps_copies_on_one_side_and_survives_more_files(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {i % 300}\n" for i in range(600)))
    corpus = _open(tmp_path, "text", "a.txt", document="line", validation_fraction=0.2)
    train, validation = set(_texts(corpus.train())), set(_texts(corpus.validation()))
    assert train.isdisjoint(validation)
    assert len(train | validation) == 300
    assert 0.1 < len(validation) / 300 < 0.3
    (tmp_path / "b.txt").write_text("one more\nand one more\n")
    more = _open(tmp_path, "text", ("b.txt", "a.txt"), document="line", validation_fraction=0.2)
    assert validation <= set(_texts(more.validation()))
    assert train <= set(_texts(more.train()))


def test_tail_split_is_nanogpts(shared_data):
    path = shared_data / "text" / "tinyshakespeare" / "input.txt"
    corpus = open_corpus(CorpusConfig(source="text", paths=(str(path),), split="tail"), data_dir=None)
    text = path.read_text()
    assert _texts(corpus.train()) == [text[:1_003_854]]
    assert _texts(corpus.validation()) == [text[1_003_854:]]
    assert (corpus.report.train.characters, corpus.report.validation.characters) == (1_003_854, 111_540)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.9])
def test_tail_split_cuts_the_joined_text(tmp_path, fraction):
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("字符"[number % 2] * (10 + number))
    corpus = _open(tmp_path, "text", "*.txt", split="tail", validation_fraction=fraction)
    train, validation = "".join(_texts(corpus.train())), "".join(_texts(corpus.validation()))
    assert len(train) == int(46 * (1 - fraction)) == corpus.report.train.characters
    assert train + validation == "".join("字符"[n % 2] * (10 + n) for n in range(4))
    assert all(_texts(corpus.validation()))


def test_named_validation_files_are_used_as_they_are(tmp_path):
    (tmp_path / "a.txt").write_text("train")
    (tmp_path / "b.txt").write_text("validation")
    corpus = _open(tmp_path, "text", "a.txt", validation_paths=(str(tmp_path / "b.txt"),))
    assert (_texts(corpus.train()), _texts(corpus.validation())) == (["train"], ["validation"])
    (tmp_path / "c.txt").write_text("")
    with pytest.raises(UserError, match="no validation document"):
        _open(tmp_path, "text", "a.txt", validation_paths=(str(tmp_path / "c.txt"),), on_bad="skip")


def test_what_is_trained_on_is_not_held_out(tmp_path):
    (tmp_path / "a.txt").write_text("train")
    (tmp_path / "copy.txt").write_text("train")
    (tmp_path / "b.txt").write_text("validation")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    for held_out, words in (
        (("a.txt",), "a.txt is in corpus.paths and in corpus.validation_paths: "),
        (("b.txt", "link.txt"), "link.txt is in corpus.paths and in corpus.validation_paths: "),
        (("copy.txt",), "copy.txt in corpus.validation_paths is a copy of .*a.txt in corpus.paths: "),
    ):
        with pytest.raises(UserError, match=words):
            _open(tmp_path, "text", "a.txt", validation_paths=tuple(str(tmp_path / name) for name in held_out))
    # A copy among other files, such as a licence, is taken as it is.
    paths = (str(tmp_path / "b.txt"), str(tmp_path / "copy.txt"))
    assert _texts(_open(tmp_path, "text", "a.txt", validation_paths=paths).validation()) == ["validation", "train"]


def test_a_split_without_documents_names_the_mend(tmp_path):
    (tmp_path / "a.txt").write_text("one document\n\nof two paragraphs")
    fields = "set corpus.split=tail or corpus.document=paragraph or corpus.validation_paths"
    # One document is on the side of its hash, and no fraction helps.
    for fraction, words in ((0.1, "no validation document among 1"), (0.999, "no training document (1 for validation")):
        with pytest.raises(UserError) as caught:
            _open(tmp_path, "text", "a.txt", validation_fraction=fraction)
        assert words in str(caught.value)
        assert str(caught.value).endswith(f": {fields}")
    assert _open(tmp_path, "text", "a.txt", split="tail", validation_fraction=0.1).report.validation.documents == 1
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    with pytest.raises(UserError) as caught:
        _open(tmp_path, "jsonl", "b.jsonl", validation_fraction=0.001)
    assert str(caught.value).endswith(
        "among 2: set corpus.split=tail or corpus.validation_paths, or raise corpus.validation_fraction (0.001)"
    )


def test_content_hash_follows_content_and_rules_not_names(tmp_path):
    for name, text in (("a.txt", "same"), ("b.txt", "same"), ("c.txt", "other")):
        (tmp_path / name).write_text(text)
    hashes = [_open(tmp_path, "text", name).content_hash for name in ("a.txt", "b.txt", "c.txt")]
    assert hashes[0] == hashes[1] != hashes[2]
    assert _open(tmp_path, "text", "a.txt", document="line").content_hash != hashes[0]
    assert _open(tmp_path, "text", "a.txt", split="tail").content_hash != hashes[0]


def test_a_cache_that_is_a_file_is_passed_over(tmp_path):
    (tmp_path / "cache").write_text("mine")
    (tmp_path / "a.txt").write_text("one")
    assert _texts(_open(tmp_path, "text", "a.txt").train()) == ["one"]


def test_documents_of_named_files_advise_no_option_of_a_corpus(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{")
    for name in ("NOPE", "bad.jsonl"):
        with pytest.raises(UserError, match=f"{name} .*; mend it, or name another$"):
            read_documents([tmp_path / name])
