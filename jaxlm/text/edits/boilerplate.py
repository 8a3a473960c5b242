"""Lines that belong to a page and not to its text: navigation, cookie notices, legal footers, share buttons."""

import re
from dataclasses import dataclass

NOTICES = (
    "accept all cookies", "accept cookies", "all rights reserved", "by continuing to use", "by using this site",
    "cookie policy", "cookie preferences", "cookie settings", "copyright ©", "enable javascript", "manage cookies",
    "powered by", "privacy policy", "terms and conditions", "terms of service", "terms of use", "this site uses",
    "use cookies", "use of cookies", "uses cookies", "we value your privacy",
    "your email address will not be published", "©", "(c) 19", "(c) 20", "版权所有", "隐私政策", "使用条款", "备案",
    "保留所有权利", "cookie 政策",
)  # fmt: skip
"""Phrases of notices, in lower case."""

BUTTONS = (
    "about us", "add to cart", "advertisement", "back to top", "buy now", "click here", "comments", "contact us",
    "continue reading", "create account", "download pdf", "edit on github", "email this", "follow us",
    "forgot password", "go to top", "home", "index", "jump to", "leave a comment", "leave a reply", "learn more",
    "loading", "log in", "log out", "login", "menu", "module index", "next", "next page", "next topic", "older posts",
    "on this page", "page source", "permalink", "pin it", "prev", "previous", "previous page", "previous topic",
    "print this", "quick search", "read more", "register", "related articles", "related posts", "reply",
    "report a bug", "save this", "search", "share", "share on", "share this", "show more", "show source", "sign in",
    "sign up", "site map", "sitemap", "skip to", "subscribe", "table of contents", "this page", "toggle navigation",
    "toggle table of contents", "tweet", "view all", "view source", "首页", "上一篇", "下一篇", "上一页", "下一页",
    "返回顶部", "登录", "注册", "分享到", "点击查看", "更多", "扫一扫", "关注我们", "联系我们",
)  # fmt: skip
"""What buttons and links say, in lower case: a short line that begins with one is no text."""

_SEPARATORS = re.compile(r"\s[|•»›·>/\\]+\s|[|»›•·]")
_ENDS = (".", "!", "?", ":", ";", ",", '"', "”", "'", "’", "。", "！", "？", "：", "；", "，", ")", "…")
_PROPERTIES = (
    "align animation background border bottom box color content cursor display fill flex float font grid height "
    "justify left letter line list margin max min opacity outline overflow padding position right stroke table text "
    "top transform transition unicode user vertical visibility white width word z"
)
_DECLARATION = (
    rf"(?:--[\w-]{{1,60}}|(?:-[a-z]+-)?(?:{'|'.join(_PROPERTIES.split())})(?:-[a-z-]{{1,40}})?)\s{{0,3}}:[^;{{}}]+"
)
_DECLARED = re.compile(rf"{_DECLARATION};$")
_RULE = re.compile(rf"[^{{}};]{{1,200}}\{{\s{{0,9}}{_DECLARATION}[^{{}}]*\}}$")
_NUMBERED = re.compile(r"\s*\d{1,3}(?:\.\d{1,3})+\.?\s+\S")
_EDGE = " \t#*-–—•|·»«›‹<>[](){}+×✕→←↑↓¶¬"


