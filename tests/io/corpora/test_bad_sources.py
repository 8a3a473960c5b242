"""Bad input of every kind: file and byte are named, it is counted, and neither memory nor the process suffers."""

import gzip
import io
import json
import re
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.source import ReadLimits, SourceConfig
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import find_files, read_source
from tests.io.corpora.reading import read, texts, zst

NOISE = bytes(range(128)) * 99
RECORD = b'{"text": "ok"}\n'

# name -> (format, content, offset, reason)
BAD = {
    "empty.txt": ("text", b"", None, "is empty"),
    "empty.jsonl.gz": ("jsonl", gzip.compress(b""), None, "is empty"),
    "empty.json": ("json", b"", None, "is empty"),
    "empty.zst": ("text", lambda: zst(b""), None, "is empty"),
    "latin.txt": ("text", b"caf\xe9 au lait", 3, "is not utf-8: 0xe9"),
    "cut.txt.gz": ("text", gzip.compress(NOISE)[:-20], None, "is truncated"),
    "cut.txt.zst": ("text", lambda: zst(NOISE)[:-5], None, "is truncated"),
    "plain.txt.gz": ("text", b"no gzip at all", None, "is not a whole gzip file"),
    "plain.txt.zst": ("text", lambda: zst(b"") and b"no zstd at all", None, "is not a whole Zstandard file"),
    "plain.zip": ("text", b"no zip at all", None, "is not a whole zip file"),
    "plain.tar": ("text", b"no tar at all" * 99, None, "is not a whole tar file"),
    "plain.tar.gz": ("text", gzip.compress(b"no tar at all" * 99), None, "is not a whole tar file"),
    "cut.jsonl": ("jsonl", RECORD + b'{"text": \n', 15, "is not JSON"),
    "latin.jsonl": ("jsonl", RECORD + b'{"text": "\xff"}\n', 25, "is not utf-8: 0xff"),
    "list.jsonl": ("jsonl", b'["text"]\n', 0, "is a JSON list"),
    "field.jsonl": ("jsonl", b'{"body": "x"}\n', 0, r"has no field 'text' \(it has body\)"),
    "lone.jsonl": ("jsonl", b'{"text": "\\ud800"}\n', 0, r"lone surrogate U\+D800"),
    "deep.jsonl": ("jsonl", b"[" * 100_000 + b"\n", 0, "is n"),
    "cut.json": ("json", b'[{"text": "ok"}, {"text": ', 26, "is not JSON"),
    "after.json": ("json", b'[{"text": "ok"}] more', 17, "text after the end"),
    "comma.json": ("json", b'[{"text": "ok"} {"text": "ok"}]', 16, "expecting ','"),
    "latin.json": ("json", b'[{"text": "ok"}, {"text": "\xe9"}]', 27, "is not utf-8"),
    "deep.json": ("json", b"[" * 100_000, 1, "nested too deeply"),
    "ragged.tsv": ("tsv", b"id\ttext\n1\tok\n2\n", 13, "has 1 cells where the first line has 2"),
    "latin.tsv": ("tsv", b"id\ttext\n1\t\xe9\n", 10, "is not utf-8"),
    "quote.csv": ("csv", b'id,text\n1,ok\n2,"open\nmore\n', 13, "begins no CSV record"),
    "stray.csv": ("csv", b'id,text\n1,"a"b\n', 8, "begins no CSV record"),
    "not.parquet": ("parquet", b"PAR1 nothing", None, "is not a whole Parquet file"),
    "untagged": ("tagged", b"The/at dog barks/vb", 7, "has the word 'dog' without a tag"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_names_the_file_and_the_byte(tmp_path, name):
    format, content, offset, reason = BAD[name]
    (tmp_path / name).write_bytes(content() if callable(content) else content)
    good = {"tagged": "Good/jj", "text": "Good"}.get(format)
    if good is not None:
        (tmp_path / "zz_good").write_text(good)
    documents, bad = read(tmp_path, format) if good else _with_a_good_file(tmp_path, format)
    assert bad.count == len(bad.records) == 1
    (record,) = bad.records
    assert record.file == str(tmp_path / name)
    assert record.offset == offset
    assert re.search(reason, record.reason)
    assert texts(documents)[-1].lower() == "good"
    with pytest.raises(UserError, match=reason) as error:
        _read_strictly(SourceConfig("s", cast(Any, format), (str(tmp_path / name),)))
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def _read_strictly(source):
    strict = BadInput()
    return [document for file in find_files(source, strict) for document in read_source(file, source, strict)]


def _with_a_good_file(tmp_path, format):
    path = tmp_path / f"zz_good.{format}"
    if format == "parquet":
        pq.write_table(pa.table({"text": ["good"]}), path)
    else:
        path.write_text({"tsv": "id\ttext\n1\tgood\n", "csv": "text\ngood\n"}.get(format, json.dumps({"text": "good"})))
    return read(tmp_path, format)


@pytest.mark.parametrize("format", ["text", "jsonl", "tsv", "csv", "json"])
def test_a_line_of_100_mb_is_one_bad_record_and_takes_no_memory(tmp_path, format):
    path = tmp_path / f"big.{format}"
    good = {"jsonl": '{"text": "good"}', "json": '{"text": "good"}'}.get(format, "good")
    header = {"tsv": "text\n", "csv": "text\n"}.get(format, "")
    with path.open("w") as file:
        file.write(header + good + "\n" if format != "json" else f"[{good},\n")
        file.write('{"text": "' if format in ("json", "jsonl") else "")
        for _ in range(100):
            file.write("x" * (1 << 20))
        file.write("\n" + good + "\n")
    tracemalloc.start()
    documents, bad = read(path, format, document="line", limits=ReadLimits(max_document_bytes=4 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(documents) == (["good"] if format == "json" else ["good", "good"])
    (record,) = bad.records
    assert record.offset == len(header + good) + (3 if format == "json" else 1)
    assert "max_document_bytes" in record.reason
    assert peak < 40 << 20


def test_whole_files_and_paragraphs_over_the_limit_are_bad(tmp_path):
    (tmp_path / "a.txt").write_text("short\n\n" + "long " * 50 + "\n" + "lines " * 50 + "\n\nshort too\n")
    limits = ReadLimits(max_document_bytes=400)
    documents, bad = read(tmp_path, limits=limits)
    assert not documents
    assert "set document to 'paragraph' or 'line'" in bad.listed[0]
    documents, bad = read(tmp_path, document="paragraph", limits=limits)
    assert texts(documents) == ["short", "short too"]
    assert "line 3 begins a paragraph" in bad.listed[0]
    documents, bad = read(tmp_path, document="line", limits=ReadLimits(max_document_bytes=260))
    assert len(documents) == 3
    assert "line 4 has 301 bytes" in bad.listed[0]


BOMB = b"\0" * (40 << 20)


@pytest.mark.parametrize("name", ["b.txt.gz", "b.txt.zst", "b.zip", "b.tar.gz", "b.zip in"])
def test_bombs_stop_at_the_stated_limit(tmp_path, name):
    path = tmp_path / name.partition(" ")[0]
    if name.endswith(".zst"):
        path.write_bytes(zst(BOMB))
    elif name == "b.tar.gz":
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("b.txt")
            info.size = len(BOMB)
            tar.addfile(info, io.BytesIO(BOMB))
    elif name.startswith("b.zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            if name.endswith("in"):  # the zip declares nothing wrong: its member is the bomb
                archive.writestr("b.txt.gz", gzip.compress(BOMB))
            else:
                archive.writestr("b.txt", BOMB)
    else:
        path.write_bytes(gzip.compress(BOMB))
    (tmp_path / "good.txt").write_text("good")
    tracemalloc.start()
    documents, bad = read(tmp_path, document="line", limits=ReadLimits(max_document_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(documents) == ["good"]
    assert any("expands beyond limits.max_expansion" in line and str(path) in line for line in bad.listed)
    assert peak < 64 << 20


def test_a_repetitive_file_below_the_floor_is_no_bomb(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"again " * 1_000_000))
    documents, bad = read(tmp_path)
    assert (len(documents), bad.count) == (1, 0)


def test_members_that_cannot_be_read_are_bad_alone(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner.zip", b"")
        archive.writestr("good.txt", "good")
        archive.writestr("flipped.txt", "flip me")
        archive.writestr("secret.txt", "secret")
    content = (tmp_path / "a.zip").read_bytes().replace(b"flip me", b"flap me")
    entry = content.rindex(b"secret.txt") - 46  # the central directory's: general purpose flags at 8
    content = content[: entry + 8] + b"\x01" + content[entry + 9 :]
    (tmp_path / "a.zip").write_bytes(content)
    documents, bad = read(tmp_path)
    assert texts(documents) == ["good"]
    reasons = {r.file.rpartition("::")[2]: r.reason for r in bad.records}
    assert "archive inside an archive" in reasons["inner.zip"]
    assert "Bad CRC-32" in reasons["flipped.txt"]
    assert reasons["secret.txt"] == "is encrypted"


def test_a_truncated_tar_says_so(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 20_000
            tar.addfile(info, io.BytesIO(name.encode() * 4_000))
    cut = buffer.getvalue()[:30_000]
    (tmp_path / "x.tar").write_bytes(cut)
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(cut))
    documents, bad = read(tmp_path)
    assert [d.origin.rpartition("::")[2] for d in documents] == ["a.txt", "a.txt"]
    assert {r.file.partition("::")[0] for r in bad.records} == {str(tmp_path / "x.tar"), str(tmp_path / "y.tar.gz")}


def test_a_number_of_too_many_digits_is_a_bad_record(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a", "n": ' + "1" * 5000 + "}]")
    documents, bad = read(tmp_path / "a.json", "json")
    assert not documents
    assert "Exceeds the limit" in bad.listed[0]


def test_links_to_folders_are_followed_and_no_folder_is_read_twice(tmp_path):
    """Real folders first; a link back to what contains it ends nowhere."""
    (tmp_path / "in" / "real").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "real" / "a.txt").write_text("a")
    (tmp_path / "out" / "b.txt").write_text("b")
    for name, target in (("again", "in/real"), ("more", "out"), ("real/up", "in")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target, target_is_directory=True)
    found = find_files(SourceConfig("s", "text", (str(tmp_path / "in"),)), BadInput())
    assert [Path(file.path).relative_to(tmp_path / "in").as_posix() for file in found] == ["more/b.txt", "real/a.txt"]


def test_a_file_that_cannot_be_opened_is_bad(tmp_path):
    source = SourceConfig("s", "text", (str(tmp_path),))
    (tmp_path / "a.txt").write_text("a")
    (file,) = find_files(source, BadInput())
    (tmp_path / "a.txt").unlink()
    bad = BadInput(skip=True)
    assert not list(read_source(file, source, bad))
    assert "cannot be read: No such file" in bad.listed[0]
