"""``python -m tools.duplicates planted|known|items [--data DIR]``: what the finding of duplicates finds, on real text.

planted  near copies with 5, 10 and 20 % of their words changed among 20,000 documents (WikiText-2 paragraphs, Brown
         documents, the standard library's docstrings): recall by rate, precision against Jaccard counted on Python sets
known    FLAN's GSM8K questions against GSM8K's own; the Tang poems that repeat an earlier one
items    BBH, MMLU, LAMBADA and GSM8K planted in those documents, as they are and with words changed: recall by rate,
         and what is found in documents that hold none

DIR is the shared data (``../shared/data`` beside the checkout). One JSON line on stdout.
"""

import argparse
import csv
import gzip
import io
import json
import random
import re
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.deduplication import DecontaminationConfig, DeduplicationConfig
from jaxlm.io.corpora.corpus import open_corpus
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import checked, tool_parser
from jaxlm.text.contamination import EvalItem, Overlap, build_index, find_items
from jaxlm.text.duplicates import band_pairs, cluster, exact_keys, exact_pairs, merge_pairs, verify
from jaxlm.text.minhash import Shingles, hit_probability, sign

Checked = TypeVar("Checked")

RATES = (0.05, 0.1, 0.2)
MIN_WORDS = 20
BATCH = 2000
LONG_ITEM = 20
"""Words; the recall of items from there on is also given apart."""
_WORD = re.compile(r"[^\W_]+")


def wikitext(data: Path) -> list[str]:
    """Paragraphs of WikiText-2 of 20 words or more."""
    with gzip.open(data / "text/wikitext-2/train.recovered.txt.gz", "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if len(line.split()) >= MIN_WORDS]


def brown(data: Path) -> list[str]:
    """Brown's documents without their tags."""
    with zipfile.ZipFile(data / "text/brown/brown_450.zip") as archive:
        names = [name for name in archive.namelist() if re.search(r"/c[a-r]\d\d$", name)]
        texts = [archive.read(name).decode("latin-1").split() for name in sorted(names)]
    return [" ".join(word.rsplit("/", 1)[0] for word in words) for words in texts]


def docstrings() -> list[str]:
    """Paragraphs of the standard library's docstrings of 20 words or more."""
    corpus = open_corpus(CorpusConfig(source="stdlib", stdlib_part="docstrings"), data_dir=None)
    every = [*corpus.train(), *corpus.validation()]
    texts = [part for document in every for part in document.text.split("\n\n")]
    return [text for text in texts if len(text.split()) >= MIN_WORDS]


def documents(data: Path, count: int) -> list[str]:
    """``count`` documents, each once by its exact key."""
    texts = [*brown(data), *wikitext(data), *docstrings()]
    keys = exact_keys(texts)
    kept = cluster(exact_pairs(keys), np.zeros(len(texts), np.int8)).kept_n
    return [text for text, stays in zip(texts, kept, strict=True) if stays][:count]


def changed(text: str, rate: float, vocabulary: Sequence[str], draw: random.Random) -> str:
    """The text with round(rate * words) of its words, at random places, replaced by random others."""
    words = text.split()
    for place in draw.sample(range(len(words)), round(rate * len(words))):
        other = words[place]
        while other.lower() == words[place].lower():
            other = draw.choice(vocabulary)
        words[place] = other
    return " ".join(words)


def near_pairs(texts: Sequence[str], config: DeduplicationConfig) -> tuple[np.ndarray, np.ndarray, int]:
    """(pairs, their Jaccard, how many were compared) over all texts, as the corpus's stages do it."""
    signed = [sign(texts[i : i + BATCH], config.minhash) for i in range(0, len(texts), BATCH)]
    keys = np.concatenate([part.keys_nb for part in signed])
    sizes = np.concatenate([part.shingles.sizes for part in signed])
    shingles = Shingles(
        np.concatenate([part.shingles.hashes for part in signed]), np.concatenate([[0], np.cumsum(sizes)])
    )
    pairs = merge_pairs([band_pairs(keys[:, band], reach=config.reach) for band in range(config.minhash.bands)])
    found = verify(pairs, shingles, config.threshold)
    return found.pairs, found.jaccard, len(pairs)


def set_jaccard(first: str, second: str, width: int) -> float:
    """Jaccard similarity of the sets of word runs, the plain way."""
    sets = []
    for text in (first, second):
        words = _WORD.findall(text.lower())
        sets.append({tuple(words[i : i + width]) for i in range(len(words) - width + 1)})
    return len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)


