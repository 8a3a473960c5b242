"""Files of a source, and its records: every format gives the same documents wherever they are packed."""

import csv
import gzip
import io
import json
import os
import tarfile
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig, Document
from jaxlm.data.source import ReadLimits, SourceConfig
from jaxlm.io.corpora import open_corpus
from jaxlm.io.corpora.documents import read_documents
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import account, find_files, read_source
from tests.io.corpora.reading import read, texts, zst

RECORDS = [{"text": "one\ntwo"}, {"text": '床前 "明月", 光'}, {"text": "c\td"}]


def _tar(members: dict[str, bytes], mode: Any = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _written(format: str) -> bytes:
    if format == "jsonl":
        return "".join(json.dumps(r) + "\n" for r in RECORDS).encode()
    if format == "json":
        return json.dumps(RECORDS, ensure_ascii=False, indent=1).encode()
    if format == "csv":
        buffer = io.StringIO()
        csv.writer(buffer).writerows([["id", "text"], *(["x", r["text"]] for r in RECORDS)])
        return buffer.getvalue().encode()
    if format == "tsv":
        cells = [r["text"].replace("\n", "\\n").replace("\t", "\\t") for r in RECORDS]
        return ("id\ttext\n" + "".join(f"x\t{cell}\n" for cell in cells)).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2, 3], "text": [r["text"] for r in RECORDS]}), buffer)
    return buffer.getvalue()


