"""Each edit does what it says, leaves alone what it should, counts, and finds nothing on a second run."""

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.text.edits.boilerplate import DropBoilerplate
from jaxlm.text.edits.c4 import C4Lines
from jaxlm.text.edits.detokenize import Detokenize
from jaxlm.text.edits.markup import StripMarkup
from jaxlm.text.edits.pii import ScrubPII
from jaxlm.text.edits.script import UnifyScript
from jaxlm.text.edits.unicode import RepairUnicode

UNICODE = [
    ("plain text\nof two lines\t.", "plain text\nof two lines\t.", 0),
    ("a\r\nb\rc\u2028d\x85e", "a\nb\nc\nd\ne", 4),
    ("so\u00adft\u200b \ufeffzero", "soft zero", 3),
    ("bell\x07 nul\x00", "bell nul", 2),
    ("no\u00a0break\u2009thin", "no break thin", 2),
    ("cafe\u0301", "café", 1),
    ("a \ud800 b", "a \ufffd b", 1),
    ("می\u200cخواهم 👩\u200d🔬 全角，ＡＢＣ\u3000一", "می\u200cخواهم 👩\u200d🔬 全角，ＡＢＣ\u3000一", 0),
    ("“quoted” – it’s…", "“quoted” – it’s…", 0),
]


@pytest.mark.parametrize(("old", "new", "changes"), UNICODE)
def test_unicode_without_ftfy(old, new, changes):
    assert RepairUnicode(mojibake=False).edit(old) == (new, changes)


@pytest.mark.parametrize(
    "text", ["naïve café – “it’s”", "Größe", "señor Núñez", "汉字，标点。", "Ελληνικά", "русский текст"]
)
def test_mojibake_is_mended_and_good_text_left(text):
    pytest.importorskip("ftfy", reason="needs jaxlm[clean]")
    assert RepairUnicode().edit(text) == (text, 0)
    broken = text.encode().decode("windows-1252", "replace")
    if "\ufffd" not in broken and text.isprintable():
        lines = f"first line\n{broken}\nlast"
        assert RepairUnicode().edit(lines)[0] == f"first line\n{text}\nlast"


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None), max_size=40))
def test_repaired_text_is_normal_and_has_no_hidden_characters(text):
    edit = RepairUnicode(mojibake=False)
    new, _ = edit.edit(text)
    new.encode()  # no lone surrogate is left
    assert unicodedata.is_normalized("NFC", new)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\t\n" for c in new)
    assert edit.edit(new) == (new, 0)


APART = [
    ("The 17 @-@ match run , of 2 @,@ 500 .", "The 17-match run, of 2,500.", 4),
    ("do n't , she 's , the players ' own , O 'Brien", "don't, she's, the players' own, O'Brien", 7),
    ('He said : " it is ( almost ) over ! "', 'He said: "it is (almost) over!"', 5),
    ('one " lone mark', 'one " lone mark', 0),
    ("2013 – 14 at 06 : 07 for $ 50 , 20 %", "2013–14 at 06:07 for $50, 20%", 5),
    ("= = History = = ", "= = History = = ", 0),
    ("As it is written: \"don't\" (nor won't), 3:2.", "As it is written: \"don't\" (nor won't), 3:2.", 0),
    ("a . b .5 :) -- x ... and ", "a. b .5 :) -- x... and ", 2),
]


@pytest.mark.parametrize(("old", "new", "changes"), APART)
def test_what_a_tokenizer_set_apart_is_joined(old, new, changes):
    assert Detokenize().edit(old) == (new, changes)
    assert Detokenize().edit(new) == (new, 0)


TOKENS = ('"', "'", "(", ")", ",", ".", ":", "@-@", "@.@", "n't", "'s", "$", "7", "27", "–", "s", "O", "B")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=9).map(" ".join))
def test_joined_text_is_not_joined_again(text):
    new, _ = Detokenize().edit(text)
    assert Detokenize().edit(new) == (new, 0)


MARKUP = [
    ("a < b and c > d, List<int>, <user@host>", "a < b and c > d, List<int>, <user@host>", 0),
    ("<b>bold</b> and <A HREF='x'>link</A>", "bold and link", 4),
    ("one<br/>two<p class=x>three", "one\ntwo\nthree", 2),
    ("x<script>if (a < b) {}</script>y<!-- note\n -->z<style>p{}</style>", "xyz", 3),
    ("fish &amp; chips &lt;b&gt; &#8212; &nbsp;&unknown; AT&T", "fish & chips <b> — \u0020&unknown; AT&T", 6),
    ("<" * 5000 + "b" * 5000, "<" * 5000 + "b" * 5000, 0),
]