def planted(data: Path, *, count: int, each: int, seed: int, config: DeduplicationConfig) -> dict[str, object]:
    """Recall by rate and precision."""
    draw = random.Random(seed)
    texts = documents(data, count)
    vocabulary = sorted({word for text in texts[::20] for word in text.split() if word.isalpha()})
    long = [i for i, text in enumerate(texts) if len(text.split()) >= MIN_WORDS]
    originals = draw.sample(long, each * len(RATES))
    copies = [changed(texts[i], RATES[k % len(RATES)], vocabulary, draw) for k, i in enumerate(originals)]
    everything = [*texts, *copies]
    start = time.process_time()
    pairs, _, compared = near_pairs(everything, config)
    seconds = time.process_time() - start
    found = set(map(tuple, pairs.tolist()))
    clusters = cluster(pairs, np.zeros(len(everything), np.int8))
    width = config.minhash.width
    by_rate = {}
    for k, rate in enumerate(RATES):
        mine = [(originals[j], len(texts) + j) for j in range(k, len(copies), len(RATES))]
        true = [set_jaccard(everything[a], everything[b], width) for a, b in mine]
        above = [pair for pair, value in zip(mine, true, strict=True) if value >= config.threshold]
        by_rate[str(rate)] = {
            "planted": len(mine),
            "recall": round(sum(pair in found for pair in mine) / len(mine), 4),
            "recall_by_cluster": round(
                sum(int(clusters.leader_n[a]) == int(clusters.leader_n[b]) for a, b in mine) / len(mine), 4
            ),
            "share_above_threshold": round(len(above) / len(mine), 4),
            "recall_above_threshold": round(sum(pair in found for pair in above) / max(len(above), 1), 4),
            "median_jaccard": round(float(np.median(true)), 3),
        }
    passing = [set_jaccard(everything[a], everything[b], width) >= config.threshold for a, b in pairs.tolist()]
    return {
        "documents": len(texts),
        "mb": round(sum(len(text.encode()) for text in everything) / 1e6, 2),
        "width": width,
        "bands": config.minhash.bands,
        "rows": config.minhash.rows,
        "threshold": config.threshold,
        "chance_at_threshold": round(hit_probability(config.threshold, config.minhash.bands, config.minhash.rows), 4),
        "by_rate": by_rate,
        "pairs_compared": compared,
        "pairs_reported": len(pairs),
        "precision": round(sum(passing) / max(len(passing), 1), 4),
        "dropped_among_the_real": int((~clusters.kept_n[: len(texts)]).sum()),
        "processor_seconds": round(seconds, 2),
    }


