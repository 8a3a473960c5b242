"""``jaxlm chat RUN``: write with a model in the terminal, its text streaming as it is drawn.

A base model continues: what you type is added to the text so far, and it writes on from there. One that was tuned to
conversations answers, in its own template. Lines that begin with / are commands. Ctrl-C stops the writing, not the
program. With a pipe on stdin, each line is one turn.
"""

import argparse
import dataclasses
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jaxlm.core.errors import UserError
from jaxlm.run.generate import add_sampling_options
from jaxlm.run.parsers import Parser
from jaxlm.text.chat.messages import Message

if TYPE_CHECKING:
    from jaxlm.generate.sampling import SamplingConfig
    from jaxlm.run.causal_lm import CausalLM
    from jaxlm.text.chat.encoding import ChatFormat

HELP = """\
/reset              forget the text so far
/temperature T      0 is greedy; higher is wilder
/seed N             start the draws again from this seed
/help               this list
/quit               leave (Ctrl-D does too)
Ctrl-C stops the writing. An empty line lets a base model write on."""


class Conversation(Protocol):
    """How turns become the tokens that the model reads: as they stand, or wrapped in a chat model's symbols."""

    def prompt_ids(self, line: str) -> list[int]:
        """The tokens to go on from, once the user has said ``line``."""
        ...

    def answered(self, tokens: list[int]) -> None:
        """The model has drawn these (its end symbol left out)."""
        ...


