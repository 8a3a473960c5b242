"""The raw mixture of a cleaning study: good text, some of it damaged, and junk from the pages of this machine."""

import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import Document
from jaxlm.io.agree import say
from jaxlm.io.corpora.corpus import open_corpus
from jaxlm.io.corpora.html import BadPageError, decode_page, main_text
from jaxlm.run.cleaning_config import CleaningStudyConfig
from jaxlm.run.devices import cache_root
from jaxlm.text.chunks import chunk_text
from jaxlm.text.dedup import copied_shares, unit_hash
from jaxlm.text.junk import misread, near_copy, numbers, spam, strip_page, tagged, typographic

GOOD = "untouched"
DAMAGED = ("framed", "mojibake", "tagged")
FROM_PAGES = ("navigation", "flattened", "markup", "framed")
_MOST_SHARED = 0.5  # of a text's runs of five words that stand in held-out text
_FRAME_LINES = 12


class Planted(NamedTuple):
    """A document of the raw mixture, and what it ought to be."""

    text: str
    kind: str
    """A kind of `JunkConfig`, or "untouched"."""
    good: str
    """What is good of it; "" where nothing is."""


class Page(NamedTuple):
    """A page of this machine."""

    path: Path
    source: str
    main: str
    furniture: list[str]
    lines: list[str]


class Mixture(NamedTuple):
    """All text of a study."""

    documents: list[Planted]
    """Good text first, so that of copies the original stays."""
    held_out: list[str]
    pages: list[Page]

    @property
    def good(self) -> list[str]:
        """The good text as it was before it was damaged."""
        return [one.good for one in self.documents if one.kind == GOOD or one.kind in DAMAGED]


def make_mixture(config: CleaningStudyConfig) -> Mixture:
    """The same for the same config, corpus and pages. Raises UserError where there is no text to be had."""
    train, held_out = read_good(config)
    pages = read_pages(config)
    if pages:
        total = sum(len(page.source) for page in pages)
        say(f"{len(pages)} HTML pages, {total:,} characters of source, under {', '.join(config.pages)}")
    else:
        say(f"no HTML page found under {', '.join(config.pages)}: no junk of real pages ({', '.join(FROM_PAGES)})")
    rng = np.random.default_rng([config.seed, 0x4A4B])
    shares = {kind: s for kind, s in config.junk.shares.items() if s and (pages or kind not in FROM_PAGES)}
    kept = 1.0 - sum(config.junk.shares.values())
    damaged = {kind: share for kind, share in shares.items() if kind in DAMAGED}
    clean_bytes = sum(len(text.encode()) for text in train) * kept / (kept + sum(damaged.values()))
    per_share = clean_bytes / kept
    order = iter(train)  # by hash already
    documents = [Planted(text, GOOD, text) for text in _up_to(order, clean_bytes)]
    key_words = sorted({w for one in documents[:200] for w in one.good.lower().split() if w.isalpha() and len(w) > 4})
    if len(key_words) < 4:
        raise UserError("the good text has no words to make spam of: give a longer corpus")
    maker = _Maker(config, pages, key_words, [one.good for one in documents], rng)
    for kind, share in damaged.items():
        documents += [maker.damage(kind, text) for text in _up_to(order, share * per_share)]
    for kind, share in shares.items():
        if kind not in DAMAGED:
            made = list(_up_to_planted(maker.junk(kind), share * per_share))
            size = sum(len(one.text.encode()) for one in made)
            if size < 0.9 * share * per_share:
                say(f"{kind}: {size:,} bytes could be had of {share * per_share:,.0f}: more pages would give more")
            documents += made
    shared = copied_shares((one.text for one in documents), held_out)
    found = [one for one, share in zip(documents, shared, strict=True) if share <= _MOST_SHARED and one.text.strip()]
    if len(found) < len(documents):
        say(f"{len(documents) - len(found)} documents left out: more than half of each stands in the held-out text")
    return Mixture(found, held_out, pages)


def read_good(config: CleaningStudyConfig) -> tuple[list[str], list[str]]:
    """(good documents by hash, held-out ones); no text stands in both."""
    corpus = open_corpus(config.corpus, data_dir=cache_root())

    def documents(found: Iterable[Document]) -> list[str]:
        return sorted(set(_even(found, config.document_characters)), key=unit_hash)

    held_out = list(_up_to(iter(documents(corpus.validation())), config.held_out_bytes))
    held = set(held_out)
    train = [text for text in documents(corpus.train()) if text not in held]
    if config.good_bytes is not None:
        train = list(_up_to(iter(train), config.good_bytes))
    if not train or not held_out:
        raise UserError("the corpus has no text to train on or none to hold out: see corpus and validation_fraction")
    return train, held_out


