"""A chat template from a file: Jinja, or Hugging Face's tokenizer_config.json."""

import json
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.text.chat.template import ChatTemplate
from jaxlm.text.chat.templates import TEMPLATES

JINJA_FILE, CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"


def find_template(name: str) -> ChatTemplate:
    """The built-in template of this name, or the one in this file or checkpoint directory.

    Raises UserError where there is neither.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.exists():
        raise UserError(f"chat template {name!r} is none of {', '.join(TEMPLATES)}, and no file")
    return read_template(path)


def read_template(path: Path) -> ChatTemplate:
    """The template of a ``.jinja`` file, of a ``tokenizer_config.json``, or of a directory that has one of them.

    Of several named ones it is the one named default. Raises UserError where there is none.
    """
    if path.is_dir():
        found = [path / name for name in (JINJA_FILE, CONFIG_FILE) if (path / name).is_file()]
        if not found:
            raise UserError(f"{path} has neither {JINJA_FILE} nor {CONFIG_FILE}: name a file with a chat template")
        path = found[0]
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".json":
            return ChatTemplate(str(path), text)
        return ChatTemplate(str(path), template_of(json.loads(text), str(path)))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no text or no JSON: {error}") from error


def template_of(settings: Any, where: str) -> str:
    """The Jinja in the settings of a tokenizer. Raises UserError where there is none."""
    source = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(source, list):
        named = (one for one in source if isinstance(one, dict) and one.get("name") == "default")
        source = next(named, {}).get("template")
    if not isinstance(source, str) or not source:
        raise UserError(f"{where} has no chat_template: name one of {', '.join(TEMPLATES)}, or a .jinja file")
    return source