@dataclass(frozen=True)
class DropBoilerplate:
    """Drops a line that is one of:

    - a notice: has a phrase of ``notices``, and at most ``notice_words`` words;
    - a button: has at most ``button_words`` words, begins with one of ``buttons``, does not end like a sentence;
    - a link bar: at least ``separators`` separators (``| » › ·``) with at most ``bar_words`` words between two,
      and does not begin with one, as rows of tables do;
    - part of a style sheet: declarations of CSS (``margin: 0;``) and the lines with braces around them, or a whole
      rule on one line;
    - part of a table of contents: a run of at least ``contents_lines`` lines that begin with a number of a section
      (``4.2.1. Illegal frees``), have at most ``contents_words`` words and do not end like a sentence. 0: off;
    - part of a menu: a run of at least ``menu_lines`` lines, each of at most ``menu_words`` words, none ended like
      a sentence. 0 turns this off, as for verse and lists.

    Dropped lines do not end a run.

    Words are cut at white space, and of a line without any, six characters count as one (Chinese).
    """

    notices: tuple[str, ...] = NOTICES
    buttons: tuple[str, ...] = BUTTONS
    notice_words: int = 30
    button_words: int = 4
    separators: int = 3
    bar_words: int = 3
    menu_lines: int = 6
    menu_words: int = 3
    styles: bool = True
    contents_lines: int = 4
    contents_words: int = 12

    def __post_init__(self) -> None:
        if self.separators < 1:
            raise ValueError(f"separators={self.separators} is below 1: every line would be a link bar")
        if self.menu_lines == 1:
            raise ValueError("menu_lines=1 drops every short line: use 0 (off) or at least 2")
        if self.contents_lines == 1:
            raise ValueError("contents_lines=1 drops every numbered heading: use 0 (off) or at least 2")

    @property
    def name(self) -> str:
        """In reports."""
        return "drop_boilerplate"

    def edit(self, text: str) -> tuple[str, int]:
        """Changes: lines dropped."""
        lines = text.split("\n")
        low = text.lower()
        notices = tuple(phrase for phrase in self.notices if phrase in low)
        drop = _style_lines(lines) if self.styles and ":" in text and "{" in text else set[int]()
        menu: list[int] = []
        contents: list[int] = []
        for number, line in enumerate(lines):
            if line.isspace() or not line or number in drop:
                continue
            dropped = len(line) <= 400 and self._is_boilerplate(line, notices)
            if dropped:
                drop.add(number)
            if self.menu_lines:
                if len(line) <= 400 and self._short(line, self.menu_words):
                    menu.append(number)
                elif not dropped:
                    self._close(menu, self.menu_lines, drop)
            if self.contents_lines:
                if _NUMBERED.match(line) and self._short(line, self.contents_words):
                    contents.append(number)
                elif contents and not dropped:
                    self._close(contents, self.contents_lines, drop)
        self._close(menu, self.menu_lines, drop)
        self._close(contents, self.contents_lines, drop)
        if not drop:
            return text, 0
        kept: list[str] = []
        for number, line in enumerate(lines):
            if number not in drop and (line.strip() or (kept and kept[-1].strip())):
                kept.append(line)
        return "\n".join(kept).strip("\n"), len(drop)

    def _short(self, line: str, most: int) -> bool:
        """At most so many words and no end of a sentence."""
        if len(line) > 16 * most or line.rstrip().endswith(_ENDS):
            return False
        return _words(line) <= most

    def _close(self, run: list[int], least: int, drop: set[int]) -> None:
        if len(run) >= least > 0:
            drop.update(run)
        run.clear()

    def _is_boilerplate(self, line: str, notices: tuple[str, ...]) -> bool:
        low = line.lower()
        if any(phrase in low for phrase in notices) and _words(line) <= self.notice_words:
            return True
        bare = low.strip(_EDGE)
        if len(bare) <= 16 * self.button_words and bare.startswith(self.buttons) and not low.rstrip().endswith(_ENDS):
            heads = [button for button in self.buttons if bare.startswith(button)]
            # "home", not "homely"; where a button is Chinese, words have no ends.
            whole = any(not head.isascii() or not bare[len(head) : len(head) + 1].isalnum() for head in heads)
            if whole and _words(bare) <= self.button_words:
                return True
        if line.lstrip().startswith("|"):
            return False  # a row of a table
        bars = len(_SEPARATORS.findall(line)) if any(mark in line for mark in "|•»›·>/\\") else 0
        return bars >= self.separators and _words(_SEPARATORS.sub(" ", line)) <= self.bar_words * (bars + 1)


def _style_lines(lines: list[str]) -> set[int]:
    """Lines of style sheets: declarations and rules of CSS, and what opens or closes a block beside them."""
    drop: set[int] = set()
    run: list[int] = []
    declared = False
    for number, line in enumerate([*lines, "end"]):
        bare = line.strip()
        if not bare:
            continue
        if len(bare) <= 400 and _RULE.match(bare):
            drop.add(number)
        elif len(bare) <= 400 and _DECLARED.match(bare):
            run.append(number)
            declared = True
        elif bare in ("}", "}}") or (len(bare) <= 200 and bare.endswith("{")):
            run.append(number)
        else:
            if declared:
                drop.update(run)
            run.clear()
            declared = False
    return drop


def _words(line: str) -> int:
    words = line.split()
    if len(words) == 1 and not line.isascii():
        return -(-len(words[0]) // 6)
    return len(words)