class Continuation:
    """One running text that user and model write in turn. Its oldest tokens fall away where the context is full."""

    def __init__(self, model: "CausalLM", max_new_tokens: int):
        self.model = model
        self.room = model.context - max_new_tokens
        self.ids = [] if model.start_id is None else [model.start_id]
        self.forgot = 0

    def prompt_ids(self, line: str) -> list[int]:
        self.ids += self.model.tokenizer.encode(line)
        if not self.ids:
            raise UserError("this model has no start symbol: write something for it to go on from")
        self.forgot = max(0, len(self.ids) - self.room)
        if self.forgot:
            # Down to half the room, so that the next turns need not cut again.
            self.forgot = len(self.ids) - max(1, self.room // 2)
            self.ids = self.ids[self.forgot :]
        return list(self.ids)

    def answered(self, tokens: list[int]) -> None:
        self.ids += tokens


class Dialogue:
    """Turns in the model's chat template. The oldest exchanges fall away where the context is full."""

    def __init__(self, model: "CausalLM", form: "ChatFormat", max_new_tokens: int):
        self.model, self.form = model, form
        self.room = model.context - max_new_tokens
        self.messages: list[Message] = []
        self.forgot = 0

    def prompt_ids(self, line: str) -> list[int]:
        if not line.strip():
            raise UserError("say something: this model answers")
        messages = [*self.messages, Message("user", line)]
        ids = whole = self.form.prompt(messages)
        while len(ids) > self.room and len(messages) > 2:
            del messages[:2]
            ids = self.form.prompt(messages)
        if len(ids) > self.room:
            raise UserError(f"this turn has {len(ids)} tokens and there is room for {self.room}: say less")
        self.messages, self.forgot = messages, len(whole) - len(ids)
        return ids

    def answered(self, tokens: list[int]) -> None:
        said = self.model.tokenizer.decode(tokens).partition(self.form.stop)[0]
        if said.strip():
            self.messages.append(Message("assistant", said))
        else:  # no turn may be empty
            self.messages.pop()


class Chat:
    """The state of one sitting: the conversation, the sampling options, and the number of the turn."""

    def __init__(self, model: "CausalLM", sampling: "SamplingConfig", seed: int, max_new_tokens: int | None = None):
        from jaxlm.run.language_model import check_counts

        max_new_tokens = min(100, model.context // 2) if max_new_tokens is None else max_new_tokens
        check_counts(max_new_tokens=max_new_tokens)
        if max_new_tokens >= model.context:
            raise UserError(
                f"max_new_tokens={max_new_tokens} leaves no room in the context of {model.context}: "
                f"ask for at most {model.context - 1}"
            )
        self.model, self.sampling, self.seed, self.max_new_tokens = model, sampling, seed, max_new_tokens
        self.turn = 0
        self.conversation = self.new_conversation()

    def new_conversation(self) -> Continuation | Dialogue:
        """Which kind suits the model."""
        if self.model.form is not None:
            return Dialogue(self.model, self.model.form, self.max_new_tokens)
        return Continuation(self.model, self.max_new_tokens)

    def command(self, line: str) -> str | None:
        """Carry out a command; what to tell the user, or None to leave. Raises UserError for an unknown one."""
        from jaxlm.run.language_model import check_seed

        name, *values = _split(line)
        if name == "/quit":
            return None
        if name == "/help":
            return HELP
        if name == "/reset":
            self.conversation = self.new_conversation()
            return "the text so far is forgotten"
        if name == "/temperature":
            temperature = _one_number(name, values, float)
            try:
                self.sampling = dataclasses.replace(self.sampling, temperature=temperature)
            except ValueError as error:
                raise UserError(str(error)) from error
            return f"temperature {temperature:g}"
        if name == "/seed":
            self.seed, self.turn = check_seed(int(_one_number(name, values, int))), 0
            return f"seed {self.seed}"
        raise UserError(f"unknown command {name}: /help lists them (a text that begins with / needs a space before it)")

    def reply(self, line: str, write: Callable[[str], None]) -> None:
        """Let the model write on from ``line``. Ctrl-C ends it early; what was written stays in the text."""
        ids = self.conversation.prompt_ids(line)
        if self.conversation.forgot:
            _note(
                f"the context of {self.model.context} tokens is full: {self.conversation.forgot} oldest are forgotten"
            )
        drawn: list[int] = []
        # A seed of its own for each turn, or the same question would always have the same answer.
        seed = (self.seed + 1_000_003 * self.turn) % (1 << 32)
        self.turn += 1
        stop = () if self.model.form is None else (self.model.form.stop,)
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "sampling": self.sampling, "stop": stop}
        stream = self.model.stream(ids, seed=seed, **options)
        try:
            for token, text in stream:
                if token not in self.model.stop_ids:
                    drawn.append(token)
                write(text)
        except KeyboardInterrupt:
            _note("\nstopped")
        finally:
            self.conversation.answered(drawn)


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UserError(f"{line!r}: {error}") from error


def _one_number(name: str, values: list[str], kind: Callable[[str], float | int]):
    try:
        (value,) = values
        return kind(value)
    except ValueError as error:
        raise UserError(f"{name} {' '.join(values)}: give one number") from error


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _read_line(interactive: bool) -> str | None:
    """The next line without its end, or None at the end of input."""
    if interactive:
        try:
            return input("> ")
        except EOFError:
            return None
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def run_chat(chat: Chat) -> None:
    """Read and answer lines until the end of input or /quit. Bad commands are told and change nothing."""
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  (line editing and history for input())
    while True:
        try:
            line = _read_line(interactive)
            if line is None:
                return
            if line.startswith("/"):
                answer = chat.command(line)
                if answer is None:
                    return
                _note(answer)
                continue
            chat.reply(line, _write)
            _write("\n")
        except UserError as error:
            _note(f"error: {error}")
        except KeyboardInterrupt:
            _note("\n/quit or Ctrl-D leaves")


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = Parser(prog="jaxlm chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of a trained model")
    add_sampling_options(parser, default_new_tokens="half the context, at most 100")
    return parser


def main(argv: list[str]) -> int:
    """``jaxlm chat``. Raises UserError for bad input before the first line is read."""
    args = make_parser().parse_args(argv)
    from jaxlm.run.causal_lm import CausalLM, make_sampling
    from jaxlm.run.devices import use_compilation_cache
    from jaxlm.run.handle import load
    from jaxlm.run.language_model import check_seed

    sampling = make_sampling(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty)
    seed = check_seed(args.seed)
    use_compilation_cache()
    model = load(args.run, step=args.step, ema=args.ema, weights=args.weights)
    if not isinstance(model, CausalLM):
        raise UserError(f"a model of family {model.family!r} cannot write token by token: use another run")
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    # A shell that started this in the background has Ctrl-C ignored; here it has a meaning of its own.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _note(f"{args.run} at step {model.step}, context {model.context} tokens. /help lists the commands.")
    run_chat(Chat(model, sampling, seed, args.max_new_tokens))
    return 0