def known(data: Path, *, config: DeduplicationConfig) -> dict[str, object]:
    """Copies that are known to be there."""
    with gzip.open(data / "reasoning/gsm8k/train.jsonl.gz", "rt", encoding="utf-8") as file:
        own = [json.loads(line)["question"] for line in file]
    with gzip.open(data / "reasoning/flan_cot/gsm8k_train.tsv.gz", "rt", encoding="utf-8") as file:
        flan = [line.split("\t")[0] for line in file if line.strip()]
    texts = [*own, *flan]
    exact = exact_pairs(exact_keys(texts))
    pairs, _, _ = near_pairs(texts, config)
    both = merge_pairs([exact, pairs])
    # The first source has the higher priority: it is the second that goes.
    clusters = cluster(both, np.repeat([1, 0], [len(own), len(flan)]))
    poems, repeats = tang(data)
    leaders = cluster(exact_pairs(exact_keys(poems)), np.zeros(len(poems), np.int8)).leader_n
    near_poems, _, _ = near_pairs(poems, config)
    more = cluster(merge_pairs([exact_pairs(exact_keys(poems)), near_poems]), np.zeros(len(poems), np.int8))
    return {
        "gsm8k": len(own),
        "flan": len(flan),
        "flan_found_exact": len(set(exact[:, 1].tolist()) - set(range(len(own)))),
        "flan_found": int((clusters.leader_n[len(own) :] < len(own)).sum()),
        "own_dropped": int((~clusters.kept_n[: len(own)]).sum()),
        "poems": len(poems),
        "poem_repeats": int(repeats.sum()),
        "poem_repeats_found_exact": int(((leaders != np.arange(len(poems))) & repeats).sum()),
        "poems_dropped_exact": int((leaders != np.arange(len(poems))).sum()),
        "poems_dropped_with_near": int((~more.kept_n).sum()),
    }


def tang(data: Path) -> tuple[list[str], np.ndarray]:
    """(the poems' texts, which of them equal an earlier one to the letter)."""
    texts: list[str] = []
    for path in sorted((data / "chinese/tang").glob("*.json.gz"), key=lambda p: int(p.name.split(".")[2])):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts += ["\n".join(poem["paragraphs"]) for poem in json.load(file)]
    seen: set[str] = set()
    repeats = []
    for text in texts:
        repeats.append(text in seen)
        seen.add(text)
    return texts, np.array(repeats)


