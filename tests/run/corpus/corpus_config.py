"""A small corpus of planted trouble, and a config over it: written by tests, read by the command line."""

import json
import random
import textwrap
from pathlib import Path

NUM_PLAIN = 240


def write_sources(directory: Path) -> None:
    """Two sources and an evaluation set: plain documents, copies of them, junk, a shared line, bad records."""
    rng = random.Random(0)
    vocabulary = [
        f"{a}{b}" for a in ("lan", "mor", "tis", "ven", "quo", "ber") for b in ("da", "ri", "sum", "tal", "x")
    ]
    plain = [_document(rng, vocabulary) for _ in range(NUM_PLAIN)]
    good, web = directory / "good", directory / "web"
    good.mkdir(parents=True)
    web.mkdir()
    for part in range(6):
        (good / f"{part}.jsonl").write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in plain[part::6]), encoding="utf-8"
        )
    copies = [plain[i].upper() for i in range(20)]
    edited = [_changed(plain[i], rng, vocabulary) for i in range(20, 40)]
    shared = [f"{_document(rng, vocabulary)}\nShare this page with your friends" for _ in range(30)]
    junk = ["word " * 200, "!!!! #### $$$$ " * 30]
    items = [_document(rng, vocabulary) for _ in range(5)]
    leaked = [f"{_document(rng, vocabulary)}\n{item}\n{_document(rng, vocabulary)}" for item in items]
    records = [json.dumps({"text": text}) for text in [*copies, *edited, *shared, *junk, *leaked]]
    records.insert(7, '{"text": 3}')
    records.insert(9, "no json")
    (web / "pages.jsonl").write_text("".join(f"{record}\n" for record in records), encoding="utf-8")
    (directory / "items.jsonl").write_text(
        "".join(json.dumps({"text": item}) + "\n" for item in items), encoding="utf-8"
    )


def write_config(directory: Path) -> Path:
    """A config file over `write_sources`."""
    path = directory / "small.py"
    path.write_text(
        textwrap.dedent(f"""
        from jaxlm.data.source import SourceConfig
        from jaxlm.run.corpus.config import CorpusBuildConfig
        from jaxlm.run.corpus.executors import ExecutorConfig
        from jaxlm.text.rules.presets import LIGHT
        from jaxlm.text.tokenizer import TokenizerConfig

        HERE = {str(directory)!r}


        def config():
            return CorpusBuildConfig(
                title="planted",
                sources=(
                    SourceConfig(name="good", format="jsonl", paths=(HERE + "/good",), licence="MIT", language="en"),
                    SourceConfig(name="web", format="jsonl", paths=(HERE + "/web",), weight=0.5),
                ),
                evaluation=(SourceConfig(name="exam", format="jsonl", paths=(HERE + "/items.jsonl",)),),
                recipe=LIGHT,
                validation_fraction=0.05,
                tokenizer=TokenizerConfig(kind="bpe", vocab_size=512),
                num_shards=3,
                executor=ExecutorConfig(workers=1),
            )
        """),
        encoding="utf-8",
    )
    return path


def _document(rng: random.Random, vocabulary: list[str]) -> str:
    sentences = [" ".join(rng.choices(vocabulary, k=rng.randint(6, 14))).capitalize() + "." for _ in range(6)]
    return "\n".join(sentences)


def _changed(text: str, rng: random.Random, vocabulary: list[str]) -> str:
    words = text.split(" ")
    for i in rng.sample(range(len(words)), max(1, len(words) // 25)):
        words[i] = rng.choice(vocabulary) + "o"
    return " ".join(words)
