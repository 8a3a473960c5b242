"""``python -m tools.big_corpus OUT [--gib 2]``: a corpus of any size, built under watch: memory, and MB/s by stage.

Writes JSONL files of synthetic documents (sentences of the standard library's docstrings, drawn anew for every
document, and a share of copies, near copies, junk) into OUT/source, runs ``experiments.corpus`` over them into
OUT/run, and prints one JSON line: the largest resident memory of all its processes together, and the wall time and
MB/s of each stage. A finished OUT/run is removed first; OUT/source of the same size is used again. Where either holds
anything else, nothing is removed.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import open_corpus
from jaxlm.io.run_dir import RunDir
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import checked, positive, tool_parser

FILE_BYTES = 64 << 20
COPIES, NEAR, JUNK = 0.05, 0.05, 0.02
"""Shares of the documents that are copies, near copies, junk."""

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
    parser = tool_parser("python -m tools.big_corpus", __doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder for the documents and the build")
    parser.add_argument("--gib", type=positive, default=2.0, help="size of the documents; default %(default)s")
    count = checked(int, lambda value: value >= 1, "a whole number above 0")
    parser.add_argument("--shards", type=count, default=16, help="parts of the build; default %(default)s")
    parser.add_argument(
        "--workers", type=count, default=len(os.sched_getaffinity(0)), help="default %(default)s, the cores"
    )
    parser.add_argument(
        "--recipe", choices=["LIGHT", "WEB_ENGLISH"], default="LIGHT", help="of cleaning; default %(default)s"
    )
    args = parser.parse_args(argv)
    source, run = args.out / "source", args.out / "run"
    check_own(source, run)
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
    peaks, stages, figures = watch([*command, "--executor.workers", str(args.workers)], run)
    speeds = {name: round(size / seconds / 1e6, 2) for name, seconds in stages.items()}
    found = {
        "gib": round(size / (1 << 30), 3),
        "peak_mib": Peak(*map(max, zip(*peaks.values(), strict=True)))._asdict(),
        "stage_peak_mib": {name: list(peak) for name, peak in peaks.items()},
        "seconds": round(time.perf_counter() - start, 1),
        "stage_seconds": {name: round(seconds, 1) for name, seconds in stages.items()},
        "stage_mb_per_second": speeds,
        "documents_read": figures["documents_read"],
        "documents_kept": figures["documents_kept"],
        "workers": args.workers,
    }
    print(json.dumps(found))
    return 0


def check_own(source: Path, run: Path) -> None:
    """Raises UserError where either, which may be removed, holds what this tool has not written."""
    for path in (source, run):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UserError(f"{path} is no directory of this tool: name another OUT")
    foreign = sorted(path.name for path in source.glob("*") if not re.fullmatch(r"\d{4,}\.jsonl", path.name))
    if foreign:
        raise UserError(f"{source} holds {foreign[0]}, which this tool has not written: name another OUT")
    if not _is_build(run):
        raise UserError(f"{run} is no corpus build, and would be removed: name another OUT")


def _is_build(run: Path) -> bool:
    """Whether a corpus is built there; a build that was refused leaves its lock alone."""
    if {path.name for path in run.glob("*")} <= {"lock"}:
        return True
    try:
        return {"sources", "recipe", "num_shards"} <= RunDir(run).read_config()["config"].keys()
    except UserError:
        return False


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


class Peak(NamedTuple):
    """The most memory of the command and its children together, MiB."""

    rss: int
    """Resident pages, those that several processes share counted for each."""
    pss: int
    """Shared pages divided among their holders."""
    anonymous: int
    """Of these, what is no page of a file: mapped files are given back when memory is short."""


def watch(command: list[str], run: Path) -> tuple[dict[str, Peak], dict[str, float], dict[str, float]]:
    """(by stage its peak, by stage its seconds, the last line of the command)."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    peaks: dict[str, Peak] = {}
    first_seen: dict[str, float] = {}
    while process.poll() is None:
        for path in (run / "stages").glob("*"):
            first_seen.setdefault(path.name, time.perf_counter())
        now = max(first_seen, key=lambda name: first_seen[name], default="start")
        held = [sum(column) >> 10 for column in zip(*map(_resident, _tree(process.pid)), strict=True)]
        peaks[now] = Peak(*map(max, held, peaks.get(now, Peak(0, 0, 0))))
        time.sleep(0.1)
    ends = [*sorted(first_seen.values())[1:], time.perf_counter()]
    begun = sorted(first_seen.items(), key=lambda item: item[1])
    stages = {name: max(end - start, 1e-3) for (name, start), end in zip(begun, ends, strict=True)}
    assert process.stdout is not None
    lines = process.stdout.read().strip().splitlines()
    if process.returncode or not lines:
        raise UserError(f"the build ended with exit code {process.returncode}")
    return peaks, stages, json.loads(lines[-1])


def _tree(pid: int) -> list[int]:
    found = [pid]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in children:
        found += _tree(int(child))
    return found


def _resident(pid: int) -> tuple[int, int, int]:
    """KiB as in `Peak`."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0, 0
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("Rss", 0), sizes.get("Pss", 0), sizes.get("Pss_Anon", 0)


if __name__ == "__main__":
    sys.exit(run_main(main))
