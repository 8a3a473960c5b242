"""Jinja chat templates in a sandbox: from messages to text in which the assistant's own words are marked.

A template may come from a stranger's checkpoint: it runs in Jinja's immutable sandbox, sees plain strings and nothing
else, and has no clock (``strftime_now`` is undefined, so that a template with a date takes its own default).
"""

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from jaxlm.core.errors import UserError
from jaxlm.text.chat.messages import Message

_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
_BEGIN, _END = "_generation_begin", "_generation_end"


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template as Hugging Face writes them: it is given ``messages`` and ``add_generation_prompt``."""

    name: str
    source: str

    @property
    def marked(self) -> bool:
        """Whether it says itself, by ``{% generation %}``, what the assistant generates."""
        return _MARKER.search(self.source) is not None


class Marks(NamedTuple):
    """Three characters that occur in no message: they guide the encoding of a rendered text and are taken out of it."""

    begin: str
    """Before what the assistant must say."""
    end: str
    """After it."""
    break_: str
    """Inside what only looks like a special symbol."""


def marks_for(texts: Sequence[str], where: str) -> Marks:
    """Of Unicode's noncharacters U+FDD0..U+FDEF, which stand for nothing in any text, three that these lack."""
    used = set().union(*texts)
    free = [char for char in map(chr, range(0xFDD0, 0xFDF0)) if char not in used]
    if len(free) < 3:
        raise UserError(f"{where} holds nearly all of the noncharacters U+FDD0..U+FDEF: remove them")
    return Marks(*free[:3])


class _Generation(jinja2.ext.Extension):
    """``{% generation %} ... {% endgeneration %}``: the mark of its begin, its body, the mark of its end."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads it from the class)

    def parse(self, parser: Any) -> list[jinja2.nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)

        def mark(name: str) -> jinja2.nodes.Node:
            return jinja2.nodes.Output([jinja2.nodes.Name(name, "load")], lineno=line)

        return [mark(_BEGIN), jinja2.nodes.Scope(body, lineno=line), mark(_END)]


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False, **options: Any) -> str:
    """JSON as it is: Jinja's own filter escapes what HTML would misread."""
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **options)


@functools.lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    return environment.from_string(source)


def render(
    template: ChatTemplate,
    messages: Sequence[Message],
    *,
    marks: Marks,
    variables: dict[str, str],
    add_generation_prompt: bool = False,
    where: str = "this conversation",
) -> str:
    """The text of a conversation, with ``marks.begin`` and ``marks.end`` around each generation block.

    ``variables``: what the template calls ``bos_token`` and the like. ``add_generation_prompt``: the text ends where
    the assistant begins to speak.

    Raises UserError where the template is no Jinja, or raises, in one line that names the template and ``where``.
    """
    given = variables | {_BEGIN: marks.begin, _END: marks.end}
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        compiled = _compiled(template.source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"chat template {template.name!r} is no Jinja: line {error.lineno}: {error.message}") from error
    try:
        return compiled.render(given | {"messages": turns, "add_generation_prompt": add_generation_prompt})
    except Exception as error:  # whatever the template's own code runs into
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: chat template {template.name!r} refused it: {said:.300}") from error
