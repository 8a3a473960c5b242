"""The main text of a web page (trafilatura), once its bytes are known to be text and its tags not too deep.

Trafilatura: Barbaresi 2021, "A Web Scraping Library and Command-Line Tool for Text Discovery and Extraction".
"""

import functools
import inspect
import logging
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import Document
from jaxlm.data.source import SourceConfig
from jaxlm.io.corpora.archives import Input
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.lines import read_whole, try_decode

_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_META = re.compile(rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{2,40})""")
_LONG_TAG = re.compile(r"<[^<>]{8192,}")
_MOST_ATTRIBUTES = 2000
_META_WITHIN = 4096  # bytes; the standard says 1024, pages say later

# What browsers read under these names (WHATWG Encoding Standard, section 4.2): the larger set of which it is a part.
_READ_AS = {
    "ascii": "cp1252", "us-ascii": "cp1252", "iso-8859-1": "cp1252", "latin1": "cp1252", "iso8859-1": "cp1252",
    "iso-8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030", "gb_2312-80": "gb18030", "x-gbk": "gb18030",
    "shift_jis": "cp932", "x-sjis": "cp932", "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "big5": "big5hkscs",
    "utf8": "utf-8", "utf-16": "utf-8", "utf-16le": "utf-8", "utf-16be": "utf-8",
}  # fmt: skip


class BadPageError(ValueError):
    """A page that cannot be read. ``offset``: its first bad byte, if one is to blame."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class Page(NamedTuple):
    """A page's title ("" if it has none) and main text ("" where there is only navigation)."""

    title: str
    text: str


def read_html(given: Input, source: SourceConfig, bad: BadInput) -> Iterator[Document]:
    """One page a file."""
    with given.open() as stream:
        whole = read_whole(stream, given.where, source.limits.max_page_bytes, bad, limit_name="max_page_bytes")
    if whole is None or not whole[1].strip():
        return
    start, content = whole
    # A mark of UTF-8, which the reading took off, goes before what the page says of itself.
    marked = _MARKS[0][0] * bool(start) + content
    yield from page_document(marked, None, given.where, start, source, bad, given.where)


def page_document(
    content: bytes, charset: str | None, where: str, offset: int, source: SourceConfig, bad: BadInput, origin: str
) -> Iterator[Document]:
    """The document of one page; none after a note of why not."""
    try:
        characters = decode_page(content, charset, source.encodings)
        _check_tags(characters, source.limits.max_page_tags)
        page = main_text(characters, fallback=source.html_fallback)
    except BadPageError as error:
        bad.add_at(where, offset + (error.offset or 0), str(error), place=origin.removeprefix(where).strip())
        return
    if not page.text.strip():
        bad.pass_over("no main text", origin)
    elif source.title and page.title and not page.text.startswith(page.title):
        yield Document(f"{page.title}\n\n{page.text}", origin)
    else:
        yield Document(page.text, origin)


def _check_tags(page: str, limit: int) -> None:
    """Refuses pages on which the parser (attributes of one tag) or the extractor (elements) takes quadratic time."""
    if page.count("<") > limit:
        raise BadPageError(f"has {page.count('<')} tags, over limits.max_page_tags={limit}")
    for long in _LONG_TAG.finditer(page):
        if long[0].count("=") > _MOST_ATTRIBUTES:
            raise BadPageError(f"has a tag with {long[0].count('=')} attributes, over {_MOST_ATTRIBUTES}")


def decode_page(content: bytes, charset: str | None, encodings: tuple[str, ...]) -> str:
    """The page's characters. Its own word comes first: byte order mark, then HTTP header, then meta or XML declaration.

    Without one, or under a name that is unknown, ``encodings`` are tried in order.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            content, tried = content[len(mark) :], (encoding,)
            break
    else:
        names = [charset] if charset else []
        for pattern in (_XML, _META):
            if found := pattern.search(content[:_META_WITHIN]):
                names.append(found[1].decode("ascii", "replace"))
        known = [_codec(name) for name in names]
        declared = next((codec for codec in known if codec), None)
        # A page that says UTF-8 and is not is mojibake; one that says something else may be UTF-8 all the same.
        tried = (declared,) if declared == "utf-8" else ((declared, *encodings) if declared else encodings)
    text, error = try_decode(content, tried)
    if text is None or error is not None:
        assert error is not None
        raise BadPageError(f"is not {tried[0]}: 0x{content[error.start]:02x}", error.start)
    return text


def _codec(name: str) -> str | None:
    name = _READ_AS.get(name.lower(), name)
    try:
        return name if "a".encode(name) == b"a" else None
    except (LookupError, UnicodeError, TypeError):
        return None


@functools.cache
def _extractor() -> tuple[Any, Any, Any, str]:
    """(lxml.html, its error of an empty page, trafilatura's extract, its switch for no second extractors)."""
    try:
        import lxml.etree
        import lxml.html
        import trafilatura
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"HTML needs trafilatura ({reason}): pip install 'jaxlm[clean]'") from None
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # what it says of a page is in what it returns
    fast = "fast" if "fast" in inspect.signature(trafilatura.extract).parameters else "no_fallback"  # since 2.0
    return lxml.html, lxml.etree.ParserError, trafilatura.extract, fast


def main_text(page: str, *, fallback: bool = True) -> Page:
    """Title and main text, without navigation, comments and boilerplate; paragraphs are lines.

    Raises:
        BadPageError: elements nested more than 256 deep: libxml2 would leave out without a word what lies below.
    """
    html, lxml_error, extract, fast = _extractor()
    # Bytes: lxml takes no characters behind an XML declaration. Never huge_tree: its depth crashes what walks the tree.
    parser = html.HTMLParser(
        collect_ids=False, default_doctype=False, encoding="utf-8", remove_comments=True, remove_pis=True
    )
    try:
        tree = html.document_fromstring(page.replace("\x00", "").encode("utf-8", "replace"), parser=parser)
    except lxml_error:  # nothing but comments or space
        return Page("", "")
    limits = [entry.message for entry in parser.error_log if entry.type_name == "ERR_RESOURCE_LIMIT"]
    if limits:
        raise BadPageError(f"is beyond what the HTML parser takes ({limits[0].partition(', use ')[0]})")
    title = " ".join((tree.findtext(".//title") or "").split())
    try:
        text = extract(tree, include_comments=False, include_tables=True, **{fast: not fallback})
    except Exception as error:  # third-party heuristics on hostile pages: one page must not end a run
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise BadPageError(f"broke the extractor ({reason})") from None
    return Page(title, text or "")
