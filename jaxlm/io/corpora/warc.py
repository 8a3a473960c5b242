"""Web archives: the HTML pages among their records (warcio)."""

import re
from collections.abc import Iterator
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import Document
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.archives import Input
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.html import page_document

_HTML = ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_UNPACKED = ("", "identity", "gzip", "x-gzip", "deflate")


def read_warc(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """One document a response of status 200 that is HTML; every other record is passed over under its kind.

    Origins end in "@OFFSET URL". The offset is the record's in the stored file, where ``.warc.gz`` can be entered.
    """
    try:
        from warcio.archiveiterator import ArchiveIterator
    except ImportError:
        raise UserError("WARC files need the warcio package: pip install 'jaxlm[clean]'") from None
    # warcio unpacks gzip itself, a member a record: offsets are then those of the stored file.
    stream = given.raw() if given.name.endswith(".gz") else given.open()
    offset = errors = 0
    with stream:
        records = ArchiveIterator(stream)
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except (OSError, EOFError):
                raise
            except Exception as error:  # warcio raises many kinds, AttributeError too, on records that are damaged
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                bad.add_at(given.where, offset, f"is no whole WARC file after the record there ({reason})")
                return
            if records.err_count > errors:
                errors = records.err_count
                bad.add_at(given.where, offset, "has bytes behind the stated length of the record there")
            offset = records.offset  # get_record_offset() would read the record to its end first
            yield from _page(record, offset, given.where, source, bad)


def _page(record: Any, offset: int, where: str, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    url = record.rec_headers.get_header("WARC-Target-URI") or "?"
    origin = f"{where}@{offset} {url}"
    if not record.rec_type:
        bad.add_at(where, offset, "begins no whole record: bytes are missing")
        return
    if record.rec_type != "response":
        bad.pass_over(f"WARC record of type {record.rec_type}", origin)
        return
    headers = record.http_headers
    if headers is None:
        bad.pass_over("response without HTTP", origin)
        return
    status = headers.get_statuscode()
    if status != "200":
        bad.pass_over(f"HTTP status {status[:3] if status else '?'}", origin)
        return
    kind, _, rest = (headers.get_header("Content-Type") or "").partition(";")
    if kind.strip().lower() not in _HTML:
        bad.pass_over(f"page of type {kind.strip().lower()[:40] or 'unknown'}", origin)
        return
    coding = (headers.get_header("Content-Encoding") or "").strip().lower()
    if coding not in _UNPACKED:
        bad.add_at(where, offset, f"has the content encoding {coding[:40]!r}, which is not known here", place=url)
        return
    if not hasattr(record.raw_stream, "limit"):
        bad.add_at(where, offset, "states no length", place=url)
        return
    limit = source.limits.max_page_bytes
    try:
        content = record.content_stream().read(limit + 1)
    except Exception as error:  # of chunks and compression that are not what the headers say
        bad.add_at(where, offset, f"cannot be unpacked ({type(error).__name__})", place=url)
        return
    if len(content) > limit:
        bad.add_at(where, offset, f"is a page of more than limits.max_page_bytes={limit}", place=url)
    elif record.raw_stream.limit > 0:  # bytes that the record promises and the file does not hold
        bad.add_at(where, offset, f"is cut short: {record.raw_stream.limit} bytes are missing", place=url)
    elif not content.strip():
        bad.pass_over("no text", origin)
    else:
        charset = _CHARSET.search(rest)
        yield from page_document(content, charset and charset[1], where, offset, source, bad, origin)
