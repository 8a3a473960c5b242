"""A trained causal model (decoder, recurrent) behind the handle: scoring in windows, batched completion, streaming."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.evals.continuations import score_continuations, split_request
from jaxlm.evals.embeddings import analogy, nearest
from jaxlm.evals.scoring import score_sequences
from jaxlm.evals.tasks.task import Likelihood
from jaxlm.generate.decode import bucket_length
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.io.run_dir import text_of
from jaxlm.models.api import Model
from jaxlm.models.decoder_inference import Weights
from jaxlm.models.families import make_model
from jaxlm.run.completion import Completer, Row
from jaxlm.run.language_model import (
    Generation,
    LanguageModel,
    OverlongError,
    Score,
    check_request,
    check_seed,
    check_texts,
    no_token,
)
from jaxlm.run.opening import Opened
from jaxlm.run.programs import programs
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import as_messages
from jaxlm.text.chat.template import ChatTemplate
from jaxlm.text.tokenizer import Tokenizer

DEFAULT_NEW_TOKENS = 128
UNBOUNDED_CONTEXT = 4096
"""Tokens that a model without a longest context (a recurrent one) reads at once, beyond which the window moves."""
_BATCH_LOGITS = 1 << 25
"""Logits held at once while scoring: 128 MiB in f32."""


class CausalLM(LanguageModel):
    """A causal model with its tokenizer. Programs are compiled at first use, one for each length bucket.

    Args:
      model: from ``make_model``. Its config is what counts: programs are shared by all models of one config.
      params: on any devices; only read.
      run_config: the run's config as JSON values, of which ``data`` tells how documents began and how long rows were.
      weights: "int8" keeps the kernels of a decoder's layers in 8 bits, one scale for each output; ``params`` is then
        of the form that `inference_params` makes. "row" lays them out for one kernel that decodes one row greedily on
        an NVIDIA GPU.
      template: the chat template that it was taught; None for a model that only continues.

    Raises UserError for other weights than trained ones of what is no decoder, or lies on several devices.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        tokenizer: Tokenizer,
        run_config: dict[str, Any],
        *,
        step: int = 0,
        is_ema: bool = False,
        weights: Weights = "trained",
        template: ChatTemplate | None = None,
    ):
        data = text_of(run_config)
        spread = any(isinstance(x, jax.Array) and len(x.sharding.device_set) > 1 for x in jax.tree.leaves(params))
        self._programs = programs(model.config, weights, spread=spread)
        self.params = self._programs.keep(params)
        self.tokenizer, self.config, self.run_config = tokenizer, model.config, run_config
        self.step, self.is_ema = step, is_ema
        self.vocab_size: int = model.config.vocab_size
        longest = model.config.max_seq_len
        self.context = UNBOUNDED_CONTEXT if longest is None else min(longest, data.get("seq_len", longest))
        self.family = model.config.family
        self.start_id = start_symbol(tokenizer, data)
        self.form = None if template is None else ChatFormat(template, tokenizer)
        self.stop_ids = () if tokenizer.eos_id is None else (tokenizer.eos_id,)

    @classmethod
    def of_run(
        cls,
        opened: Opened,
        tokenizer: Tokenizer,
        run_config: dict[str, Any],
        *,
        template: ChatTemplate | None = None,
        weights: Weights = "trained",
    ) -> Self:
        """The model of a checkpoint."""
        options: dict[str, Any] = {"step": opened.step, "is_ema": opened.is_ema, "template": template}
        return cls(make_model(opened.config), opened.params, tokenizer, run_config, weights=weights, **options)

    @functools.cached_property
    def _decoding_params(self) -> Params:
        return self._programs.prepare(self.params)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as the model reads it: behind the start symbol, if the run was trained with one."""
        return ([] if self.start_id is None else [self.start_id]) + list(self.tokenizer.encode(text))

    def logits(self, tokens: Any) -> np.ndarray:
        """Logits of the token after each position, f32 [b, t, v], of token ids [b, t] (none is added or taken off)."""
        tokens_bt = np.asarray(tokens)
        if tokens_bt.ndim != 2 or not tokens_bt.size or not np.issubdtype(tokens_bt.dtype, np.integer):
            raise UserError(
                f"tokens of shape {tokens_bt.shape} and type {tokens_bt.dtype}: pass integers [batch, time]"
            )
        length = tokens_bt.shape[1]
        if length > self.context:
            raise UserError(f"tokens have length {length}, more than the context of {self.context}: pass fewer")
        if tokens_bt.min() < 0 or tokens_bt.max() >= self.vocab_size:
            raise UserError(
                f"tokens range {tokens_bt.min()}..{tokens_bt.max()}: the vocabulary is 0..{self.vocab_size - 1}"
            )
        # Padding on the right changes nothing before it, and the many lengths share few programs.
        width = min(self.context, bucket_length(length))
        padded_bt = np.pad(tokens_bt.astype(np.int32), ((0, 0), (0, width - length)))
        return np.asarray(self._programs.logits(self.params, padded_bt))[:, :length]

    def neighbours(self, text: str, *, count: int = 10) -> list[tuple[str, float]]:
        """The tokens whose embeddings are nearest to that of ``text`` (one token), with their cosines."""
        token = self._one_token(text)
        table_vd = np.asarray(self.params["embed"]["table"], np.float32)[: self.vocab_size]
        found = nearest(table_vd, table_vd[token], count=count, without=[token])
        return [(self.tokenizer.token_str(one.token), one.cosine) for one in found]

    def analogy(self, a: str, b: str, c: str, *, count: int = 10) -> list[tuple[str, float]]:
        """What is to ``c`` as ``b`` is to ``a``, each one token: ``analogy("man", "king", "woman")``."""
        table_vd = np.asarray(self.params["embed"]["table"], np.float32)[: self.vocab_size]
        found = analogy(table_vd, *(self._one_token(text) for text in (a, b, c)), count=count)
        return [(self.tokenizer.token_str(one.token), one.cosine) for one in found]

    def _one_token(self, text: str) -> int:
        ids = self.tokenizer.encode(text)
        if len(ids) != 1:
            raise UserError(f"{text!r} is {len(ids)} tokens here, and an embedding belongs to one: give another word")
        specials = self.tokenizer.special_tokens
        if ids[0] in specials.values() and specials.get(text) != ids[0]:  # a closed vocabulary's <unk>
            raise UserError(f"{text!r} is not in the vocabulary of {self.vocab_size} tokens: give a word that is")
        return ids[0]

    def score(self, texts: Sequence[str], *, stride: int | None = None) -> list[Score]:
        """Log-likelihood of each text's tokens given the start symbol, every token predicted once.

        A text longer than the context is read in windows that advance by ``stride`` (default: half the context, so that
        past the first window each token sees at least the half before it). No end symbol is counted.
        """
        texts = check_texts(texts, "texts")
        logprobs = self.score_ids([self.encode(text) for text in texts], stride=stride)
        start_nats = float(np.log(self.vocab_size)) if self.start_id is None else 0.0
        return [
            Score(
                nats=-float(np.sum(values, dtype=np.float64)),
                num_tokens=len(values),
                num_bytes=len(text.encode("utf-8")),
                logprobs=values,
                start_nats=None if self.tokenizer.closed else start_nats if text else 0.0,
            )
            for text, values in zip(texts, logprobs, strict=True)
        ]

    def score_ids(self, sequences: Sequence[Sequence[int]], *, stride: int | None = None) -> list[np.ndarray]:
        """Natural log-probability of every token but the first of each sequence of ids, f32 [length - 1] each; windows
        as for `score`."""
        return score_sequences(
            lambda tokens_bt, targets_bt: np.asarray(self._programs.logprobs(self.params, tokens_bt, targets_bt)),
            [np.asarray(sequence, np.int32) for sequence in sequences],
            context=self.context,
            stride=stride,
            tokens_per_batch=max(self.context, _BATCH_LOGITS // self.vocab_size),
        )

    def likelihoods(self, requests: Sequence[tuple[str, str]], *, truncate: bool = True) -> list[Likelihood]:
        """As `LanguageModel.likelihoods`. A continuation longer than the context is read in windows, as for `score`."""
        asked = [split_request(*request, self.encode) for request in requests]
        for number, ((context, continuation), (ids, num_context)) in enumerate(zip(requests, asked, strict=True)):
            if context and num_context >= len(ids):
                raise no_token(number, continuation)
        if not truncate:
            for number, (ids, num_context) in enumerate(asked):
                if num_context > 1 and len(ids) - 1 > self.context:
                    raise OverlongError(number, len(ids) - 1, self.context)
        behind = self._programs.behind
        found = score_continuations(
            lambda tokens_bt, targets_bt: np.asarray(self._programs.first_choices(self.params, tokens_bt, targets_bt)),
            asked,
            context=self.context,
            tokens_per_batch=max(self.context, _BATCH_LOGITS // self.vocab_size),
            shared_fn=None if behind is None else lambda *batches: np.asarray(behind(self._decoding_params, *batches)),
        )
        return [one.reply(request[1]) for one, request in zip(found, requests, strict=True)]

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
        batch_size: int = 32,
    ) -> list[Generation]:
        """``num_samples`` completions of each prompt, those of one prompt side by side.

        A completion depends on the seed, its prompt and the prompt's and sample's number, not on the other prompts.
        It ends at the tokenizer's end symbol, at a ``stop`` string, or after ``max_new_tokens``.

        Args:
          max_new_tokens: None = what the context leaves to the longest prompt, at most 128.
          slide: where prompt and completion outgrow the context, forget the oldest text instead of refusing: the prompt
            is cut to what ``max_new_tokens`` leave, or to half the context where that is more, and where the context is
            full, writing goes on from its newest half.
          numbers: the prompts' numbers, each once; default their places in the list.
          batch_size: rows decoded together; alters speed and memory only.

        Raises UserError for a prompt that does not leave room for ``max_new_tokens`` in the context, or that is empty
        where the model has no start symbol, and for options out of range.
        """
        stop = check_request(seed, stop, max_new_tokens=max_new_tokens, num_samples=num_samples, batch_size=batch_size)
        texts = check_texts(prompts, "prompts")
        if max_new_tokens is None:
            longest = max((len(self.encode(text)) for text in texts), default=0)
            max_new_tokens = max(1, min(DEFAULT_NEW_TOKENS, self.context - longest))
        encoded = [
            self.prompt_ids(text, max_new_tokens, slide=slide, name=f"prompts[{i}]") for i, text in enumerate(texts)
        ]
        sampling = make_sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        completer = self._completer(max_new_tokens, sampling, seed, stop)
        return _complete(completer, texts, encoded, num_samples, batch_size, numbers)

    def answer(
        self,
        conversations: Sequence[Any],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        num_samples: int = 1,
        slide: bool = False,
        numbers: Sequence[int] | None = None,
        batch_size: int = 32,
    ) -> list[Generation]:
        """``num_samples`` answers to each conversation, in the run's chat template, those of one side by side.

        ``conversations``: what the user says, or a list of turns, each a ``Message`` or ``{"role", "content"}``.
        Options as for `generate`; an answer ends where the template ends the assistant's turn.

        Raises UserError for a model without a template, for what is no conversation, and for one that leaves no room.
        """
        if self.form is None:
            raise UserError("this run was taught no chat template: use generate, or tune it (jaxlm sft)")
        stop = check_request(
            seed, (self.form.stop,), max_new_tokens=max_new_tokens, num_samples=num_samples, batch_size=batch_size
        )
        prompts = [as_messages(one, f"conversations[{i}]") for i, one in enumerate(conversations)]
        encoded = [self.form.prompt(one, f"conversations[{i}]") for i, one in enumerate(prompts)]
        if max_new_tokens is None:
            max_new_tokens = max(1, min(DEFAULT_NEW_TOKENS, self.context - max(map(len, encoded), default=0)))
        for i, ids in enumerate(encoded if not slide else ()):
            self._check_room(ids, max_new_tokens, f"conversations[{i}]", "")
        sampling = make_sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        completer = self._completer(max_new_tokens, sampling, seed, stop)
        return _complete(completer, [one[-1].content for one in prompts], encoded, num_samples, batch_size, numbers)

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Iterator[tuple[int, str]]:
        """One completion as it is drawn: ``(token, new text)``. Text that is half a character is held back until whole.

        ``prompt``: text, or token ids that fit the context with ``max_new_tokens``. The end symbol, or a ``stop``
        string, ends it, unsaid.
        """
        ids = self.prompt_ids(prompt, max_new_tokens) if isinstance(prompt, str) else list(prompt)
        return self._completer(max_new_tokens, sampling, check_seed(seed), tuple(stop)).stream(ids)

    def _completer(self, max_new_tokens: int, sampling: SamplingConfig, seed: int, stop: tuple[str, ...]) -> Completer:
        return Completer(
            self._programs,
            self._decoding_params,
            self.tokenizer,
            context=self.context,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop=stop,
        )

    def prompt_ids(self, text: str, max_new_tokens: int, *, slide: bool = False, name: str = "prompt") -> list[int]:
        """Token ids of a prompt. Raises UserError for none or, unless it may ``slide``, too many for the context."""
        ids = self.encode(text)
        if not ids:
            raise UserError(f"{name} is empty and this model has no start symbol: give at least one character")
        if not slide:
            self._check_room(ids, max_new_tokens, name, ", or let the context slide (slide=True, --slide)")
        return ids

    def _check_room(self, ids: Sequence[int], max_new_tokens: int, name: str, otherwise: str) -> None:
        """Raises UserError where the prompt leaves no room for so many tokens."""
        room = self.context - len(ids)
        if room < 0:
            raise UserError(f"{name} has {len(ids)} tokens, more than the context of {self.context}: shorten it")
        if max_new_tokens > room:
            ask = f"ask for at most {room}, " if room else ""
            raise UserError(
                f"{name} of {len(ids)} tokens and max_new_tokens={max_new_tokens} exceed the context of "
                f"{self.context}: {ask}shorten the prompt{otherwise}"
            )


def _complete(
    completer: Completer,
    texts: Sequence[str],
    encoded: Sequence[list[int]],
    num_samples: int,
    batch_size: int,
    numbers: Sequence[int] | None = None,
) -> list[Generation]:
    """The completions of prompts in their order, those of one prompt side by side."""
    numbers = list(range(len(encoded)) if numbers is None else numbers)
    if len(set(numbers)) != len(encoded):
        raise UserError(f"numbers name {len(set(numbers))} prompts of {len(encoded)}: give each a number of its own")
    said = dict(zip(numbers, texts, strict=True))
    rows = [Row(i, sample, ids) for i, ids in zip(numbers, encoded, strict=True) for sample in range(num_samples)]
    found: dict[tuple[int, int], Generation] = {}
    for batch in completer.batches(rows, batch_size):
        for row, drawn in zip(batch, completer.complete(batch), strict=True):
            text, kept, finish = completer.cut_at_stop(row.ids, drawn)
            found[row.prompt, row.sample] = Generation(
                text, kept.tokens, kept.logprobs, said[row.prompt], finish, drawn.num_forgotten
            )
    return [found[row.prompt, row.sample] for row in rows]


def make_sampling(*args: Any, **kwargs: Any) -> SamplingConfig:
    """``SamplingConfig(...)``, whose refusals are a UserError here."""
    try:
        return SamplingConfig(*args, **kwargs)
    except ValueError as error:
        raise UserError(str(error)) from error


def start_symbol(tokenizer: Tokenizer, data: dict[str, Any]) -> int | None:
    """What stands before a text: <bos>; or, in a plain stream of documents, the <eos> of the one before; or nothing."""
    if data.get("add_bos", True) and tokenizer.bos_id is not None:
        return tokenizer.bos_id
    if data.get("add_eos", True) and data.get("packing") in ("concat", "stream"):
        return tokenizer.eos_id
    return None
