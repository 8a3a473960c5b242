"""Pages: their main text in whatever encoding they say, and hostile ones that cost a line of the report at most."""

import time

import pytest

from jaxlm.io.corpora.html import BadPageError, decode_page, main_text
from tests.io.corpora.reading import read, texts

pytest.importorskip("trafilatura", reason="pip install 'jaxlm[clean]'", exc_type=ImportError)

SENTENCES = " ".join(f"The {n} of the story is told here in plain words, one after the other." for n in "abcdefgh")


def _page(body: str, head: str = "") -> str:
    return f"<!DOCTYPE html><html><head>{head}<title>The  title</title></head><body>{body}</body></html>"


NAVIGATION = "<nav><ul><li><a href='/'>Home page</a></li><li><a href='/x'>Products and prices</a></li></ul></nav>"
ARTICLE = f"<article><h1>A story</h1><p>{SENTENCES}</p><p>{SENTENCES[:300]} &eacute;t&#233;</p></article>"


@pytest.mark.parametrize("fallback", [True, False])
def test_the_main_text_is_kept_and_the_navigation_is_not(fallback):
    page = main_text(_page(NAVIGATION + ARTICLE + "<footer>Copyright 2020 by nobody</footer>"), fallback=fallback)
    assert page.title == "The title"
    assert SENTENCES in page.text
    assert "été" in page.text
    assert "Products" not in page.text
    assert "Copyright" not in page.text


def test_the_title_comes_before_the_text_where_it_is_asked_for(tmp_path):
    (tmp_path / "a.html").write_text(_page(ARTICLE))
    (plain,), (titled,) = texts(read(tmp_path, "html")[0]), texts(read(tmp_path, "html", title=True)[0])
    assert titled == f"The title\n\n{plain}"


ENCODED = [
    ("utf-8", "", None),
    ("utf-8-sig", "<meta charset=latin-1>", "latin-1"),
    ("utf-16", "", None),
    ("gb18030", "<meta charset='gb2312'>", None),
    ("cp1252", '<meta http-equiv="Content-Type" content="text/html; charset=ISO-8859-1">', None),
    ("koi8-r", "<meta charset=utf-8>", "koi8-r"),  # the server's word comes before the page's
    ("utf-8", "<meta charset=utf-16>", None),  # what could be read so far was no UTF-16
    ("utf-8", "<meta charset=klingon>", None),
    ("shift_jis", "<meta charset=x-sjis>", None),
]


@pytest.mark.parametrize(("encoding", "head", "header"), ENCODED)
def test_a_page_is_read_in_the_encoding_that_it_says(encoding, head, header):
    sample = {"gb18030": "床前明月光 龘", "cp1252": "“café” €", "koi8-r": "жизнь", "shift_jis": "日本"}.get(
        encoding, "ж 床 é"
    )
    page = _page(f"<p>{sample}</p>", head)
    assert sample in decode_page(page.encode(encoding), header, ("utf-8",))


def test_an_xml_declaration_names_the_encoding_too():
    page = "<?xml version='1.0' encoding='ISO-8859-1'?>" + _page(f"<p>{SENTENCES} déjà vu</p>")
    assert "déjà vu" in main_text(decode_page(page.encode("latin-1"), None, ("utf-8",))).text


def test_a_byte_order_mark_goes_before_the_meta_tag(tmp_path):
    page = _page(f"<p>{SENTENCES} déjà vu</p>", '<meta charset="iso-8859-1">')
    (tmp_path / "page.html").write_bytes(b"\xef\xbb\xbf" + page.encode())
    (document,), _ = read(tmp_path, "html")
    assert "déjà vu" in document.text


def test_broken_encodings_name_the_byte(tmp_path):
    (tmp_path / "a.html").write_bytes(b"<p>caf\xe9</p>")
    (tmp_path / "b.html").write_bytes(b"<meta charset=utf-8><p>caf\xe9</p>")
    documents, bad = read(tmp_path, "html")
    assert not documents
    assert [(r.offset, r.reason) for r in bad.records] == [(6, "is not utf-8: 0xe9"), (26, "is not utf-8: 0xe9")]
    documents, bad = read(tmp_path, "html", encodings=("utf-8", "cp1252"))
    assert [d.text for d in documents] == ["café"]  # the page that says UTF-8 and is not stays bad


@pytest.mark.parametrize("tag", ["div", "b", "span", "table><tr><td", "ul><li", "blockquote"])
def test_nesting_of_100_000_elements_is_a_bad_page_and_not_a_crash(tmp_path, tag):
    tags = tag.split("><")
    deep = "".join(f"<{t}>" for t in tags) * (100_000 // len(tags))
    (tmp_path / "deep.html").write_text(_page(f"<p>{SENTENCES}</p>{deep}<p>{SENTENCES}</p>"))
    (tmp_path / "good.html").write_text(_page(ARTICLE))
    documents, bad = read(tmp_path, "html")
    assert [d.origin for d in documents] == [f"{tmp_path}/good.html"]
    assert "deep.html is beyond what the HTML parser takes (Excessive depth" in bad.listed[0]


def test_nesting_below_the_limit_is_read_to_its_end():
    page = main_text(_page("<div>" * 200 + f"<p>{SENTENCES}</p>" + "</div>" * 200 + "<p>The very end of it all.</p>"))
    assert SENTENCES in page.text
    assert "very end" in page.text
    with pytest.raises(BadPageError, match="depth"):
        main_text(_page("<div>" * 300 + SENTENCES))


HOSTILE = {
    "open tags": "<a" * 200_000,
    "angles": "<" * 500_000,
    "attributes": "<p " + " ".join(f"a{n}=1" for n in range(50_000)) + ">",
    "entities": "&amp;" * 100_000,
    "nul": "\x00" * 100_000,
    "one word": "x" * 1_000_000,
    "comments": "<!--" * 100_000,
    "siblings": "<p>a</p>" * 5_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_end_soon(tmp_path, name):
    (tmp_path / "a.html").write_text(HOSTILE[name])
    start = time.process_time()
    documents, bad = read(tmp_path, "html")
    assert len(documents) + bad.count + bad.num_passed == 1
    assert time.process_time() - start < 20


def test_pages_of_too_many_tags_or_attributes_are_bad(tmp_path):
    (tmp_path / "a.html").write_text("<p>a</p>" * 100_001)
    (tmp_path / "b.html").write_text("<p " + " ".join(f"a{n}=1" for n in range(2001)) + ">text")
    (tmp_path / "c.html").write_text(f"<p>{SENTENCES}</p><img src='data:{'x' * 100_000}='>")  # long and harmless
    documents, bad = read(tmp_path, "html")
    assert len(documents) == 1
    assert "200002 tags, over limits.max_page_tags=200000" in bad.listed[0]
    assert "a tag with 2001 attributes" in bad.listed[1]


def test_pages_without_text_are_counted(tmp_path):
    (tmp_path / "a.html").write_text("<html><head><title>x</title></head><body><script>run()</script></body></html>")
    (tmp_path / "b.html").write_text("<!-- nothing -->")
    (tmp_path / "c.html").write_text("")
    documents, bad = read(tmp_path, "html")
    assert not documents
    assert bad.passed == {"no main text": 2}
    assert "c.html is empty" in bad.listed[0]
