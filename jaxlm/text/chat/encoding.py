"""From conversations to tokens, with the tokens that the model must say itself marked one by one."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.text.chat.messages import Conversation, Message, check_conversation, check_turns
from jaxlm.text.chat.template import ChatTemplate, Marks, marks_for, render
from jaxlm.text.tokenizer import Tokenizer


class EncodedChat(NamedTuple):
    """One conversation."""

    tokens: np.ndarray
    """int32 [n]"""
    loss_mask: np.ndarray
    """uint8 [n]: 1 = the assistant must say this token, its end of turn included."""


class Segment(NamedTuple):
    """A stretch of a rendered conversation."""

    text: str
    counted: bool
    """Whether the assistant says it."""
    symbol_id: int | None = None
    """Its one id, if it is a special symbol that the template wrote."""


@dataclasses.dataclass(frozen=True)
class ChatFormat:
    """A template with a tokenizer.

    A symbol that the template writes becomes one id, if the tokenizer has it; the same characters inside a message stay
    text. No token reaches over the border of what the assistant says, as none can when it answers.
    """

    template: ChatTemplate
    tokenizer: Tokenizer

    def encode(self, conversation: Conversation) -> EncodedChat:
        """Tokens and mask of a whole conversation.

        Raises UserError for what is no conversation, a template that raises, and one that marks nothing.
        """
        return self._chat(conversation)

    def encode_answer(self, prompt: Sequence[Message], answer: str, where: str = "this conversation") -> EncodedChat:
        """A prompt with one answer, up to the answer's end. The tokens are those of `encode`; of what the assistant
        says only the answer counts, whatever it has said before. Raises UserError as `encode` does."""
        check_turns(prompt, where)
        earlier = sum(said for _, said in _Writer(self, prompt, where).cut())
        chat = self._chat(Conversation((*prompt, Message("assistant", answer)), where), earlier)
        end = int(np.flatnonzero(chat.loss_mask)[-1]) + 1
        return EncodedChat(chat.tokens[:end], chat.loss_mask[:end])

    def prompt(self, messages: Sequence[Message], where: str = "this conversation") -> list[int]:
        """The ids to answer from: the turns so far, up to where the assistant begins to speak, with the borders of what
        it has said where `encode` has them."""
        check_turns(messages, where)
        writer = _Writer(self, messages, where)
        stretches = writer.cut(prompt=True)
        return self._encode(one for text, _ in stretches for one in writer.symbols(text, counted=False))[0]

    def _chat(self, conversation: Conversation, earlier: int = 0) -> EncodedChat:
        """Tokens and mask; of the stretches that the assistant says the first ``earlier`` do not count."""
        check_conversation(conversation)
        ids, mask = self._encode(self._segments(conversation, earlier))
        if not any(mask):
            raise UserError(
                f"{conversation.where}: chat template {self.template.name!r} marks nothing as the assistant's: "
                "put {% generation %} around its words"
            )
        return EncodedChat(np.array(ids, np.int32), np.array(mask, np.uint8))

    @functools.cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end an assistant's turn: as a rule one. Raises UserError where the template has no end."""
        return tuple(self._encode(self._end)[0])

    @property
    def answer_ends(self) -> tuple[int, ...]:
        """The ids at which an answer ends wherever one is drawn: the end of a turn, and that of a text."""
        eos_id = self.tokenizer.eos_id
        return tuple(sorted({*self.stop_ids, *(() if eos_id is None else (eos_id,))}))

    @functools.cached_property
    def stop(self) -> str:
        """The same end as text: a symbol's name, or characters. Raises UserError where there is none."""
        return "".join(segment.text for segment in self._end)

    @functools.cached_property
    def _end(self) -> list[Segment]:
        """What the assistant says after its words."""
        probe = Conversation((Message("user", "a"), Message("assistant", "b")), "a conversation of two letters")
        said = [segment for segment in self.segments(probe) if segment.counted]
        rest = said[0].text.partition("b")[2] if said else ""
        end = ([Segment(rest, True)] if rest else []) + said[1:]
        if not end:
            raise UserError(
                f"chat template {self.template.name!r} with this {self.tokenizer.kind} tokenizer has nothing that ends "
                "the assistant's turn, so no answer would stop: choose another template"
            )
        return end

    def segments(self, conversation: Conversation) -> list[Segment]:
        """The rendered text, cut at symbols and at the borders of what the assistant says; joined it is the whole."""
        return list(self._segments(conversation, 0))

    def _segments(self, conversation: Conversation, earlier: int) -> Iterator[Segment]:
        writer = _Writer(self, conversation.messages, conversation.where)
        stretches = list(writer.cut())
        if earlier >= sum(said for _, said in stretches):
            earlier = 0  # a template may mark the last turn alone
        for text, said in stretches:
            yield from writer.symbols(text, counted=said and not earlier)
            earlier = max(0, earlier - said)

    def _encode(self, segments: Iterable[Segment]) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        mask: list[int] = []
        for text, counted, symbol_id in segments:
            if symbol_id is not None:
                piece = [symbol_id]
            else:
                piece = self._inside(text) if ids and self._spaced else self.tokenizer.encode(text)
            ids += piece
            mask += [int(counted)] * len(piece)
        return ids, mask

    def continued(self, text: str) -> list[int]:
        """The ids of a text that follows others; no token reaches over its border."""
        return self._inside(text) if self._spaced else self.tokenizer.encode(text)

    def _inside(self, text: str) -> list[int]:
        """The ids of a text that others stand before."""
        head, ids = self.tokenizer.encode("\n"), self.tokenizer.encode("\n" + text)
        return ids[len(head) :] if ids[: len(head)] == head else self.tokenizer.encode(text)

    @functools.cached_property
    def _spaced(self) -> bool:
        """Whether the tokenizer puts a space before each text; inside a longer one there must be none."""
        return self.tokenizer.special_tokens != {} and self._inside("a") != self.tokenizer.encode("a")

    @functools.cached_property
    def variables(self) -> dict[str, str]:
        """What a template calls ``bos_token`` and ``eos_token``: the symbols' names, "" where there is none."""
        names = {token: name for name, token in self.tokenizer.special_tokens.items()}
        roles = {"bos_token": self.tokenizer.bos_id, "eos_token": self.tokenizer.eos_id}
        return {role: "" if token is None else names.get(token, "") for role, token in roles.items()}

    @functools.cached_property
    def symbol(self) -> re.Pattern[str]:
        """A special symbol; of two that begin alike the longer one."""
        longest_first = sorted(self.tokenizer.special_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @functools.cached_property
    def symbol_start(self) -> re.Pattern[str]:
        """Each place where a symbol begins, also inside another; group 1 is its first character."""
        return re.compile(f"(?=(?:{self.symbol.pattern}))(.)", re.DOTALL)

    @functools.cached_property
    def prefixes(self) -> frozenset[str]:
        """All beginnings of symbols."""
        return frozenset(name[:n] for name in self.tokenizer.special_tokens for n in range(1, len(name)))


class _Writer:
    """One conversation on its way through the template."""

    def __init__(self, chat: ChatFormat, messages: Sequence[Message], where: str):
        self.chat, self.messages, self.where = chat, messages, where
        self.marks: Marks = marks_for([chat.template.source, *(message.content for message in messages)], where)

    def text(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """Rendered, marks and all."""
        return render(
            self.chat.template,
            [Message(role, self._guard(content)) for role, content in messages],
            marks=self.marks,
            variables=self.chat.variables,
            add_generation_prompt=prompt,
            where=self.where,
        )

    def _guard(self, content: str) -> str:
        """The content with every special symbol in it broken, and one that begins at its end too."""
        content = self.chat.symbol_start.sub(lambda match: match[1] + self.marks.break_, content)
        body = content.rstrip()
        longest = max(map(len, self.chat.prefixes), default=0)
        for length in range(min(longest, len(body)), 0, -1):
            if body[-length:] in self.chat.prefixes:
                at = len(body) - length + 1
                return content[:at] + self.marks.break_ + content[at:]
        return content

    def cut(self, *, prompt: bool = False) -> Iterator[tuple[str, bool]]:
        """The text in stretches, and whether the assistant says each. ``prompt``: up to where it begins to speak."""
        return self._by_marks(prompt) if self.chat.template.marked else self._by_prefixes(prompt)

    def _by_marks(self, prompt: bool) -> Iterator[tuple[str, bool]]:
        """The text cut at the template's own marks."""
        for i, part in enumerate(self.text(self.messages, prompt=prompt).split(self.marks.begin)):
            said, end, rest = part.partition(self.marks.end)
            if bool(i) != bool(end):
                raise UserError(
                    f"{self.where}: chat template {self.chat.template.name!r} has one {{% generation %}} inside another"
                )
            if i:
                yield said, True
            yield rest if i else said, False

    def _by_prefixes(self, prompt: bool) -> Iterator[tuple[str, bool]]:
        """For a template without marks: an assistant's turn is what it adds to the prompt before it, up to the last
        symbol if only white space follows that. A prompt whose past is rewritten stays in one from there on: no
        conversation in training has its borders."""
        whole, done = self.text(self.messages, prompt=prompt), 0
        for i, message in enumerate(self.messages):
            if message.role != "assistant":
                continue
            before = self.text(self.messages[:i], prompt=True) if i else ""
            upto = self.text(self.messages[: i + 1])
            if not (upto.startswith(before) and whole.startswith(upto)):
                if prompt:
                    break
                raise UserError(
                    f"{self.where}: chat template {self.chat.template.name!r} writes a conversation's beginning "
                    "otherwise than when it stands alone, so that the assistant's part cannot be told: put "
                    "{% generation %} around it"
                )
            said = upto[len(before) :]
            ends = [match.end() for match in self.chat.symbol.finditer(said)]
            if ends and not said[ends[-1] :].strip():
                said = said[: ends[-1]]
            yield whole[done : len(before)], False
            yield said, True
            done = len(before) + len(said)
        yield whole[done:], False

    def symbols(self, text: str, *, counted: bool) -> Iterator[Segment]:
        """A stretch of rendered text cut at the symbols that the template wrote, its marks taken out."""
        done = 0
        for match in self.chat.symbol.finditer(text):
            yield from self._plain(text[done : match.start()], counted)
            yield Segment(match[0], counted, self.chat.tokenizer.special_tokens[match[0]])
            done = match.end()
        yield from self._plain(text[done:], counted)

    def _plain(self, text: str, counted: bool) -> Iterator[Segment]:
        for mark in self.marks:
            text = text.replace(mark, "")
        if text:
            yield Segment(text, counted)
