"""Texts that a run writes while it trains, and what they say: are the words real, and is it written or copied?"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.evals.text import known_words, longest_copy, vocabulary
from jaxlm.io.corpora.corpus import Corpus
from jaxlm.models.api import Model
from jaxlm.models.families import MASKED
from jaxlm.run.causal_lm import CausalLM, start_symbol
from jaxlm.run.config import PretrainConfig
from jaxlm.run.training import Sample
from jaxlm.text.tokenizer import Tokenizer

MOST_COMPARED_BYTES = 64 * 2**20
"""Training text beyond this is not compared with the samples: it would take longer than writing them."""


def check_prompts(config: PretrainConfig, tokenizer: Tokenizer) -> None:
    """Raises UserError for sample prompts that could not be completed at the end of a long run: empty without a start
    symbol, or with characters that a closed vocabulary lacks."""
    if config.model.family in MASKED:
        return
    start = start_symbol(tokenizer, dataclasses.asdict(config.data))
    for prompt in config.sample.prompts:
        if not tokenizer.encode(prompt) and start is None:
            raise UserError(
                f"sample.prompts holds {prompt!r}, and this run's documents have no start symbol: "
                "give prompts with text, or sample.prompts=() for no samples"
            )


def make_sampler(
    model: Model, tokenizer: Tokenizer, config: PretrainConfig, run_config: dict[str, Any]
) -> Callable[[Params], list[Sample]]:
    """``sample(params) -> [{"prompt", "completion"}, ...]``, none for a model that cannot write; compiled at the first
    call."""
    options = config.sample

    def sample(params: Params) -> list[Sample]:
        if not options.prompts or config.model.family in MASKED:
            return []
        language_model = CausalLM(model, params, tokenizer, run_config)
        written = language_model.generate(
            options.prompts,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=config.seed,
            num_samples=options.num_samples,
            slide=True,
        )
        return [{"prompt": generation.prompt, "completion": generation.text} for generation in written]

    return sample


def sample_figures(samples: list[Sample], corpus: Corpus) -> dict[str, float | None]:
    """``sample/known_words``: share of the samples' words that the training text holds; ``sample/longest_copy``:
    characters of the longest stretch that stands verbatim in it. Empty where there is too much text to compare with."""
    if not samples or corpus.report.train.bytes > MOST_COMPARED_BYTES:
        return {}
    texts = [document.text for document in corpus.train()]
    completions = [sample["completion"] for sample in samples]
    return {
        "sample/known_words": known_words(completions, vocabulary(texts)).share,
        "sample/longest_copy": float(longest_copy(completions, "\0".join(texts)).length),
    }