@pytest.mark.parametrize(("old", "new", "changes"), MARKUP)
def test_markup(old, new, changes):
    text, count = StripMarkup().edit(old)
    assert text == new
    assert count == changes
    if "&" not in old:
        assert StripMarkup().edit(text) == (text, 0)


def test_c4_lines():
    text = "Short.\nThis line stays.\n\n\nMenu item\nIt trails off...\n"
    text += f"Enable Javascript to see it.\nSee our privacy policy.\nA {'x' * 1001} word here.\n"
    text += "It is cited.[12][citation needed]\n"
    new, changes = C4Lines().edit(text)
    assert new == "This line stays.\n\nIt is cited."
    assert changes == 6 + 2
    assert C4Lines().edit(new) == (new, 0)
    assert C4Lines(ends=None).edit("Three words here\nThree words here...") == (
        "Three words here\nThree words here...",
        0,
    )
    assert C4Lines().edit("two words.") == ("", 1)
    assert C4Lines().edit("a " + "x" * 1000 + " b.")[1] == 0


FOUND = [
    ("Write to jane.doe+news@mail.example.co.uk today", "Write to <EMAIL> today", "mail"),
    ("call +44 20 7946 0958.", "call <PHONE>.", "phone"),
    ("call (212) 555-0100 or 212-555-0100 or 212.555.0100", "call <PHONE> or <PHONE> or <PHONE>", "phone"),
    ("手机：13812345678，座机010-12345678", "手机：<PHONE>，座机<PHONE>", "phone"),
    ("host 8.8.8.8:53 is up", "host <IP>:53 is up", "ip"),
    ("via 2001:4860:4860::8888 now", "via <IP> now", "ip"),
    ("key AKIAIOSFODNN7EXAMPLE end", "key <KEY> end", "key"),
    ("ghp_" + "a1B2" * 9 + " x", "<KEY> x", "key"),
    ("use sk-proj-" + "Ab3" * 12 + ".", "use <KEY>.", "key"),
    ('api_key = "0123456789abcdef0123"', 'api_key = "<KEY>"', "key"),
    ("password: hunter2hunter2", "password: <KEY>", "key"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "<KEY>", "key"),
    ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeK", "<KEY>", "key"),
]


@pytest.mark.parametrize(("old", "new", "kind"), FOUND)
def test_pii_is_replaced(old, new, kind):
    text, counts = ScrubPII().scrub(old)
    assert text == new
    assert counts == {"mail": 0, "phone": 0, "ip": 0, "key": 0} | {kind: new.count("<")}
    assert ScrubPII().edit(text) == (text, 0)
    assert ScrubPII(**{kind: None}).edit(old) == (old, 0)
    # Far from the ends of a long text, and many times over.
    padding = "words without any, " * 40
    many = padding.join([old + " "] * 20)
    assert ScrubPII().edit(many) == (padding.join([new + " "] * 20), 20 * new.count("<"))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1, 192.168.1.1 and 0.0.0.0 stay", "version 1.2.3.4, v8.8.8.8", "section 1.2.3.4.5", "999.8.8.8",
        "1,234,567,890 people; $212.555.0100", "1990-1995 and 2024-01-15", "at 12:30:45 or a::b",
        "call me @home, user@localhost", "password: ********", "the secret: it was never found out",
        "ISBN 978-3-16-148410-0", "pi = 3.14159265358979", "1234567890123456789", "risk-taking-behaviour-in-sports",
    ],
)  # fmt: skip
def test_what_is_no_pii_stays(text):
    assert ScrubPII().edit(text) == (text, 0)


PAGE = """Skip to content
Home | About | Blog | Contact
The first paragraph is real text, and it ends like a sentence.
Share this
Read more »
- Python »
We use cookies to improve your experience on our site.

A share of the profits went to the home of the poor.
News
Sport
Weather
Shop
Earth
Travel
The last line: it may | have one | bar.
© 2024 Example Inc. All rights reserved.
"""
TEXT = """The first paragraph is real text, and it ends like a sentence.
- Python »

A share of the profits went to the home of the poor.
The last line: it may | have one | bar."""


def test_boilerplate():
    new, dropped = DropBoilerplate().edit(PAGE)
    assert new == TEXT
    assert dropped == 5 + 6 + 1
    assert DropBoilerplate().edit(new) == (new, 0)
    # "next" ends inside of a word, whatever else the line has.
    heading = "Nextcloud für Übersicht\n" + PAGE
    assert DropBoilerplate().edit(heading)[0].startswith("Nextcloud für Übersicht")
    kept = DropBoilerplate(menu_lines=0).edit(PAGE)[0]
    assert "Weather" in kept