PACKINGS = {
    "plain": lambda name, content: (name, content),
    "gz": lambda name, content: (f"{name}.gz", gzip.compress(content)),
    "zst": lambda name, content: (f"{name}.zst", zst(content)),
    "zst frames": lambda name, content: (
        f"{name}.zst",
        zst(content[:9]) + zst(content[9:]),
    ),
    "zip": lambda name, content: ("a.zip", _zip({f"in/{name}": content, "in/.hidden": b"x"})),
    "gz in zip": lambda name, content: ("a.zip", _zip({f"in/{name}.gz": gzip.compress(content)})),
    "tar": lambda name, content: ("a.tar", _tar({f"in/{name}": content})),
    "tar of .": lambda name, content: (
        "a.tar",
        _tar({f"./in/{name}": content, "./in/.hidden": b"x", "./.git/x": b"x"}),
    ),
    "tar.gz of .": lambda name, content: ("a.tar.gz", _tar({f"./in/{name}": content, "./.hidden": b"x"}, "w:gz")),
    "zip of .": lambda name, content: ("a.zip", _zip({f"./in/{name}": content, "./__MACOSX/x": b"x"})),
    "tar.gz": lambda name, content: ("a.tar.gz", _tar({f"in/{name}": content}, "w:gz")),
    "tgz": lambda name, content: ("a.tgz", _tar({f"in/{name}.gz": gzip.compress(content)}, "w:gz")),
    "tar.zst": lambda name, content: ("a.tar.zst", zst(_tar({f"in/{name}": content}))),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("format", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_records_are_the_same_in_every_format_and_packing(tmp_path, format, packing):
    name, content = PACKINGS[packing](f"r.{format}", _written(format))
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name, f"{tmp_path}/*"):  # a folder, a file, a glob
        documents, bad = read(path, format, unescape=True)
        assert texts(documents) == [r["text"] for r in RECORDS]
        assert not bad.count
        assert not bad.passed
    where = str(tmp_path / name)
    assert all(d.origin.startswith(where) for d in documents)
    if "zip" in packing or "t" in packing.partition(".")[0][:1]:
        inside = f"::./in/r.{format}" if "of ." in packing else f"::in/r.{format}"
        assert all(inside in d.origin for d in documents)


def test_each_member_of_an_archive_is_a_file_of_its_own_but_in_a_compressed_tar(tmp_path):
    members = {f"{n}.txt": f"text {n}".encode() for n in (2, 1, 3)}
    for name, content in (("a.zip", _zip(members)), ("b.tar", _tar(members)), ("c.tar.gz", _tar(members, "w:gz"))):
        (tmp_path / name).write_bytes(content)
    source = SourceConfig("s", "text", (str(tmp_path),))
    files = find_files(source, BadInput())
    assert [f.member for f in files] == ["2.txt", "1.txt", "3.txt"] * 2 + ["*"]
    for file in files[:6]:
        (document,) = read_source(file, source, BadInput())
        assert document == Document(f"text {file.member[0]}", str(file))
    assert texts(read_source(files[6], source, BadInput())) == ["text 2", "text 1", "text 3"]
    assert find_files(source, BadInput()) == files


def test_include_and_exclude_choose_by_name_or_path(tmp_path):
    for name in ("a/ca01", "a/README", "b/ca02", "b/cats.txt", ".git/ca03"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(read(tmp_path)[0]) == ["a/README", "a/ca01", "b/ca02", "b/cats.txt"]
    assert texts(read(tmp_path, include=("ca??",))[0]) == ["a/ca01", "b/ca02"]
    assert texts(read(tmp_path, include=("ca*",), exclude=("b/*",))[0]) == ["a/ca01"]
    assert texts(read(tmp_path, exclude=("*.txt", "README"))[0]) == ["a/ca01", "b/ca02"]
    members = {"./a/ca01": b"a/ca01", "./b/ca02": b"b/ca02"}
    for name, content in (("x.tar", _tar(members)), ("x.tgz", _tar(members, "w:gz")), ("x.zip", _zip(members))):
        (tmp_path / name).write_bytes(content)
        assert texts(read(tmp_path / name, include=("b/*",))[0]) == ["b/ca02"]


def test_a_file_named_twice_is_read_once_and_a_missing_one_is_bad(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    source = SourceConfig("s", "text", (f"{tmp_path}/a.txt", f"{tmp_path}/*.txt", f"{tmp_path}/missing.txt"))
    bad = BadInput(skip=True)
    assert [f.path for f in find_files(source, bad)] == [f"{tmp_path}/a.txt"]
    assert [(r.file, r.reason) for r in bad.records] == [(f"{tmp_path}/missing.txt", "does not exist")]
    with pytest.raises(UserError, match=r"missing\.txt does not exist"):
        find_files(source, BadInput())
    with pytest.raises(UserError, match=r"source 's' has no file at .*/none\*"):
        find_files(SourceConfig("s", "text", (f"{tmp_path}/none*",)), BadInput(skip=True))


def test_a_file_of_two_spellings_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.zip").write_bytes(_zip({"b.txt": b"b", "c.txt": b"c"}))
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    paths = ("a.txt", "b.zip", f"{tmp_path}/a.txt", f"{tmp_path}/b.zip", "link/a.txt", "./*.txt")
    files = find_files(SourceConfig("s", "text", paths), BadInput())
    assert list(map(str, files)) == ["a.txt", "b.zip::b.txt", "b.zip::c.txt"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_read_each(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in (("a.txt", "first"), ("b.txt", "other"), ("a.txt", "later")):
            archive.writestr(name, content)
    documents, bad = read(tmp_path)
    assert (texts(documents), bad.count) == (["first", "other", "later"], 0)


def test_documents_of_packed_records(tmp_path):
    content = b'{"text": "one\\n\\ntwo"}\n{"text": "three"}\n'
    for name, packed in (
        ("a.jsonl", content),
        ("A.JSONL", content),
        ("a.ndjson", content),
        ("a.jsonl.gz", gzip.compress(content)),
        ("a.NDJSON.GZ", gzip.compress(content)),
        ("a.jsonl.zst", zst(content)),
    ):
        (tmp_path / name).write_bytes(packed)
        assert read_documents([tmp_path / name]) == ["one\n\ntwo", "three"], name
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    assert read_documents([tmp_path / "a.txt", tmp_path / "a.jsonl"]) == ["one", "two", "one\n\ntwo", "three"]


def test_text_is_files_paragraphs_or_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo \r\n\n\n  three\x0cx\n")
    assert texts(read(tmp_path)[0]) == ["one\r\ntwo \r\n\n\n  three\x0cx\n"]
    paragraphs = read(tmp_path, document="paragraph")[0]
    assert paragraphs == [Document("one\ntwo ", f"{tmp_path}/a.txt:1"), Document("  three\x0cx", f"{tmp_path}/a.txt:5")]
    assert texts(read(tmp_path, document="line")[0]) == ["one", "two ", "  three\x0cx"]


@pytest.mark.parametrize("document", ["line", "paragraph"])
def test_lines_across_blocks_lose_nothing(tmp_path, document, monkeypatch):
    from jaxlm.io.corpora import lines

    monkeypatch.setattr(lines, "_BLOCK", 7)
    wanted = [f"line {n} 床前明月光" * (1 + n % 3) for n in range(50)]
    (tmp_path / "a.txt").write_text("\n\n".join(wanted))
    documents = read(tmp_path, document=document)[0]
    assert texts(documents) == wanted
    assert [d.origin.rsplit(":", 1)[1] for d in documents] == [str(1 + 2 * n) for n in range(50)]


def test_json_arrays_are_read_across_any_chunk(tmp_path, monkeypatch):
    from jaxlm.io.corpora import records

    wanted = [f"“{n}” \\ [,] " + "字" * n for n in range(40)]
    (tmp_path / "a.json").write_text(json.dumps([{"text": w} for w in wanted], indent=2, ensure_ascii=False))
    (tmp_path / "b.json").write_text(' {"text": "alone"}\n')
    (tmp_path / "c.json").write_text("[ ]")
    for chunk in (1, 5, 64, 1 << 20):
        monkeypatch.setattr(records, "_CHUNK", chunk)
        documents, bad = read(tmp_path, "json")
        assert texts(documents) == [*wanted, "alone"]
        assert documents[3].origin == f"{tmp_path}/a.json:4"
        assert bad.listed == [f"{tmp_path}/c.json is empty: it holds no text"]


FIELDS = [
    (("title", "text"), "T\n\na\nb"),
    (("text",), "a\nb"),
    (("subtitle?", "title"), "T"),
    (("null?", "empty?", "title", "missing.deep?"), "T"),
    (("turns.1.said",), "yes"),
    (("turns.*.said",), "no\nyes"),
    (("turns.*.by?",), "me"),
    (("dotted.name",), "dotted"),
]


@pytest.mark.parametrize(("fields", "text"), FIELDS)
def test_fields_of_a_record_are_joined(tmp_path, fields, text):
    record = {
        "title": "T", "text": ["a", "b"], "null": None, "empty": "", "dotted.name": "dotted",
        "turns": [{"said": "no"}, {"said": "yes", "by": "me"}],
    }  # fmt: skip
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    assert texts(read(tmp_path, "jsonl", fields=fields)[0]) == [text]


def test_a_table_without_a_header_has_numbered_columns(tmp_path):
    (tmp_path / "a.tsv").write_text('why "so\tb\\nc\\\\n\n')
    assert texts(read(tmp_path, "tsv", header=False, fields=("1", "0"), separator="|")[0]) == ['b\\nc\\\\n|why "so']
    (document,) = read(tmp_path, "tsv", header=False, fields=("1",), unescape=True)[0]
    assert document == Document("b\nc\\n", f"{tmp_path}/a.tsv:1")


def test_parquet_lists_and_structs_are_fields_too(tmp_path):
    rows = [
        {"title": "t", "body": ["x", "y"], "meta": {"by": "me"}},
        {"title": None, "body": [], "meta": {"by": "you"}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    documents, bad = read(tmp_path, "parquet", fields=("title?", "body", "meta.by"), separator="/")
    assert texts(documents) == ["t/x\ny/me", "/you"]
    assert not bad.count


def test_tagged_words_become_text(tmp_path):
    said = "``/`` Yes/rb ''/'' ,/, he/pps didn't/dod* say/vb and/or/cc (/( left/vbd )/) ./."
    (tmp_path / "a").write_text(f"\n\n\t{said}\nSo/rb ./.\n\n\nEnd/nn !/.\n")
    assert texts(read(tmp_path, "tagged")[0]) == ["“Yes”, he didn't say and/or (left). So.\n\nEnd!"]


def test_encodings_are_tried_in_order(tmp_path):
    (tmp_path / "a.txt").write_bytes("café".encode("cp1252"))
    (tmp_path / "b.txt").write_text("café 床")
    assert texts(read(tmp_path, encodings=("utf-8", "cp1252"))[0]) == ["café", "café 床"]


def test_the_account_is_whole(tmp_path):
    lines = ['{"text": "good"}', '{"text": ""}', '{"text": " "}', '{"text": 3}', "", "{", '{"text": "good too"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    documents, bad = read(tmp_path, "jsonl")
    assert (len(documents), bad.count, bad.passed) == (2, 2, {"no text": 2})
    told = account(bad)
    assert told["bad_records"][0] == {
        "file": f"{tmp_path}/a.jsonl",
        "offset": 44,
        "reason": "has a field 'text' that is int, not text",
    }
    json.dumps(told)
    assert len(texts(read(tmp_path, "jsonl", max_documents=1)[0])) == 1


def test_a_forked_reader_does_not_share_the_place_in_a_zip(tmp_path):
    members = {f"{n}.txt": f"{n} ".encode() * 50_000 for n in range(8)}
    (tmp_path / "a.zip").write_bytes(_zip(members))
    source = SourceConfig("s", "text", (str(tmp_path),))
    files = find_files(source, BadInput())
    mine = read_source(files[0], source, BadInput())
    again = find_files(source, BadInput())
    assert again == files
    assert next(mine).text == members["0.txt"].decode()
    from jaxlm.io.corpora.archives import _open_zip

    stamp = os.stat(tmp_path / "a.zip").st_mtime_ns
    assert _open_zip(str(tmp_path / "a.zip"), stamp, os.getpid()) is not _open_zip(str(tmp_path / "a.zip"), stamp, 1)


def test_records_inside_one_object(tmp_path):
    record = {"canary": "x", "examples": [{"input": "a"}, {"output": "b"}, {"input": "c"}]}
    (tmp_path / "a.json").write_text(json.dumps(record))
    (tmp_path / "b.json").write_text('{"canary": "x"}')
    documents, bad = read(tmp_path, "json", fields=("input",), records="examples")
    assert documents == [Document("a", f"{tmp_path}/a.json:1"), Document("c", f"{tmp_path}/a.json:3")]
    assert "record 2 has no field 'input'" in bad.listed[0]
    assert "has no array 'examples'" in bad.listed[1]


@pytest.mark.parametrize("piece", [1, 10, 64, 500, 4000])
@pytest.mark.parametrize("format", ["jsonl", "text", "tsv"])
def test_pieces_of_a_large_file_are_its_lines_once_each(tmp_path, format, piece):
    wanted = [f"{n} 床前" * (1 + n % 7) for n in range(60)]
    lines = [json.dumps({"0": w}) if format == "jsonl" else w for w in wanted]
    path = tmp_path / f"a.{format}"
    path.write_text("\ufeff" + "\n".join(lines))
    fields = {"fields": ("0",), "header": False, "document": "line"}
    source = SourceConfig("s", format, (str(tmp_path),), limits=ReadLimits(piece_bytes=piece), **fields)
    files = find_files(source, BadInput())
    assert len(files) == 60 if piece == 1 else len(files) <= 60
    assert [f.start for f in files[1:]] == [f.stop for f in files[:-1]] or len(files) == 1
    documents = [list(read_source(file, source, BadInput())) for file in files]
    assert [d.text for piece in documents for d in piece] == wanted
    content = path.read_bytes()
    if len(files) > 2:
        assert documents[1][0].origin == f"{path}[{files[1].start}:]:1"
        assert content[files[1].start :].startswith(lines[len(documents[0])].encode())


def test_a_tfds_split_is_read_in_pieces(tmp_path, monkeypatch):
    from jaxlm.io.corpora import tfds_records
    from jaxlm.io.corpora.tfds_writer import DocumentWriter, shard_name, write_metadata

    writer = DocumentWriter(tmp_path / shard_name("train", 0, 1))
    for number in range(10):
        writer.add(f"text {number}", "source", f"origin {number}", "")
    write_metadata(tmp_path, {"train": [writer.close()]}, description="test", licence="none")
    monkeypatch.setattr(tfds_records, "_FILE_EXAMPLES", 4)
    source = SourceConfig("s", "tfds", tfds_name=str(tmp_path), fields=("origin", "text"), separator=": ")
    files = find_files(source, BadInput())
    assert [(f.start, f.stop) for f in files] == [(0, 4), (4, 8), (8, 10)]
    documents = [document for file in files for document in read_source(file, source, BadInput())]
    assert texts(documents) == [f"origin {n}: text {n}" for n in range(10)]
    assert documents[9].origin == f"{tmp_path}/train:9"
    corpus = open_corpus(CorpusConfig(source="tfds", tfds_name=str(tmp_path), validation_fraction=0), data_dir=None)
    assert texts(corpus.train()) == [f"text {n}" for n in range(10)]
    with pytest.raises(UserError, match="no split 'test': it has train"):
        find_files(SourceConfig("s", "tfds", tfds_name=str(tmp_path), tfds_split="test"), BadInput())
    with pytest.raises(UserError, match=r"no feature 'body' \(it has [^)]*\btext\b.*corpus\.text_field"):
        list(read_source(files[0], SourceConfig("s", "tfds", tfds_name=str(tmp_path), fields=("body",)), BadInput()))
