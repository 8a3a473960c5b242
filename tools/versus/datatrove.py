"""``python -m tools.versus datatrove [--text FILE ...]``: ours against its filters, in one process, in turns.

FILE is UTF-8 text, gzip allowed, documents parted by a line of two line feeds or more and put together to about 4,000
characters; without any, the docstrings of the standard library. For each pair of a rule and a filter: MB/s of processor
time (median over turns), the ratio, the share of equal verdicts and the disagreements by reason. Then all four in a
row, where datatrove cuts the words of a text once; each step of the recipe for English pages; and that recipe whole.
Prints one JSON line. Verdicts differ where `docs/cleaning.md` says so.
"""

import collections
import gzip
import json
import statistics
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import open_corpus
from jaxlm.run.parsers import tool_parser
from jaxlm.text.column import TextColumn
from jaxlm.text.edits.c4 import C4Lines
from jaxlm.text.recipe import clean
from jaxlm.text.rules.c4 import C4Pages
from jaxlm.text.rules.fineweb import FineWeb
from jaxlm.text.rules.gopher import GopherQuality, GopherRepetition
from jaxlm.text.rules.presets import WEB_ENGLISH
from jaxlm.text.steps import Edit, Rule, Step

BATCH = 1 << 20  # characters
PAIRS: dict[str, tuple[Step, ...]] = {
    "GopherQualityFilter": (GopherQuality(),),
    "GopherRepetitionFilter": (GopherRepetition(),),
    "C4QualityFilter": (C4Lines(), C4Pages()),
    "FineWebQualityFilter": (FineWeb(),),
}


def read_file(path: Path) -> bytes:
    """A file's bytes, unpacked where it is .gz. Raises UserError where it cannot be read."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def read_texts(paths: Sequence[Path], size: int = 4000) -> list[str]:
    """Documents of about ``size`` characters: whole paragraphs."""
    if not paths:
        corpus = open_corpus(CorpusConfig(), data_dir=None)
        return [document.text for document in corpus.train()]
    texts = []
    for path in paths:
        part = ""
        for paragraph in read_file(path).decode("utf-8", "replace").replace("\r\n", "\n").split("\n\n"):
            part += paragraph + "\n\n"
            if len(part) >= size:
                texts.append(part.strip())
                part = ""
        texts.append(part.strip())
    return [text for text in texts if text]


def batches(texts: Sequence[str]) -> list[list[str]]:
    """Batches of about a million characters."""
    parts: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size > BATCH:
            parts.append([])
            size = 0
        parts[-1].append(text)
        size += len(text)
    return parts


def theirs(name: str, texts: Sequence[str], **settings: Any) -> list[str]:
    """The reason of datatrove's filter for each text, "" where it is kept."""
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.utils.text import split_into_parts

    kept = getattr(filters, name)(**settings)
    reasons = []
    for number, text in enumerate(texts):
        split_into_parts.cache_clear()  # it keeps the last words, which no pipeline would find again
        answer = kept.filter(Document(text=text, id=str(number)))
        reasons.append("" if answer is True else answer[1])
    return reasons


def theirs_in_a_row(texts: Sequence[str]) -> None:
    """Each text through all four filters, until one removes it."""
    from datatrove.data import Document
    from datatrove.pipeline import filters

    chain = [getattr(filters, name)() for name in PAIRS]
    for number, text in enumerate(texts):
        document = Document(text=text, id=str(number))
        all(kept.filter(document) is True for kept in chain)


def ours(steps: Sequence[Step], texts: Sequence[str]) -> list[str]:
    """Our reason for each text, "" where it is kept."""
    return [fate.reason for part in batches(texts) for fate in clean(part, steps)]


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(texts: Sequence[str], turns: int) -> dict[str, Any]:
    """The table."""
    megabytes = sum(len(text.encode("utf-8", "replace")) for text in texts) / 1e6
    table: dict[str, Any] = {"documents": len(texts), "megabytes": round(megabytes, 3), "turns": turns}
    ours(WEB_ENGLISH, texts[:20])  # models and tables are loaded before the clock runs
    for name, steps in PAIRS.items():
        peer, own = theirs(name, texts), ours(steps, texts)
        differ = collections.Counter((a, b) for a, b in zip(own, peer, strict=True) if (a == "") != (b == ""))
        times = [
            (seconds(lambda s=steps: ours(s, texts)), seconds(lambda n=name: theirs(n, texts))) for _ in range(turns)
        ]
        fast, slow = (statistics.median(column) for column in zip(*times, strict=True))
        table[name] = {
            "jaxlm_mb_s": round(megabytes / fast, 2),
            "datatrove_mb_s": round(megabytes / slow, 2),
            "ratio": round(statistics.median(b / a for a, b in times), 1),
            "equal": round(1 - sum(differ.values()) / len(texts), 4),
            "differ": {f"{a or 'kept'} | {b or 'kept'}": count for (a, b), count in differ.most_common(6)},
        }
    steps = [step for pair in PAIRS.values() for step in pair]
    fast, slow = seconds(lambda: ours(steps, texts)), seconds(lambda: theirs_in_a_row(texts))
    table["in_a_row"] = {
        "jaxlm_mb_s": round(megabytes / fast, 2),
        "datatrove_mb_s": round(megabytes / slow, 2),
        "ratio": round(slow / fast, 1),
    }
    for step in WEB_ENGLISH:
        one = statistics.median(seconds(lambda s=step: alone(s, texts)) for _ in range(turns))
        table.setdefault("steps_mb_s", {})[step.name] = round(megabytes / one, 1)
    whole = statistics.median(seconds(lambda: ours(WEB_ENGLISH, texts)) for _ in range(turns))
    table["web_english_mb_s"] = round(megabytes / whole, 2)
    return table


def alone(step: Step, texts: Sequence[str]) -> None:
    """One step over all texts, as if it were the whole recipe."""
    if isinstance(step, Edit):
        for text in texts:
            step.edit(text)
    elif isinstance(step, Rule):
        for part in batches(texts):
            step.judge(TextColumn(part))


def main(argv: list[str]) -> int:
    """Prints the table as one JSON line."""
    parser = tool_parser("python -m tools.versus datatrove", __doc__)
    parser.add_argument("--text", type=Path, nargs="*", default=[], metavar="FILE", help="default the standard library")
    parser.add_argument("--turns", type=int, default=3, help="default %(default)s")
    parser.add_argument(
        "--limit", type=int, default=1000, help="documents at most, spread over all; default %(default)s"
    )
    args = parser.parse_args(argv)
    texts = read_texts(args.text)
    texts = texts[:: max(1, len(texts) // args.limit)][: args.limit]
    print(json.dumps(compare(texts, args.turns), ensure_ascii=False))
    return 0
