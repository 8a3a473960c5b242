"""One task: the tokenizer that the corpus is counted with, given or trained on a sample of every shard."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from jaxlm.io.shards import read_texts
from jaxlm.io.tokenizers import load_tokenizer, train_tokenizer
from jaxlm.run.corpus.duplicates import COLLECT, Collected
from jaxlm.run.corpus.workspace import require_documents, write_json
from jaxlm.text.tokenizer import TokenizerConfig


@dataclasses.dataclass(frozen=True)
class MakeTokenizer:
    """Writes ``tokenizer/``."""

    collected: Collected
    config: TokenizerConfig
    given: str | None
    """Directory of a tokenizer that is there already."""

    def __call__(self, number: int, directory: Path) -> None:
        """The sample takes every k-th document of every shard, so that no source is left out."""
        del number
        require_documents(self.collected.workspace, COLLECT, self.collected.num_shards)
        tokenizer = load_tokenizer(self.given) if self.given else train_tokenizer(self.config, self._sample())
        tokenizer.save(directory / "tokenizer")
        write_json(directory / "tokenizer.json", {"vocab_size": tokenizer.vocab_size, "kind": tokenizer.kind})

    def _sample(self) -> Iterator[str]:
        workspace, shards = self.collected.workspace, self.collected.num_shards
        ledger = workspace.ledger(COLLECT, shards)
        total = sum(list(steps.values())[-1].bytes_out for steps in ledger.sources.values() if steps)
        stride = max(1, total // max(1, self.config.max_train_bytes))
        place = 0
        for number in range(shards):
            count = json.loads((workspace.task(COLLECT, number) / "count.json").read_bytes())["documents"]
            if not count:
                continue
            for texts in read_texts(workspace.task(COLLECT, number) / "documents.parquet"):
                for text in texts:
                    if place % stride == 0:
                        yield text
                    place += 1
