"""``python -m tools.big_corpus OUT [--gib 2]``: a corpus of any size, built under watch: memory, and MB/s by stage.

Writes JSONL files of synthetic documents (sentences of the standard library's docstrings, drawn anew for every
document, and a share of copies, near copies, junk) into OUT/source, runs ``experiments.corpus`` over them into
OUT/run, and prints one JSON line: the largest resident memory of all its processes together, and the wall time and
MB/s of each stage. A finished OUT/run is removed first; OUT/source of the same size is used again.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import open_corpus
from jaxlm.run.cli import run_main

FILE_BYTES = 64 << 20
COPIES, NEAR, JUNK = 0.05, 0.05, 0.02
"""Shares of the documents that are copies, near copies, junk."""
_PAGE = os.sysconf("SC_PAGE_SIZE")

CONFIG = """
from jaxlm.data.source import SourceConfig
from jaxlm.run.corpus.config import CorpusBuildConfig
from jaxlm.text.rules.presets import {recipe}
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return CorpusBuildConfig(
        title="A large synthetic corpus",
        sources=(SourceConfig(name="synthetic", format="jsonl", paths=({source!r},), language="en"),),
        recipe={recipe},
        tokenizer=TokenizerConfig(kind="unigram", vocab_size=8192),
        num_shards={shards},
    )
"""


def main(argv: list[str]) -> int:
    """Makes, builds, measures."""
    parser = argparse.ArgumentParser(prog="tools.big_corpus", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--recipe", choices=["LIGHT", "WEB_ENGLISH"], default="LIGHT")
    args = parser.parse_args(argv)
    if args.gib <= 0:
        raise UserError(f"--gib {args.gib} is not above 0")
    source, run = args.out / "source", args.out / "run"
    wanted = int(args.gib * (1 << 30))
    size = sum(path.stat().st_size for path in source.glob("*.jsonl"))
    if not wanted <= size <= wanted + FILE_BYTES:
        shutil.rmtree(source, ignore_errors=True)
        size = write_documents(source, wanted)
    shutil.rmtree(run, ignore_errors=True)
    config = args.out / "big.py"
    config.write_text(CONFIG.format(source=str(source.resolve()), recipe=args.recipe, shards=args.shards))
    command = [sys.executable, "-m", "experiments.corpus", str(config), "--run-dir", str(run)]
    start = time.perf_counter()
    peak, stages, figures = watch([*command, "--executor.workers", str(args.workers)], run)
    speeds = {name: round(size / seconds / 1e6, 2) for name, seconds in stages.items()}
    found = {
        "gib": round(size / (1 << 30), 3),
        "peak_rss_mib": round(peak / (1 << 20)),
        "seconds": round(time.perf_counter() - start, 1),
        "stage_seconds": {name: round(seconds, 1) for name, seconds in stages.items()},
        "stage_mb_per_second": speeds,
        "documents_read": figures["documents_read"],
        "documents_kept": figures["documents_kept"],
        "workers": args.workers,
    }
    print(json.dumps(found))
    return 0


def write_documents(directory: Path, num_bytes: int) -> int:
    """Files of about 64 MiB until there are ``num_bytes``; the same ones every time. Returns their bytes."""
    directory.mkdir(parents=True)
    rng = random.Random(0)
    texts = [document.text for document in open_corpus(CorpusConfig(), data_dir=None).train()]
    sentences = [s.strip() for text in texts for s in text.replace("\n", " ").split(". ") if 20 < len(s) < 200]
    documents = _documents(rng, sentences)
    written, number = 0, 0
    while written < num_bytes:
        with (directory / f"{number:04d}.jsonl").open("w", encoding="utf-8") as file:
            size = 0
            while size < min(FILE_BYTES, num_bytes - written):
                line = json.dumps({"text": next(documents)}, ensure_ascii=False) + "\n"
                size += len(line.encode())
                file.write(line)
            written += size
        number += 1
    return written


def _documents(rng: random.Random, sentences: list[str]) -> Iterator[str]:
    recent: list[str] = []
    while True:
        draw = rng.random()
        if recent and draw < COPIES:
            yield rng.choice(recent)
        elif recent and draw < COPIES + NEAR:
            words = rng.choice(recent).split(" ")
            for i in rng.sample(range(len(words)), max(1, len(words) // 20)):
                words[i] = rng.choice(("alpha", "beta", "gamma", "delta"))
            yield " ".join(words)
        elif draw < COPIES + NEAR + JUNK:
            yield "click here " * rng.randint(20, 200)
        else:
            paragraphs = (rng.choices(sentences, k=rng.randint(2, 5)) for _ in range(rng.randint(1, 8)))
            text = "\n\n".join(". ".join(one) + "." for one in paragraphs)
            if rng.random() < 0.05:
                recent = [*recent[-499:], text]
            yield text


def watch(command: list[str], run: Path) -> tuple[int, dict[str, float], dict[str, float]]:
    """(largest resident memory of the command and its children together, seconds of each stage, its last line)."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    peak, stages = 0, {}
    first_seen: dict[str, float] = {}
    while process.poll() is None:
        peak = max(peak, sum(_resident(pid) for pid in _tree(process.pid)))
        for path in (run / "stages").glob("*"):
            first_seen.setdefault(path.name, time.perf_counter())
        time.sleep(0.05)
    ends = [*sorted(first_seen.values())[1:], time.perf_counter()]
    for (name, start), end in zip(sorted(first_seen.items(), key=lambda item: item[1]), ends, strict=True):
        stages[name] = max(end - start, 1e-3)
    assert process.stdout is not None
    lines = process.stdout.read().strip().splitlines()
    if process.returncode or not lines:
        raise UserError(f"the build ended with exit code {process.returncode}")
    return peak, stages, json.loads(lines[-1])


def _tree(pid: int) -> list[int]:
    found = [pid]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in children:
        found += _tree(int(child))
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
