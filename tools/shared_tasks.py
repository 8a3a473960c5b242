"""``python -m tools.shared_tasks SHARED_DATA OUT``: text to pretrain an encoder on, and two labelled tasks to judge it.

From SHARED_DATA (``../shared/data``; its licences allow no copy here): Brown without its every ninth document, and
WikiText-2, a passage a line (``brown.txt``, ``wikitext.txt``); their words in random order, some at a time, said twice
(``repeats.txt``: a masked word can only be read off the other copy, so that heads which find equal words are learnt
soon); the tags of the documents left out, suffixes cut off (``tags_train.jsonl``, ``tags_validation.jsonl``);
paraphrase pairs of MRPC and PAWS, each sentence also beside that of another pair (``pairs_train.jsonl``,
``pairs_validation.jsonl``). The same files every time.
"""

import gzip
import json
import random
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.writing import check_directory
from jaxlm.run.cli import run_main
from jaxlm.run.parsers import tool_parser

END = "<|endoftext|>"
PASSAGE_CHARACTERS = 500
NUM_REPEATS = 40_000
NUM_TAGGED = (400, 500)
"""Sentences to learn from, from the first half of the documents left out, and to judge by, from the second."""


def main(argv: list[str]) -> int:
    """Writes the files and prints one JSON line of their sizes."""
    parser = tool_parser("python -m tools.shared_tasks", __doc__)
    parser.add_argument("shared_data", type=Path, metavar="SHARED_DATA", help="the folder of the shared data")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder that the files are written to")
    args = parser.parse_args(argv)
    brown = args.shared_data / "text" / "brown" / "brown_450.zip"
    wikitext = args.shared_data / "text" / "wikitext-2" / "train.recovered.txt.gz"
    templates = args.shared_data / "sft" / "t0_templates"
    for path in (brown, wikitext, templates):
        if not path.exists():
            raise UserError(f"{path} is not there: give the folder of the shared data")
    check_directory(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    documents = dict(read_brown(brown))
    left_out = [name for i, name in enumerate(documents) if i % 9 == 4]
    texts = (passages(documents[name]) for name in documents if name not in left_out)
    lines = {"brown.txt": [line for text in texts for line in text], "wikitext.txt": read_wikitext(wikitext)}
    lines["repeats.txt"] = repeats([*lines["brown.txt"], *lines["wikitext.txt"]])
    rows = {**tag_rows([documents[name] for name in left_out]), **pair_rows(read_pairs(templates))}
    for name, found in lines.items():
        (args.out / name).write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    for name, found in rows.items():
        (args.out / name).write_text("".join(f"{json.dumps(row)}\n" for row in found), encoding="utf-8")
    print(json.dumps({name: len(found) for name, found in (lines | rows).items()}))
    return 0


Sentence = list[tuple[str, str]]
"""(word, tag) pairs."""


def read_brown(path: Path) -> Iterator[tuple[str, list[Sentence]]]:
    """(name, tagged sentences) of each document, in the order of their names."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if re.search(r"/c[a-r]\d\d$", name)):
            lines = archive.read(name).decode("latin1").splitlines()
            split = [[token.rsplit("/", 1) for token in line.split()] for line in lines]
            yield name, [[(pair[0], pair[1]) for pair in line if len(pair) == 2] for line in split if line]


def passages(sentences: Iterable[Sentence]) -> Iterator[str]:
    """Sentences joined to passages of some hundred characters."""
    held: list[str] = []
    for sentence in sentences:
        held.append(" ".join(word for word, _ in sentence))
        if sum(map(len, held)) > PASSAGE_CHARACTERS:
            yield " ".join(held)
            held = []
    if held:
        yield " ".join(held)


def read_wikitext(path: Path) -> list[str]:
    """Paragraphs, without headings and short lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if len(line.strip()) > 60]


def repeats(texts: list[str], count: int = NUM_REPEATS) -> list[str]:
    """6 to 22 words drawn from all texts, followed by themselves."""
    rng = random.Random(2)
    words = [word for text in texts for word in text.split()]
    runs = (" ".join(rng.choices(words, k=rng.randint(6, 22))) for _ in range(count))
    return [f"{run} {run}" for run in runs]


def tag_rows(documents: list[list[Sentence]]) -> dict[str, list[dict[str, Any]]]:
    """Sentences of 4 to 40 words with their tags; those to judge by have no tag that is not learnt."""

    def rows(part: list[list[Sentence]]) -> list[dict[str, Any]]:
        found = [sentence for document in part for sentence in document if 4 <= len(sentence) <= 40]
        random.Random(0).shuffle(found)
        return [{"words": [w for w, _ in one], "tags": [_plain_tag(t) for _, t in one]} for one in found]

    half = len(documents) // 2
    train, validation = rows(documents[:half])[: NUM_TAGGED[0]], rows(documents[half:])
    known = {tag for row in train for tag in row["tags"]}
    validation = [row for row in validation if set(row["tags"]) <= known][: NUM_TAGGED[1]]
    return {"tags_train.jsonl": train, "tags_validation.jsonl": validation}


def _plain_tag(tag: str) -> str:
    """``NP$-TL`` -> ``np``; a tag that is all punctuation stays its first sign."""
    return re.split(r"[-*+$]", tag.lower())[0] or tag.lower()[:1]


def read_pairs(directory: Path) -> list[tuple[str, str]]:
    """Sentences that say the same: MRPC's equivalent ones and PAWS's paraphrases."""
    pairs = []
    for line in (directory / "glue_mrpc_equivalent.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        if one["completion"].replace(END, "").strip() == "equivalent":
            prompt = one["prompt"].split("\n")
            pairs.append((prompt[1].strip(), prompt[2].strip()))
    for line in (directory / "paws_labeled_final_paraphrase_task.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        pairs.append((one["prompt"].split(": ", 1)[1].strip(), one["completion"].replace(END, "").strip()))
    return pairs


def pair_rows(pairs: list[tuple[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Half of the pairs to learn from and half to judge by; as many that are none, by crossing."""
    random.Random(0).shuffle(pairs)
    half = len(pairs) // 2
    return {
        "pairs_train.jsonl": _crossed(pairs[:half], others=3),
        "pairs_validation.jsonl": _crossed(pairs[half:], others=1),
    }


def _crossed(pairs: list[tuple[str, str]], *, others: int) -> list[dict[str, str]]:
    """Each pair ``others`` times, both ways round in turn, and its first sentence beside as many others' second."""
    rows = []
    for i, (a, b) in enumerate(pairs):
        for k in range(others):
            rows.append((b, a, "same") if k % 2 else (a, b, "same"))
            rows.append((a, pairs[(i + 7 * (k + 1)) % len(pairs)][1], "other"))
    random.Random(1).shuffle(rows)
    return [{"text": a, "text_b": b, "label": label} for a, b, label in rows]


if __name__ == "__main__":
    sys.exit(run_main(main))
