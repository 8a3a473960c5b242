"""Completing prompts, seen from the host: few shapes, stop strings, a context that slides, streaming."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from jaxlm.core.keys import Purpose, fold_key
from jaxlm.core.types import Array, Params
from jaxlm.generate.decode import DecodeState, bucket_length, left_pad
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.run.programs import Programs
from jaxlm.text.tokenizer import Tokenizer

_CHUNK = 16
"""Tokens drawn between two looks for a stop string."""


class Row(NamedTuple):
    """One completion to draw. Its numbers, with the seed, make its key."""

    prompt: int
    sample: int
    ids: list[int]


class Drawn(NamedTuple):
    """What was drawn for a row."""

    tokens: list[int]
    logprobs: list[float]
    stopped: bool
    """By a stop token, the last of ``tokens``."""
    num_forgotten: int = 0
    """Tokens of the prompt, the first ones, that were out of the context by the end."""


class Completer:
    """One request for completions: a model and the options that its rows share."""

    def __init__(
        self,
        programs: Programs,
        params: Params,
        tokenizer: Tokenizer,
        *,
        context: int,
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        stop: tuple[str, ...] = (),
    ):
        self.programs, self.params, self.tokenizer = programs, params, tokenizer
        self.context, self.max_new_tokens, self.sampling, self.seed = context, max_new_tokens, sampling, seed
        # A reserved symbol never appears in decoded text: as a stop it is its token.
        self.stop = tuple(string for string in stop if string not in tokenizer.special_tokens)
        ends = {tokenizer.eos_id, *(tokenizer.special_tokens.get(string) for string in stop)}
        self.stop_ids = tuple(sorted(token for token in ends if token is not None))

    def batches(self, rows: Sequence[Row], batch_size: int) -> Iterator[list[Row]]:
        """Rows to decode together. Where the context will slide, only samples of one prompt: they slide together."""
        room = self.context - self.max_new_tokens
        fitting = [row for row in rows if len(row.ids) <= room]
        sliding = itertools.groupby((row for row in rows if len(row.ids) > room), key=lambda row: row.prompt)
        for group in [fitting, *(list(group) for _, group in sliding)]:
            for first in range(0, len(group), batch_size):
                yield group[first : first + batch_size]

    def complete(self, rows: Sequence[Row]) -> list[Drawn]:
        """Draw a batch; in rounds where the context has to slide: it goes on from its newest half. A prompt without
        room is cut first, to what its completion leaves, or to half the context where that is more."""
        drawn = [Drawn([], [], False) for _ in rows]
        live = list(range(len(rows)))
        for round_number in itertools.count():
            if not live:
                return drawn
            # Rows that live have drawn the same number of tokens.
            left = self.max_new_tokens - len(drawn[live[0]].tokens)
            texts = [rows[i].ids + drawn[i].tokens for i in live]
            forgotten = [0] * len(live)
            if max(map(len, texts)) + left > self.context:
                keep = max(1, self.context // 2, 0 if round_number else self.context - left)
                forgotten = [max(0, min(len(rows[i].ids), len(ids) - keep)) for i, ids in zip(live, texts, strict=True)]
                texts = [ids[-keep:] for ids in texts]
                left = min(left, self.context - keep)
            again = [row._replace(ids=ids) for row, ids in zip((rows[i] for i in live), texts, strict=True)]
            for i, new, lost in zip(live, self._round(again, left, round_number), forgotten, strict=True):
                old = drawn[i]
                drawn[i] = Drawn(old.tokens + new.tokens, old.logprobs + new.logprobs, new.stopped, lost)
            live = [i for i in live if not drawn[i].stopped and len(drawn[i].tokens) < self.max_new_tokens]
            live = [i for i in live if not self.has_stop(rows[i].ids, drawn[i].tokens)]
        return drawn

    def stream(self, ids: list[int]) -> Iterator[tuple[int, str]]:
        """One completion as it is drawn: (token, new text). Half a character is held back until it is whole, and so is
        what may become a stop string."""
        state = self._start([Row(0, 0, ids)], self.max_new_tokens)
        tokens: list[int] = []
        said = ""
        for count in range(1, self.max_new_tokens + 1):
            if count > 1:
                state = self._decode(state, count)
            token_b, stopped_b = fetch((state.token_b, state.generated.stopped_b))
            token, stopped = int(token_b[0]), bool(stopped_b[0])
            if not stopped:
                tokens.append(token)
            last = stopped or count == self.max_new_tokens
            text = self.text(ids, tokens)
            cut = min((at for at in (text.find(string) for string in self.stop) if at >= 0), default=None)
            last = last or cut is not None
            text = text[:cut] if last else self._without_begun_stop(text.rstrip("\ufffd"))
            yield token, text[len(said) :]
            if last:
                return
            said = text

    def _without_begun_stop(self, text: str) -> str:
        """The text up to where a stop string may have begun at its end."""
        ends = (n for string in self.stop for n in range(len(string) - 1, 0, -1) if text.endswith(string[:n]))
        return text[: len(text) - max(ends, default=0)]

    def text(self, prompt_ids: Sequence[int], tokens: Sequence[int]) -> str:
        """What the tokens add to the prompt's text: a tokenizer may read a piece otherwise at the start of a text."""
        before = self.tokenizer.decode(prompt_ids)
        whole = self.tokenizer.decode([*prompt_ids, *tokens])
        return whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(tokens)

    def has_stop(self, prompt_ids: Sequence[int], tokens: Sequence[int]) -> bool:
        """True if the completion spells a stop string."""
        text = self.text(prompt_ids, tokens) if self.stop else ""
        return any(string in text for string in self.stop)

    def cut_at_stop(self, prompt_ids: Sequence[int], drawn: Drawn) -> tuple[str, Drawn, str]:
        """(text, what was drawn up to the stop, "stop" or "length"). The stop itself is not in the text."""
        text = self.text(prompt_ids, drawn.tokens[:-1] if drawn.stopped else drawn.tokens)
        cut = min((at for at in (text.find(string) for string in self.stop) if at >= 0), default=None)
        if cut is None:
            return text, drawn, "stop" if drawn.stopped else "length"
        # Keep the fewest tokens that spell the stop string: those after it were drawn in the same chunk.
        count = next(n for n in range(1, len(drawn.tokens) + 1) if self.has_stop(prompt_ids, drawn.tokens[:n]))
        return text[:cut], Drawn(drawn.tokens[:count], drawn.logprobs[:count], False), "stop"

    def _start(self, rows: Sequence[Row], max_new_tokens: int, round_number: int = 0) -> DecodeState:
        """Prefill a batch, padded to buckets: of rows (by rows that are done at once), of prompts, of completions."""
        num_rows = 1 << (len(rows) - 1).bit_length()
        prompts = [*(row.ids for row in rows), *[[] for _ in range(num_rows - len(rows))]]
        numbers_b2 = np.zeros((num_rows, 2), np.int32)
        numbers_b2[: len(rows)] = [(row.prompt, row.sample) for row in rows]
        length = min(self.context, bucket_length(max(len(ids) for ids in prompts)))
        return self.programs.prefill(
            self.params,
            *left_pad(prompts, self.tokenizer.pad_id, length=length),
            max_new_tokens=bucket_length(max_new_tokens),
            sampling=self.sampling,
            key=_row_keys(np.uint32(self.seed), numbers_b2, np.int32(round_number)),
            stop_ids=self.stop_ids,
            pad_id=self.tokenizer.pad_id,
        )

    def _decode(self, state: DecodeState, until: int) -> DecodeState:
        return self.programs.decode(
            self.params, state=state, until=until, sampling=self.sampling, stop_ids=self.stop_ids
        )

    def _round(self, rows: Sequence[Row], max_new_tokens: int, round_number: int) -> list[Drawn]:
        """One prefill and the decoding after it; with stop strings, in chunks that the host looks at."""
        state = self._start(rows, max_new_tokens, round_number)
        for first in range(0, max_new_tokens, _CHUNK) if self.stop else (0,):
            state = self._decode(state, min(first + _CHUNK, max_new_tokens) if self.stop else max_new_tokens)
            if self.stop:
                done_b = np.array(fetch(state.done_b))
                for i, drawn in enumerate(self._drawn(state, len(rows))):
                    done_b[i] |= self.has_stop(rows[i].ids, drawn.tokens)
                state = state._replace(done_b=jnp.asarray(done_b))
        return self._drawn(state, len(rows))

    def _drawn(self, state: DecodeState, num_rows: int) -> list[Drawn]:
        out = fetch(state.generated)
        return [
            Drawn(out.tokens_bn[i, :length].tolist(), out.logprobs_bn[i, :length].tolist(), bool(out.stopped_b[i]))
            for i, length in enumerate(out.lengths_b[:num_rows])
        ]


def fetch(tree: Any) -> Any:
    """Arrays as NumPy arrays: whole, also where they lie over several hosts."""
    here = all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree))
    return jax.device_get(tree) if here else process_allgather(tree, tiled=True)


@jax.jit
def _row_keys(seed: Array, numbers_b2: Array, round_number: Array) -> Array:
    """A key for each (prompt, sample), and for each time that the context slid. A traced seed serves all seeds."""

    def row_key(numbers: Array) -> Array:
        key = fold_key(cast(int, seed), Purpose.SAMPLE, numbers[0], numbers[1])
        return jnp.where(round_number > 0, jax.random.fold_in(key, round_number), key)

    return jax.vmap(row_key)(numbers_b2)
