"""A fitted n-gram model behind the handle: scoring and drawing, over words or over any tokenizer's ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.evals.continuations import Continuation, own_start
from jaxlm.evals.tasks.task import Likelihood
from jaxlm.io.ngram.files import MODEL_DIR, load_ngram
from jaxlm.io.ngram.sentences import sentence_tokens
from jaxlm.io.ngram.word_vocab import WordVocab
from jaxlm.io.run_dir import RunDir
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.models.ngram import NgramModel
from jaxlm.models.ngram_sample import NgramSampling, sample
from jaxlm.run.language_model import Generation, LanguageModel, Score, check_request, check_texts, no_token
from jaxlm.text.tokenizer import Tokenizer, check_text
from jaxlm.text.words import split_words

DEFAULT_NEW_TOKENS = 128


def open_ngram(run: RunDir, config: dict[str, Any], step: int | None, ema: bool | None) -> "NgramLM":
    """The n-gram model of a run directory (see ``jaxlm.load``)."""
    if step or ema:
        raise UserError(f"{run.path} is an n-gram model, which is counted once: leave step and ema out")
    model = load_ngram(run.path / MODEL_DIR)
    tokenizer = load_tokenizer(run.tokenizer_path)
    if tokenizer.vocab_size > model.vocab_size:
        raise UserError(
            f"the tokenizer in {run.path} has {tokenizer.vocab_size} ids, the model {model.vocab_size}: "
            "they do not belong together"
        )
    return NgramLM(model, tokenizer, config)


class NgramLM(LanguageModel):
    """An n-gram model with its tokenizer.

    Over words a line of text is a sentence, and its end is predicted and counted. Over another tokenizer's ids a text
    is one sequence behind the start symbol, and no end is counted, as for the other families.
    """

    family = "ngram"
    step = 0
    is_ema = False

    def __init__(self, model: NgramModel, tokenizer: Tokenizer, run_config: dict[str, Any]):
        self.model, self.tokenizer, self.config, self.run_config = model, tokenizer, model.config, run_config
        self.params = {}
        self.context = model.order

    def score(self, texts: Sequence[str]) -> list[Score]:
        """The log-likelihood of each text. Stupid backoff's scores are no likelihoods and have no bits per byte."""
        texts = check_texts(texts, "texts")
        sequences = [self._tokens(text) for text in texts]
        flat = np.concatenate(sequences) if sequences else np.zeros(0, np.int32)
        logprobs = self.model.score(flat)
        cuts = np.cumsum([len(sequence) for sequence in sequences])[:-1] if sequences else []
        likely = not self.tokenizer.closed and self.config.smoothing != "backoff"
        scores = []
        for text, sequence, part in zip(texts, sequences, np.split(logprobs, cuts), strict=False):
            values = part[sequence != self.model.bos_id]
            scores.append(
                Score(
                    nats=-float(np.sum(values, dtype=np.float64)),
                    num_tokens=len(values),
                    num_bytes=len(text.encode("utf-8")),
                    logprobs=values,
                    start_nats=0.0 if likely else None,
                )
            )
        return scores

    def likelihoods(self, requests: Sequence[tuple[str, str]], *, truncate: bool = True) -> list[Likelihood]:
        """As `LanguageModel.likelihoods`; nothing is ever cut off. Over words the end of a sentence counts where a
        context is empty: the text is then all there is."""
        del truncate  # the newest order - 1 tokens are all that is read
        found = []
        for number, (context, continuation) in enumerate(requests):
            ids, before = self._tokens(context + continuation), self._tokens(context.rstrip())
            if context and isinstance(self.tokenizer, WordVocab):
                ids, before = ids[:-1], before[:-1]
            start = own_start(ids.tolist(), before.tolist()) if context else 1
            counted = start + np.flatnonzero(ids[start:] != self.model.bos_id)
            if context and not len(counted):
                raise no_token(number, continuation)
            first = np.array(
                [int(np.argmax(self.model.log_distribution(ids[:t].tolist()))) == ids[t] for t in counted]
                if context
                else [False]
            )
            found.append(Continuation(self.model.score(ids)[counted], first, 0).reply(continuation))
        return found

    def _tokens(self, text: str) -> np.ndarray:
        """Ids of a text, each of its sequences behind the start symbol."""
        if isinstance(self.tokenizer, WordVocab):
            check_text(text)
            words = split_words(text.encode("utf-8"))
            return sentence_tokens(words, self.tokenizer.ids(words))
        return np.array([self.model.bos_id, *self.tokenizer.encode(text)], np.int32)

    def logits(self, tokens: Any) -> np.ndarray:
        """Log-probabilities of the token after each position, f32 [b, t, v], of token ids [b, t] (none is added)."""
        tokens_bt = np.asarray(tokens)
        if tokens_bt.ndim != 2 or not tokens_bt.size or not np.issubdtype(tokens_bt.dtype, np.integer):
            raise UserError(
                f"tokens of shape {tokens_bt.shape} and type {tokens_bt.dtype}: pass integers [batch, time]"
            )
        if tokens_bt.min() < 0 or tokens_bt.max() >= self.model.vocab_size:
            raise UserError(
                f"tokens range {tokens_bt.min()}..{tokens_bt.max()}: the vocabulary is 0..{self.model.vocab_size - 1}"
            )
        rows = [
            [self.model.log_distribution(row[: t + 1])[: self.tokenizer.vocab_size] for t in range(len(row))]
            for row in tokens_bt.tolist()
        ]
        return np.array(rows, np.float32)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        slide: bool = False,
        numbers: Sequence[int] | None = None,
    ) -> list[Generation]:
        """``num_samples`` completions of each prompt, those of one prompt side by side.

        A completion depends on the seed, its prompt and the prompt's and sample's number. It ends at the end symbol, at
        a ``stop`` string, or after ``max_new_tokens`` (default 128). ``<unk>`` is never drawn.

        Raises UserError for options out of range; an n-gram model has no ``repetition_penalty``.
        """
        try:
            sampling = NgramSampling(temperature, top_k, top_p, min_p)
        except ValueError as error:
            raise UserError(str(error)) from error
        if repetition_penalty != 1.0:
            raise UserError(f"repetition_penalty={repetition_penalty}: an n-gram model has none, leave it at 1")
        max_new_tokens = DEFAULT_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        stop = check_request(seed, stop, max_new_tokens=max_new_tokens, num_samples=num_samples)
        done = []
        texts = check_texts(prompts, "prompts")
        for number, prompt in zip(range(len(texts)) if numbers is None else numbers, texts, strict=True):
            for draw in range(num_samples):
                rng = np.random.default_rng([seed, number, draw])
                done.append(self._complete(prompt, rng, max_new_tokens, sampling, stop))
        return done

    def _complete(
        self, prompt: str, rng: np.random.Generator, max_new_tokens: int, sampling: NgramSampling, stop: tuple[str, ...]
    ) -> Generation:
        ends = {self.model.eos_id, self.tokenizer.eos_id} - {None}
        tokens: list[int] = []
        logprobs: list[float] = []
        banned = [self.model.unk_id] if self.model.unk_id is not None else []
        ids = self.tokenizer.encode(prompt)
        drawn = sample(
            self.model,
            ids,
            rng,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop_ids=[end for end in ends if end is not None],
            banned_ids=banned,
        )
        text, finish = "", "length"
        for token, logprob in drawn:
            tokens.append(token)
            logprobs.append(logprob)
            if token in ends:
                finish = "stop"
                break
            text = self.tokenizer.decode(tokens)
            cut = min((text.index(word) for word in stop if word in text), default=None)
            if cut is not None:
                text, finish = text[:cut], "stop"
                break
        if self.tokenizer.kind == "word" and text and prompt and not prompt[-1].isspace():
            text = " " + text
        return Generation(text, tokens, logprobs, prompt, finish)