def eval_items(data: Path) -> Iterator[tuple[str, EvalItem]]:
    """(set, item) of the four sets; MMLU's with their choices."""
    for path in sorted((data / "icl/bbh/tasks").glob("*.json")):
        for i, example in enumerate(json.loads(path.read_text(encoding="utf-8"))["examples"]):
            yield "bbh", EvalItem(f"bbh/{path.stem}:{i}", example["input"])
    for path in sorted((data / "icl/mmlu/test").glob("*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for i, row in enumerate(csv.reader(io.StringIO(file.read()))):
                yield "mmlu", EvalItem(f"mmlu/{path.name.removesuffix('_test.csv.gz')}:{i}", "\n".join(row[:5]))
    for name, path, field in (
        ("lambada", "icl/lambada/lambada_test.first2576.jsonl.gz", "text"),
        ("gsm8k", "reasoning/gsm8k/train.jsonl.gz", "question"),
    ):
        with gzip.open(data / path, "rt", encoding="utf-8") as file:
            for i, line in enumerate(file):
                yield name, EvalItem(f"{name}:{i}", json.loads(line)[field])


def items(data: Path, *, count: int, seed: int, overlap: Overlap) -> dict[str, object]:
    """Recall of planted items by set and rate; findings in documents without any."""
    draw = random.Random(seed)
    pairs = list(eval_items(data))
    lengths = np.array([len(_WORD.findall(item.text)) for _, item in pairs])
    sets, listed = np.array([name for name, _ in pairs]), [item for _, item in pairs]
    start = time.process_time()
    index = build_index(listed, overlap)
    building = time.process_time() - start
    hosts = documents(data, count)
    start = time.process_time()
    clean: list[tuple[int, int, float]] = []
    for i in range(0, len(hosts), BATCH):
        found = find_items(hosts[i : i + BATCH], index)
        clean += zip((found.text + i).tolist(), found.item.tolist(), found.share.tolist(), strict=True)
    seconds = time.process_time() - start
    vocabulary = sorted({word for text in hosts[::20] for word in text.split() if word.isalpha()})
    recall: dict[str, dict[str, float]] = {}
    for rate in (0.0, 0.05, 0.1, 0.2):
        texts = []
        for i, item in enumerate(listed):
            host = hosts[i % len(hosts)].split()[:200]
            cut = draw.randrange(len(host) + 1)
            text = item.text if not rate else changed(item.text, rate, vocabulary, draw)
            texts.append(" ".join(host[:cut]) + "\n" + text + "\n" + " ".join(host[cut:]))
        hit = np.zeros(len(listed), bool)
        for i in range(0, len(texts), BATCH):
            found = find_items(texts[i : i + BATCH], index)
            hit[i + found.text[found.text + i == found.item]] = True
        recall[str(rate)] = {f"of {LONG_ITEM} words or more": round(float(hit[lengths >= LONG_ITEM].mean()), 4)}
        checked = index.runs > 0
        recall[str(rate)] |= {
            name: round(float(hit[checked & (sets == name)].mean()), 4) for name in dict.fromkeys(sets)
        }
    unchecked = {name: int((index.runs[sets == name] == 0).sum()) for name in dict.fromkeys(sets)}
    mb = sum(len(text.encode()) for text in hosts) / 1e6
    return {
        "overlap": vars(overlap),
        "items": {name: int((sets == name).sum()) for name in dict.fromkeys(sets)},
        "unchecked": unchecked,
        "recall_by_words_changed": recall,
        "documents_without_items": len(hosts),
        "found_in_them": len({text for text, _, _ in clean}),
        "false_positive_rate": round(len({text for text, _, _ in clean}) / len(hosts), 5),
        "examples": [
            {"item": listed[i].name, "share": round(s, 3), "text": hosts[t][:160], "item_text": listed[i].text[:160]}
            for t, i, s in clean[:12]
        ],
        "index_seconds": round(building, 2),
        "mb_per_second": round(mb / seconds, 1),
    }


def main(argv: list[str]) -> int:
    """Prints the figures as one JSON line."""
    parser = tool_parser("python -m tools.duplicates", __doc__)
    parser.add_argument("what", choices=("planted", "known", "items"), help="see below")
    data = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, metavar="DIR", help="default ../shared/data")
    number = checked(int, lambda value: value >= 1, "a whole number above 0")
    parser.add_argument("--count", type=number, default=20_000, help="documents; default %(default)s")
    parser.add_argument("--each", type=number, default=1000, help="planted: copies at each rate; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of what is planted; default %(default)s")
    parser.add_argument("--width", type=int, help="words in a run; default 3, of items 5")
    for name, kind in (("threshold", float), ("recall", float), ("max_hashes", int)):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            help=f"planted, known: default {getattr(DeduplicationConfig, name)}",
        )
    parser.add_argument("--share", type=float, help=f"items: default {DecontaminationConfig.share}")
    parser.add_argument("--matched-words", type=int, help="items: default 8, or the width where that is more")
    args = parser.parse_args(argv)
    try:
        figures = measure(args)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is not there: give the shared data, --data DIR") from error
    print(json.dumps(figures, ensure_ascii=False))
    return 0


def measure(args: argparse.Namespace) -> dict[str, object]:
    """The figures of one part."""
    given: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("width", "threshold", "recall", "max_hashes")
        if getattr(args, name) is not None
    }
    if args.what == "items":
        chosen: dict[str, Any] = {
            name: getattr(args, name) for name in ("width", "share") if getattr(args, name) is not None
        }
        chosen["matched_words"] = max(8, args.width or 5) if args.matched_words is None else args.matched_words
        overlap = _checked(DecontaminationConfig, chosen).overlap
        return items(args.data, count=args.count, seed=args.seed, overlap=overlap)
    if args.what == "planted":
        config = _checked(DeduplicationConfig, given)
        return planted(args.data, count=args.count, each=args.each, seed=args.seed, config=config)
    return known(args.data, config=_checked(DeduplicationConfig, given))


def _checked(kind: type[Checked], options: dict[str, Any]) -> Checked:
    try:
        return kind(**options)
    except ValueError as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    sys.exit(run_main(main))
