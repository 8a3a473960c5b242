"""What a trained model is to its users: scores, logits, completions. One class a family fills in what it can."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from jaxlm.core import seeds
from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.evals.tasks.task import Likelihood
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Score:
    """Log-likelihood of one text."""

    nats: float
    """-log p of the predicted tokens."""
    num_tokens: int
    """Tokens predicted: all of the text's, or all but the first where the model has no symbol to start from."""
    num_bytes: int
    """UTF-8 bytes of the whole text."""
    logprobs: np.ndarray = field(repr=False)
    """Natural log-probability of each predicted token, f32 [num_tokens]."""
    start_nats: float | None = 0.0
    """What a first token that could not be predicted costs at even odds (log vocabulary size), else 0. Not in ``nats``;
    None under a tokenizer that cannot spell any text, whose likelihoods have no bits per byte."""

    @property
    def bits_per_byte(self) -> float | None:
        """(nats + start_nats) / (ln 2 * num_bytes); None for a closed vocabulary or an empty text."""
        if self.start_nats is None or not self.num_bytes:
            return None
        return (self.nats + self.start_nats) / (math.log(2) * self.num_bytes)


@dataclass(frozen=True)
class Generation:
    """One completion of one prompt."""

    text: str
    """The completion alone; a stop token or stop string is not in it."""
    tokens: list[int]
    """Tokens drawn, the stop token included where one was."""
    logprobs: list[float]
    """Natural log-probability of each of ``tokens`` under the model's own distribution (temperature 1, no filter)."""
    prompt: str
    finish: str
    """``stop``: a stop token or string came. ``length``: ``max_new_tokens`` were drawn."""
    truncated: int = 0
    """Tokens of the prompt, the first ones, that were out of the context by the end."""


class LanguageModel:
    """A model of any family, opened from a run directory by ``jaxlm.load``."""

    family: str
    tokenizer: Tokenizer
    config: Any
    """The model's config dataclass."""
    params: Params
    context: int
    """The most tokens it reads at once: the length that it was trained at."""
    step: int
    """The training step of the parameters."""
    is_ema: bool
    """True if they are the run's averaged parameters."""
    run_config: dict[str, Any]
    """The run's whole resolved config, as in config.json."""
    form: ChatFormat | None = None
    """How conversations become tokens, of a model that was taught a chat template."""

    def score(self, texts: Sequence[str]) -> list[Score]:
        """The log-likelihood of each text."""
        self._cannot("score")

    def likelihoods(self, requests: Sequence[tuple[str, str]], *, truncate: bool = True) -> list[Likelihood]:
        """How likely each continuation is behind its context, for ``(context, continuation)`` pairs; an empty context
        is the start of a text. White space at the end of a context counts to the continuation.

        ``truncate``: a context without room loses its first tokens, and the reply says how many; else UserError.
        """
        self._cannot("say how likely a continuation is")

    def logits(self, tokens: Any) -> np.ndarray:
        """Next-token logits, f32 [b, t, v], for token ids [b, t]."""
        self._cannot("give logits")

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

        ``numbers``: what the prompts' draws are numbered by; default their places in the list.
        """
        self._cannot("generate")

    def answer(
        self,
        conversations: Sequence[Any],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        num_samples: int = 1,
        slide: bool = False,
        numbers: Sequence[int] | None = None,
    ) -> list[Generation]:
        """``num_samples`` answers to what the user says, or to each list of turns (models that were taught to)."""
        self._cannot("answer")

    def fill(self, text: str, *, top_k: int = 5) -> list[list[Any]]:
        """For each <mask> of the text the likeliest symbols (encoders)."""
        self._cannot("fill masks")

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """A vector for each text, f32 [texts, d] (encoders)."""
        self._cannot("embed texts")

    def pseudo_log_likelihood(self, texts: Sequence[str]) -> list[Score]:
        """How likely each token is given all others of its text (encoders)."""
        self._cannot("give pseudo-log-likelihoods")

    def predict(self, texts: Sequence[Any]) -> list[Any]:
        """Labels of texts, pairs or words (fine-tuned models)."""
        self._cannot("predict labels")

    def reward(self, conversations: Sequence[Any], *, batch_size: int = 32) -> Any:
        """How good the assistant's last turn is in each conversation (reward models)."""
        self._cannot("judge answers")

    def _cannot(self, what: str) -> NoReturn:
        raise UserError(f"a model of family {self.family!r} cannot {what}: use another run")


def check_texts(texts: Sequence[str], name: str) -> list[str]:
    """The texts as a list. Raises UserError for one bare string, or for what is not text."""
    if isinstance(texts, str):
        raise UserError(f"{name}={texts[:40]!r} is one string: pass a list of them")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{name}[{number}] is of type {type(text).__name__}: pass strings")
    return texts


def check_request(seed: int, stop: Sequence[str], **counts: int | None) -> tuple[str, ...]:
    """The stop strings as a tuple. Raises UserError for a seed no key can be made of, an empty stop string, or a count
    (``max_new_tokens``, ``num_samples``...; None is left alone) below 1."""
    check_seed(seed)
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(stop):
        raise UserError("stop='' would end every text at once: give at least one character")
    check_counts(**counts)
    return stop


def check_counts(**counts: int | None) -> None:
    """Raises UserError where a number is below 1; None is left alone."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be at least 1")


class RequestError(UserError):
    """A continuation behind a context that cannot be scored."""

    def __init__(self, number: int, why: str):
        self.number, self.why = number, why
        super().__init__(f"requests[{number}] {why}")


class OverlongError(RequestError):
    """A context and its continuation that are more than the model reads at once, where they may not be cut."""

    def __init__(self, number: int, num_tokens: int, context: int):
        self.num_tokens, self.context = num_tokens, context
        super().__init__(
            number,
            f"has {num_tokens} tokens, more than the context of {context}: shorten it, show fewer examples, "
            "or let it be cut (truncate=True)",
        )


def no_token(number: int, continuation: str) -> RequestError:
    """Of a continuation that leaves the tokens of its context as they are: nothing would make it certain."""
    return RequestError(
        number, f"has the continuation {continuation!r}, which adds no token to its context: give another text"
    )


def check_seed(seed: int) -> int:
    """The seed, if it is one that a key can be made of. Raises UserError."""
    try:
        seeds.check_seed(seed)
    except ValueError as error:
        raise UserError(str(error)) from None
    return seed
