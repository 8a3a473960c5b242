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
_EDGE = " \t#*-–—•|·»«›‹<>[](){}+×✕→←↑↓¶¬"


@dataclass(frozen=True)
class DropBoilerplate:
    """Drops a line that is one of:

    - a notice: has a phrase of ``notices``, and at most ``notice_words`` words;
    - a button: has at most ``button_words`` words, begins with one of ``buttons``, does not end like a sentence;
    - a link bar: at least ``separators`` separators (``| » › ·``) with at most ``bar_words`` words between two,
      and does not begin with one, as rows of tables do;
    - part of a menu: a run of at least ``menu_lines`` lines, each of at most ``menu_words`` words, none ended like
      a sentence. 0 turns this off, as for verse and lists.

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

    def __post_init__(self) -> None:
        if self.separators < 1:
            raise ValueError(f"separators={self.separators} is below 1: every line would be a link bar")
        if self.menu_lines == 1:
            raise ValueError("menu_lines=1 drops every short line: use 0 (off) or at least 2")

    @property
    def name(self) -> str:
        """In reports."""
        return "drop_boilerplate"

    def edit(self, text: str) -> tuple[str, int]:
        """Changes: lines dropped."""
        lines = text.split("\n")
        low = text.lower()
        notices = tuple(phrase for phrase in self.notices if phrase in low)
        drop: set[int] = set()
        menu: list[int] = []
        for number, line in enumerate(lines):
            if line.isspace() or not line:
                continue
            short = len(line) <= 400 and self._short(line)
            if short and self.menu_lines:
                menu.append(number)
            else:
                self._close(menu, drop)
            if len(line) <= 400 and self._is_boilerplate(line, notices):
                drop.add(number)
        self._close(menu, drop)
        if not drop:
            return text, 0
        kept: list[str] = []
        for number, line in enumerate(lines):
            if number not in drop and (line.strip() or (kept and kept[-1].strip())):
                kept.append(line)
        return "\n".join(kept).strip("\n"), len(drop)

    def _short(self, line: str) -> bool:
        """At most ``menu_words`` words and no end of a sentence."""
        if len(line) > 16 * self.menu_words or line.rstrip().endswith(_ENDS):
            return False
        return _words(line) <= self.menu_words

    def _close(self, menu: list[int], drop: set[int]) -> None:
        if len(menu) >= self.menu_lines > 0:
            drop.update(menu)
        menu.clear()

    def _is_boilerplate(self, line: str, notices: tuple[str, ...]) -> bool:
        low = line.lower()
        if any(phrase in low for phrase in notices) and _words(line) <= self.notice_words:
            return True
        bare = low.strip(_EDGE)
        if len(bare) <= 16 * self.button_words and bare.startswith(self.buttons) and not low.rstrip().endswith(_ENDS):
            heads = [bare[len(button) :] for button in self.buttons if bare.startswith(button)]
            whole = any(not rest[:1].isalnum() or not bare.isascii() for rest in heads)  # "home", not "homely"
            if whole and _words(bare) <= self.button_words:
                return True
        if line.lstrip().startswith("|"):
            return False  # a row of a table
        bars = len(_SEPARATORS.findall(line)) if any(mark in line for mark in "|•»›·>/\\") else 0
        return bars >= self.separators and _words(_SEPARATORS.sub(" ", line)) <= self.bar_words * (bars + 1)


def _words(line: str) -> int:
    words = line.split()
    if len(words) == 1 and not line.isascii():
        return -(-len(words[0]) // 6)
    return len(words)