def test_boilerplate_menus_at_their_threshold():
    items = ["News today", "Sport", "Weather", "Local Shop", "Earth", "Travel"]
    assert DropBoilerplate().edit("\n".join(items[:5])) == ("\n".join(items[:5]), 0)
    assert DropBoilerplate().edit("\n\n".join(items)) == ("", 6)
    assert DropBoilerplate().edit("\n".join([*items[:3], "It is a sentence.", *items[3:]]))[1] == 0
    assert DropBoilerplate().edit("首页\n上一页\n正文从这里开始，写得很长，有标点。") == (
        "正文从这里开始，写得很长，有标点。",
        2,
    )


def test_boilerplate_drops_style_sheets_and_leaves_code_alone():
    style = "ul.menu, nav a:hover {\n    margin: 0 1em;\n    -webkit-box-flex: 1;\n}\n\nH3 {font-family: Verdana}"
    text = "It is said here.\n{}\nAnd that is all."
    assert DropBoilerplate().edit(text.format(style)) == (text.format(""), 5)
    assert DropBoilerplate(styles=False).edit(text.format(style))[1] == 0
    code = "if (a) {\n    next: b;\n}\nsettings = {\n    'color': 'red',\n}\ncase width: {\n}"
    assert DropBoilerplate().edit(text.format(code))[1] == 0


def test_boilerplate_drops_tables_of_contents_at_their_threshold():
    lines = [f"4.{i}. What there is to be said of part {i}" for i in range(1, 5)]
    assert DropBoilerplate().edit("\n".join(lines)) == ("", 4)
    assert DropBoilerplate().edit("\n".join(lines[:3]))[1] == 0
    assert DropBoilerplate().edit("\n".join(f"{line}." for line in lines))[1] == 0
    assert DropBoilerplate(contents_lines=0).edit("\n".join(lines))[1] == 0
    with pytest.raises(ValueError, match="contents_lines=1"):
        DropBoilerplate(contents_lines=1)


def test_boilerplate_that_is_dropped_does_not_end_a_run():
    items = ["News today", "Sport", "Weather", "Local Shop", "Earth", "Travel"]
    notice = "By using this site you agree to our terms and conditions and to all that follows from them."
    assert DropBoilerplate().edit("\n".join([*items[:3], notice, *items[3:]])) == ("", 7)


def test_boilerplate_leaves_prose_alone(repo):
    """Of our own documents' prose, next to nothing goes."""
    text = "\n".join((repo / "docs" / name).read_text(encoding="utf-8") for name in ("architecture.md", "batches.md"))
    assert DropBoilerplate().edit(text)[1] <= 0.03 * text.count("\n")


def test_one_script():
    pytest.importorskip("opencc", reason="needs jaxlm[clean]")
    assert UnifyScript().edit("漢語和汉语") == ("汉语和汉语", 2)
    assert UnifyScript("traditional").edit("汉语") == ("漢語", 2)
    assert UnifyScript().edit("plain") == ("plain", 0)
    assert UnifyScript().edit("天下\udc80")[0].startswith("天下")


CODE_PAGES = ("latin-1", "windows-1252", "windows-1251", "windows-1253", "iso-8859-2", "mac-roman", "cp437")


@pytest.mark.parametrize("page", CODE_PAGES)
def test_lines_that_ftfy_is_not_shown_are_lines_that_it_would_leave(page):
    ftfy = pytest.importorskip("ftfy", reason="needs jaxlm[clean]")
    good = (
        "naïve café – “it’s” à Paris… Größe señor ¿qué? Привет мир Ελληνικά 汉字，标点。 日本語 Zażółć £5 10€ ©2020 😀"
    )
    for errors in ("strict", "replace"):
        words = [good, *good.split()]
        for word in words:
            try:
                broken = word.encode().decode(page, errors)
            except UnicodeError:
                continue
            for text in (broken, broken.replace("\u00a0", " "), word):
                shown = RepairUnicode(form=None).edit(text)[0]
                assert shown == RepairUnicode(form=None, mojibake=False).edit(ftfy.fix_encoding(text))[0], text


HOSTILE = ["a", "a@", "a@b.", "1", "1.", "1-", "+1(1)2", "<!-- >", "<script> ", "<b ", "<p <b>", "a:", "eyJaaaaaaaa.",
           "key=a1", "-----BEGIN PRIVATE KEY-----", " ", "\n", "a\n", "| ", "&#", "\u0301", "Ã©", "天"]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_cost_is_linear_in_the_text(piece):
    """200 KB of the worst takes tenths of a second; a pattern that tries each opening to the end would take minutes."""
    edits = (RepairUnicode(mojibake=False), StripMarkup(), DropBoilerplate(), C4Lines(), ScrubPII())
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    for edit in edits:
        edit.edit(text)
    assert time.process_time() - start < 3.0
