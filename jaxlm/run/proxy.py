"""A small run of a study: the ordinary pretraining, with a tokenizer that is there already, and its score."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxlm.io.agree import say
from jaxlm.io.corpora.corpus import open_corpus
from jaxlm.io.run_dir import RunDir
from jaxlm.run.assembly import Assembly
from jaxlm.run.config import PretrainConfig, fields_that_may_change
from jaxlm.run.devices import cache_root, keep_freed_memory, use_compilation_cache
from jaxlm.run.handle import load
from jaxlm.run.prepare import PreparedData, keep_tokenizer, resolve_model, tokenize
from jaxlm.run.training import conclude, one_run, train
from jaxlm.text.tokenizer import Tokenizer

FILES = ("corpus.paths", "corpus.validation_paths")
"""Where a run's files lie is no matter: the key of its data set says what is in them."""


def pretrain_proxy(config: PretrainConfig, tokenizer: Tokenizer, run_dir: Path) -> dict[str, Any]:
    """As `run.pretrain.pretrain`; a finished run is not trained again."""
    directory = RunDir(run_dir)
    with one_run(config, directory) as mesh:
        directory.lock()
        if (final := directory.final_figures()) is not None:
            say(f"{directory.path} is finished")
            return final
        use_compilation_cache()
        keep_freed_memory()
        run = assemble_proxy(config, tokenizer, mesh)
        keep_tokenizer(tokenizer, directory.tokenizer_path)
        directory.write_config(run.config, may_change=(*fields_that_may_change(run.config), *FILES))
        directory.require(dataset_key=run.data.dataset.key)
        outcome, _ = train(run, directory, None)
        return conclude(directory, outcome, {"num_params": run.num_params}, {})


def assemble_proxy(config: PretrainConfig, tokenizer: Tokenizer, mesh: Mesh) -> Assembly:
    """The parts of a run, its data prepared. Raises UserError for what cannot run; writes nothing but caches."""
    corpus = open_corpus(config.corpus, data_dir=cache_root())
    dataset = tokenize(corpus, tokenizer, config.data)
    resolved = dataclasses.replace(config, model=resolve_model(config.model, tokenizer))
    return Assembly(resolved, PreparedData(corpus, tokenizer, dataset), mesh)


def bits_per_byte(run_dir: Path, texts: Sequence[str]) -> float:
    """Of these texts together, under a finished run."""
    scores = load(run_dir).score(list(texts))
    nats = sum(score.nats + (score.start_nats or 0.0) for score in scores)
    return nats / (math.log(2) * sum(len(text.encode()) for text in texts))
