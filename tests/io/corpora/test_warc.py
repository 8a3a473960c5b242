"""Web archives: their pages, with URL and offset; everything else counted under its kind."""

import gzip
import io
import random

import pytest

from jaxlm.data.source import ReadLimits
from tests.io.corpora.reading import read

pytest.importorskip("trafilatura", reason="pip install 'jaxlm[clean]'", exc_type=ImportError)
pytest.importorskip("warcio", reason="pip install 'jaxlm[clean]'")

from warcio.archiveiterator import ArchiveIterator

STORY = "The story is told here in plain words, one after the other, until it ends. " * 8


def _record(kind: str, url: str, block: bytes) -> bytes:
    """By hand: the standard's own words (ISO 28500), not the reader's package."""
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Length: {len(block)}\r\n"
    return f"{head}Content-Type: application/http; msgtype=response\r\n\r\n".encode() + block + b"\r\n\r\n"


def _archive(records, *, packed: bool) -> bytes:
    """records: (url, body, status, content type, further HTTP headers)."""
    parts = [_record("warcinfo", "", b"software: test\r\n")]
    for url, body, status, kind, more in records:
        headers = "".join(f"{name}: {value}\r\n" for name, value in [("Content-Type", kind), *more])
        parts.append(_record("response", url, f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body))
    return b"".join(gzip.compress(part) if packed else part for part in parts)


def _page(word: str, encoding: str = "utf-8") -> bytes:
    return f"<html><body><article><p>{STORY}</p><p>{word} {STORY}</p></article></body></html>".encode(encoding)


PACKED = [("Content-Encoding", "gzip")]
RECORDS = [
    ("http://e.org/utf8", _page("床前"), "200 OK", "text/html; charset=utf-8", []),
    ("http://e.org/gbk", _page("明月", "gbk"), "200 OK", 'text/html;charset="GBK"', []),
    (
        "http://e.org/zip",
        gzip.compress(_page("packed")),
        "200 OK",
        "application/xhtml+xml",
        [("Content-Encoding", "gzip")],
    ),
    ("http://e.org/gone", _page("gone"), "404 Not Found", "text/html", []),
    ("http://e.org/img", b"\x89PNG", "200 OK", "image/png", []),
    ("http://e.org/br", b"\x00\x01", "200 OK", "text/html", [("Content-Encoding", "br")]),
    ("http://e.org/broken", _page("é", "latin-1"), "200 OK", "text/html; charset=utf-8", []),
    ("http://e.org/empty", b"", "200 OK", "text/html", []),
    ("http://e.org/last", _page("last"), "200 OK", "text/html", []),
]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_every_record_is_a_document_or_counted_with_its_reason(tmp_path, name):
    content = _archive(RECORDS, packed=name.endswith(".gz"))
    (tmp_path / name).write_bytes(content)
    documents, bad = read(tmp_path, "warc")
    assert [d.origin.split()[1] for d in documents] == [f"http://e.org/{n}" for n in ("utf8", "gbk", "zip", "last")]
    assert all(word in d.text for word, d in zip(("床前", "明月", "packed", "last"), documents, strict=True))
    for document in documents:  # the archive can be entered at the offset
        where, _, offset = document.origin.split()[0].rpartition("@")
        assert where == str(tmp_path / name)
        record = next(iter(ArchiveIterator(io.BytesIO(content[int(offset) :]))))
        assert record.rec_headers.get_header("WARC-Target-URI") == document.origin.split()[1]
    assert bad.passed == {
        "WARC record of type warcinfo": 1,
        "HTTP status 404": 1,
        "page of type image/png": 1,
        "no text": 1,
    }
    unknown = "has the content encoding 'br', which is not known here"
    assert [r.reason for r in bad.records] == [unknown, "is not utf-8: 0xe9"]
    assert "http://e.org/broken is not utf-8" in bad.listed[1]
    assert len(documents) + bad.count + bad.num_passed == len(RECORDS) + 1


@pytest.mark.parametrize("packed", [True, False])
def test_a_cut_archive_keeps_what_stands_before_the_cut(tmp_path, packed):
    content = _archive(RECORDS[:2], packed=packed)
    (tmp_path / ("a.warc.gz" if packed else "a.warc")).write_bytes(content[:-200])
    documents, bad = read(tmp_path, "warc")
    assert [d.origin.split()[1] for d in documents] == ["http://e.org/utf8"]
    assert bad.count == 1
    assert "bytes are missing" in bad.records[0].reason
    assert 0 < (bad.records[0].offset or 0) < len(content)


def test_what_is_no_archive_is_bad(tmp_path):
    (tmp_path / "a.warc").write_bytes(b"hello world\n" * 100)
    (tmp_path / "b.warc.gz").write_bytes(b"hello world\n" * 100)
    (tmp_path / "c.warc").write_bytes(b"")
    (tmp_path / "d.warc.gz").write_bytes(gzip.compress(_archive(RECORDS[:2], packed=False)))  # not a member a record
    documents, bad = read(tmp_path, "warc")
    names = {name for r in bad.records for name in [r.file.rpartition("/")[2]]}
    assert names >= {"a.warc", "b.warc.gz", "c.warc", "d.warc.gz"}
    assert len(documents) <= 2


def test_a_page_that_unpacks_beyond_the_limit_is_bad(tmp_path):
    bomb = gzip.compress(b" " * (4 << 20))
    records = [("http://e.org/bomb", bomb, "200 OK", "text/html", PACKED), RECORDS[0]]
    (tmp_path / "a.warc").write_bytes(_archive(records, packed=False))
    documents, bad = read(tmp_path, "warc", limits=ReadLimits(max_page_bytes=1 << 20))
    assert len(documents) == 1
    assert "http://e.org/bomb is a page of more than limits.max_page_bytes" in bad.listed[0]


def test_a_record_longer_than_it_says_is_noted(tmp_path):
    parts = [_archive([record], packed=False) for record in RECORDS[:2]]
    (tmp_path / "a.warc").write_bytes(parts[0].rstrip() + b"trailing junk\r\n\r\n\r\n" + parts[1])
    documents, bad = read(tmp_path, "warc")
    assert [d.origin.split()[1] for d in documents] == ["http://e.org/utf8", "http://e.org/gbk"]
    assert "bytes behind the stated length" in bad.records[0].reason


@pytest.mark.parametrize("packed", [True, False])
def test_damaged_archives_are_noted_and_read_as_far_as_they_go(tmp_path, packed):
    content = _archive(RECORDS, packed=packed)
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    chance = random.Random(0)
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 4, 20))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.choice((len(damaged), chance.randrange(1, len(damaged))))])
        documents, bad = read(tmp_path, "warc")
        assert documents or bad.count or bad.num_passed