def _even(documents: Iterable[Document], size: int) -> Iterator[str]:
    """Neighbours joined, or long ones cut, to about ``size`` characters."""
    held: list[str] = []
    length = 0
    for document in documents:
        for piece in chunk_text(document.text, size):
            if piece.strip():
                held.append(piece.strip("\n"))
                length += len(piece)
            if length >= size:
                yield "\n\n".join(held)
                held, length = [], 0
    if length >= size // 4:
        yield "\n\n".join(held)


def find_pages(folders: Iterable[str]) -> list[Path]:
    """The HTML files below the folders, in an order of their own; folders that are not there hold none."""
    roots = [Path(sysconfig.get_paths()["purelib"] if name == "site-packages" else name) for name in folders]
    found = {path for root in roots if root.is_dir() for path in root.rglob("*.htm*") if path.is_file()}
    return sorted((p for p in found if p.suffix in (".html", ".htm")), key=lambda p: unit_hash("/".join(p.parts[-4:])))


def read_pages(config: CleaningStudyConfig) -> list[Page]:
    """Pages until ``page_bytes`` of source are read; unreadable and nearly empty ones are left out."""
    pages: list[Page] = []
    size = 0
    for path in find_pages(config.pages):
        if size >= config.page_bytes:
            break
        try:
            source = decode_page(path.read_bytes(), None, ("utf-8", "latin-1"))[: config.page_bytes // 8]
            main = main_text(source).text
        except (OSError, BadPageError):
            continue
        stripped = strip_page(source, main)
        if len(stripped.lines) >= 5:
            pages.append(Page(path, source, main, stripped.furniture, stripped.lines))
            size += len(source)
    return pages


class _Maker:
    """Makes junk of every kind."""

    def __init__(
        self,
        config: CleaningStudyConfig,
        pages: list[Page],
        key_words: list[str],
        good: list[str],
        rng: np.random.Generator,
    ) -> None:
        self.config, self.pages, self.key_words, self.good, self.rng = config, pages, key_words, good, rng
        self._frames = [page.furniture for page in pages if len(page.furniture) >= 4]

    def damage(self, kind: str, text: str) -> Planted:
        """A good document, damaged."""
        if kind == "mojibake":
            better = typographic(text)
            return Planted(misread(better), kind, better)
        if kind == "tagged":
            return Planted(tagged(text, self.rng), kind, text)
        lines = self._frames[int(self.rng.integers(len(self._frames)))]
        half = len(lines) // 2
        head, foot = lines[: min(half, _FRAME_LINES)], lines[max(half, len(lines) - _FRAME_LINES) :]
        return Planted("\n".join([*head, "", text, "", *foot]), kind, text)

    def junk(self, kind: str) -> Iterator[Planted]:
        """Documents of a kind of junk; those of pages and copies come to an end."""
        size = self.config.document_characters
        if kind in ("spam", "numbers"):
            while True:
                length = int(size * self.rng.uniform(0.3, 1.5))
                text = numbers(length, self.rng) if kind == "numbers" else spam(self.key_words, length, self.rng)
                yield Planted(text, kind, "")
        elif kind in ("copies", "near_copies"):
            # The two kinds copy different documents, from both ends of the list.
            for text in self.good if kind == "copies" else self.good[::-1]:
                yield Planted(self._copy(text, kind), kind, "")
        else:
            make: dict[str, Callable[[Page], Iterator[Planted]]] = {
                "navigation": self._navigation,
                "flattened": self._flattened,
                "markup": self._markup,
            }
            for page in self.pages:
                yield from make[kind](page)

    def _copy(self, text: str, kind: str) -> str:
        if kind == "near_copies":
            return near_copy(text, self.config.junk.changed, self.key_words, self.rng)
        return (text, text.upper(), text.replace("\n", "\n\n"))[int(self.rng.integers(3))]

    def _navigation(self, page: Page) -> Iterator[Planted]:
        for piece in chunk_text("\n".join(page.furniture), self.config.document_characters):
            if len(piece) > 80:
                yield Planted(piece.strip("\n"), "navigation", "")

    def _flattened(self, page: Page) -> Iterator[Planted]:
        text = " ".join(" ".join(page.lines).split())[: self.config.page_characters]
        yield Planted(text, "flattened", page.main)

    def _markup(self, page: Page) -> Iterator[Planted]:
        for number, piece in enumerate(chunk_text(page.source, self.config.document_characters)):
            if number >= 6:  # of each page a few, so that many pages are met
                return
            yield Planted(piece.strip("\n"), "markup", page.main)


def _up_to(texts: Iterator[str], size: float) -> Iterator[str]:
    """Texts until they hold ``size`` bytes; those after stay in the iterator."""
    total = 0
    while total < size and (text := next(texts, None)) is not None:
        total += len(text.encode())
        yield text


def _up_to_planted(documents: Iterator[Planted], size: float) -> Iterator[Planted]:
    total = 0
    while total < size and (one := next(documents, None)) is not None:
        total += len(one.text.encode("utf-8", "replace"))
        yield one
