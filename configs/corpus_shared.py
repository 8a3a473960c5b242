"""All open text of ../shared/data as one corpus: English and Chinese, prose, verse, dialogue and worked problems.

    python -m experiments.corpus corpus_shared

Benchmarks (BBH, MMLU, CMMLU, LAMBADA, WikiText-2's validation text) are no sources: they are what the corpus is kept
free of. GSM8K's training questions stand in FLAN; their licence allows training on them.
"""

from jaxlm.data.mixture import MixtureConfig
from jaxlm.data.source import SourceConfig
from jaxlm.run.corpus.config import CorpusBuildConfig
from jaxlm.text.rules.presets import CHINESE, LIGHT, POETRY
from jaxlm.text.tokenizer import TokenizerConfig

DATA = "../shared/data"
TEXT, CHINESE_TEXT, REASONING, ICL = f"{DATA}/text", f"{DATA}/chinese", f"{DATA}/reasoning", f"{DATA}/icl"


def config() -> CorpusBuildConfig:
    return CorpusBuildConfig(
        title="The open text of shared/data",
        sources=(
            SourceConfig(
                name="wikitext",
                format="text",
                paths=(f"{TEXT}/wikitext-2/train.recovered.txt.gz",),
                document="line",
                licence="CC-BY-SA-3.0",
                language="en",
            ),
            SourceConfig(
                name="brown",
                format="tagged",
                paths=(f"{TEXT}/brown/brown_450.zip",),
                include=("c[a-r]??",),
                licence="non-commercial",
                language="en",
            ),
            SourceConfig(
                name="state_union",
                format="text",
                paths=(f"{TEXT}/state_union/state_union.zip",),
                include=("*.txt",),
                encodings=("utf-8", "latin-1"),
                licence="public domain",
                language="en",
                weight=2.0,
            ),
            SourceConfig(
                name="shakespeare",
                format="text",
                paths=(f"{TEXT}/tinyshakespeare/input.txt",),
                document="paragraph",
                licence="public domain",
                language="en",
                recipe=LIGHT[:1],
            ),
            SourceConfig(
                name="names",
                format="text",
                paths=(f"{TEXT}/names/names.txt",),
                document="line",
                licence="MIT",
                language="en",
                weight=0.5,
                recipe=LIGHT[:1],
            ),
            SourceConfig(
                name="flan_cot",
                format="tsv",
                paths=(f"{REASONING}/flan_cot",),
                fields=("0", "1", "2"),
                separator="\n",
                header=False,
                unescape=True,
                licence="Apache-2.0",
                language="en",
                weight=2.0,
                recipe=LIGHT[:1],
            ),
            SourceConfig(
                name="tang",
                format="json",
                paths=(f"{CHINESE_TEXT}/tang",),
                fields=("title?", "paragraphs"),
                separator="\n",
                licence="MIT",
                language="zh",
                recipe=POETRY,
            ),
            SourceConfig(
                name="song_ci",
                format="json",
                paths=(f"{CHINESE_TEXT}/song_ci",),
                fields=("rhythmic?", "paragraphs"),
                separator="\n",
                licence="MIT",
                language="zh",
                recipe=POETRY,
            ),
            SourceConfig(
                name="lunyu",
                format="json",
                paths=(f"{CHINESE_TEXT}/lunyu.json",),
                fields=("chapter", "paragraphs"),
                separator="\n",
                licence="MIT",
                language="zh",
                recipe=CHINESE,
                weight=4.0,
            ),
            SourceConfig(
                name="belle",
                format="jsonl",
                paths=(f"{CHINESE_TEXT}/belle_zh_seed_tasks.jsonl",),
                fields=("instruction", "instances.*.input?", "instances.*.output"),
                licence="ODC-By",
                language="zh",
                recipe=POETRY[:1],
                weight=2.0,
            ),
        ),
        recipe=LIGHT,
        evaluation=(
            SourceConfig(
                name="wikitext_valid", format="text", paths=(f"{TEXT}/wikitext-2/valid.txt",), document="line"
            ),
            SourceConfig(name="bbh", format="json", paths=(f"{ICL}/bbh/tasks",), records="examples", fields=("input",)),
            SourceConfig(
                name="mmlu",
                format="csv",
                paths=(f"{ICL}/mmlu/test",),
                fields=("question", "choice0", "choice1", "choice2", "choice3"),
                separator="\n",
            ),
            SourceConfig(name="lambada", format="jsonl", paths=(f"{ICL}/lambada",)),
            SourceConfig(
                name="cmmlu",
                format="csv",
                paths=(f"{CHINESE_TEXT}/cmmlu/test",),
                fields=("Question", "A", "B", "C", "D"),
                separator="\n",
            ),
        ),
        mixture=MixtureConfig(temperature=2.0, max_epochs=4.0),
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=8192),
    )
