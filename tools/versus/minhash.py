"""``python -m tools.versus minhash [FILE ...] [--rensa SITE]``: our MinHash signatures against datatrove's and rensa's.

The same documents (the lines of FILE, which may be .gz, of 20 words or more; without FILE the paragraphs of the
standard library's docstrings), 5-word shingles and 14 x 8 hashes, from text to band keys, in one process and in turns.
datatrove and rensa get a tenth of the documents. SITE is a site-packages directory that holds rensa; rensa takes the
set of a text's shingles as strings, which are made in Python and timed as well. MB/s of processor time, the median over
turns; one JSON line.
"""

import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxlm.data.deduplication import DeduplicationConfig
from jaxlm.run.parsers import tool_parser
from jaxlm.text.minhash import MinHash, sign
from tools.duplicates import MIN_WORDS, docstrings
from tools.versus.datatrove import read_file

WIDTH, BANDS, ROWS = 5, 14, 8
BATCH_BYTES = 2 << 20


def read(paths: Sequence[Path]) -> list[str]:
    """The documents."""
    texts = []
    for path in paths:
        texts += [line.strip() for line in read_file(path).decode().split("\n") if len(line.split()) >= MIN_WORDS]
    return texts


def size(texts: Sequence[str]) -> int:
    """Bytes."""
    return sum(len(text.encode()) for text in texts)


def ours(texts: Sequence[str], config: MinHash) -> None:
    """Signs batches of about 2 MB, as the corpus's first stage does."""
    step = max(1, len(texts) * BATCH_BYTES // size(texts))
    for begun in range(0, len(texts), step):
        sign(texts[begun : begun + step], config)


def datatroves(texts: Sequence[str]) -> Callable[[], None]:
    """datatrove's own signature step over documents in memory."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.logging import logger

    logger.remove()
    config = MinhashConfig(n_grams=WIDTH, num_buckets=BANDS, hashes_per_bucket=ROWS)

    def work() -> None:
        with tempfile.TemporaryDirectory() as name:
            step = MinhashDedupSignature(name, config)
            step.run((Document(text=text, id=str(i)) for i, text in enumerate(texts)), 0, 1)

    return work


def rensas(texts: Sequence[str]) -> Callable[[], None]:
    """rensa's signatures of the same number of hashes, of shingles joined in Python."""
    from rensa import RMinHash  # pyright: ignore[reportMissingImports]

    def work() -> None:
        for text in texts:
            words = text.lower().split()
            sketch = RMinHash(BANDS * ROWS, 1)
            sketch.update([" ".join(words[i : i + WIDTH]) for i in range(len(words) - WIDTH + 1)])
            sketch.digest()

    return work


def main(argv: list[str]) -> int:
    """Prints the table as one JSON line."""
    parser = tool_parser("python -m tools.versus minhash", __doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default the standard library")
    parser.add_argument("--rensa", type=Path, metavar="SITE", help="a site-packages directory that holds rensa")
    parser.add_argument("--turns", type=int, default=5, help="default %(default)s")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    texts = read(args.files) if args.files else docstrings()
    few = texts[::10]
    own = DeduplicationConfig().minhash
    work = {
        "jaxlm": (texts, lambda: ours(texts, MinHash(WIDTH, BANDS, ROWS))),
        f"jaxlm_{own.width}_{own.bands}x{own.rows}": (texts, lambda: ours(texts, own)),
        "datatrove": (few, datatroves(few)),
    }
    if args.rensa:
        sys.path.append(str(args.rensa))
        work["rensa"] = (few, rensas(few))
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(args.turns + 1):
        for name, (_, run) in work.items():
            start = time.process_time()
            run()
            if turn:  # the first one loads and warms up
                seconds[name].append(time.process_time() - start)
    speed = {name: size(work[name][0]) / 1e6 / statistics.median(spent) for name, spent in seconds.items()}
    ratios = {
        f"over_{name}": round(speed["jaxlm"] / speed[name], 1) for name in ("datatrove", "rensa") if name in speed
    }
    figures = {f"{name}_mb_per_s": round(value, 2) for name, value in speed.items()}
    print(json.dumps({"documents": len(texts), "mb": round(size(texts) / 1e6, 2), **figures, **ratios}))
    return 0
