"""tokenizer.json: plain data with its own fingerprint; loading it runs no code."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError

FORMAT_VERSION = 1
DEFINITION_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"


def fingerprint_of(definition: dict[str, Any]) -> str:
    """sha256 (hex) of the definition as canonical JSON."""
    canonical = json.dumps(definition, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_definition(directory: str | Path, definition: dict[str, Any], model: bytes | None = None) -> None:
    """Writes the model first and the definition last, each under its name only when whole."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if model is not None:
        _write_whole(directory / MODEL_FILE, model)
    text = json.dumps({**definition, "fingerprint": fingerprint_of(definition)}, indent=1, sort_keys=True)
    _write_whole(directory / DEFINITION_FILE, text.encode())


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_definition(directory: str | Path) -> dict[str, Any]:
    """The definition, checked against its fingerprint.

    Raises:
        UserError: the file is missing, damaged, or of a newer format.
    """
    path = Path(directory) / DEFINITION_FILE
    try:
        definition = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"no tokenizer at {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(_damaged(path)) from None
    if not isinstance(definition, dict):
        raise UserError(_damaged(path))
    version = definition.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(f"{path} has format {version}, this jaxlm reads up to {FORMAT_VERSION}: upgrade jaxlm")
    stated = definition.pop("fingerprint", None)
    if version != FORMAT_VERSION or stated != fingerprint_of(definition):
        raise UserError(_damaged(path))
    return definition


def is_definition(directory: str | Path) -> bool:
    """Whether the directory's tokenizer.json, whole or damaged, is ours; Hugging Face's has the same name."""
    try:
        found = json.loads((Path(directory) / DEFINITION_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return True  # which says what is wrong with it
    return not (isinstance(found, dict) and "model" in found and "format_version" not in found)


def read_model(directory: str | Path, sha256: str) -> bytes:
    """The model file, checked against the hash that the definition states; UserError if missing or damaged."""
    path = Path(directory) / MODEL_FILE
    try:
        model = path.read_bytes()
    except OSError as error:
        raise UserError(f"no tokenizer model at {path}: {error.strerror}") from None
    if hashlib.sha256(model).hexdigest() != sha256:
        raise UserError(_damaged(path))
    return model


def _damaged(path: Path) -> str:
    return f"{path} is damaged (its content does not match its fingerprint): restore it or train the tokenizer again"
