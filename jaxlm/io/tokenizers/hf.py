"""A tokenizer.json of Hugging Face's, behind the protocol. The ``tokenizers`` package does the work (extra ``hf``).

Round trips are as exact as the tokenizer is: byte-level BPE (GPT-2, Llama 3) loses nothing; one that normalises (Qwen
to NFC, BERT to lower case) or puts a space before the text gives back what it normalised. Where that is more than
another spelling of the same characters, the tokenizer counts as closed (`hf_spelling`).
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers.files import FORMAT_VERSION, fingerprint_of, write_definition
from jaxlm.io.tokenizers.hf_spelling import spells_any_text
from jaxlm.io.tokenizers.table import UNKNOWN
from jaxlm.text.tokenizer import MASK, check_text

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
_ROLES = ("bos", "eos", "pad", "unk", "mask", "sep", "cls")


def tokenizers_package() -> Any:
    """The ``tokenizers`` package. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise UserError("a Hugging Face tokenizer needs the package tokenizers: pip install 'jaxlm[hf]'") from error


class HFTokenizer:
    """A tokenizer.json. Text that spells a special token is encoded as ordinary text.

    Args:
      model: the bytes of tokenizer.json.
      settings: tokenizer_config.json, kept for export; of it the names of special tokens are read.
    """

    kind = "hf"

    def __init__(self, model: bytes, settings: dict[str, Any]):
        self.model, self.settings = model, settings
        package = tokenizers_package()
        try:
            self._tokenizer = package.Tokenizer.from_str(model.decode("utf-8"))
        except Exception as error:
            raise UserError(f"tokenizer.json cannot be read: {' '.join(str(error).split())}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        added = self._tokenizer.get_added_tokens_decoder()
        self._with_specials = self._tokenizer.encode("a", add_special_tokens=True).ids
        self._tokenizer.encode_special_tokens = True
        self.special_tokens: dict[str, int] = {t.content: i for i, t in sorted(added.items()) if t.special}
        self._special_ids = frozenset(self.special_tokens.values())
        self.vocab_size: int = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if not self.vocab_size:
            raise UserError("tokenizer.json holds no tokens")
        self.adds_bos = len(self._with_specials) > 1 and self._with_specials[0] in self._special_ids
        """Whether a text begins with a special token when it is encoded as the file says."""
        named = {role: self._id_of(settings.get(f"{role}_token")) for role in _ROLES}
        self.adds_eos = len(self._with_specials) > 1 and self._with_specials[-1] in self._special_ids
        """Whether it ends with one."""
        first = self._with_specials[0] if self.adds_bos else named["bos"]
        last = self._with_specials[-1] if self.adds_eos else named["eos"]
        self.bos_id: int | None = named["bos"] if named["bos"] is not None else first
        self.eos_id: int | None = named["eos"] if named["eos"] is not None else last
        if named["mask"] is not None:  # where jaxlm looks for it
            self.special_tokens[MASK] = named["mask"]
        self.pad_id: int = next((i for i in (named["pad"], named["eos"]) if i is not None), 0)
        self.closed = not spells_any_text(json.loads(model))
        self.fingerprint = fingerprint_of(self._definition())

    def _id_of(self, token: Any) -> int | None:
        content = token.get("content") if isinstance(token, dict) else token
        return self._tokenizer.token_to_id(content) if isinstance(content, str) else None

    def _definition(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "model_sha256": hashlib.sha256(self.model).hexdigest(),
            "settings": self.settings,
        }

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of one text; UserError for a lone surrogate, or for a bos or eos that there is not."""
        check_text(text)
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        for wanted, name, token in ((bos, "bos", self.bos_id), (eos, "eos", self.eos_id)):
            if wanted and token is None:
                raise UserError(f"this tokenizer has no {name} token: set add_{name} to False")
        return [self.bos_id or 0] * bos + list(ids) + [self.eos_id or 0] * eos

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of many texts, int32, without bos and eos; on all cores."""
        for text in texts:
            check_text(text)
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, np.int32) for one in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of any ids; specials left out, unknown ids as U+FFFD."""
        runs: list[list[int]] = [[]]
        for token in map(int, ids):
            if token in self._special_ids:
                continue
            if 0 <= token < self.vocab_size and self._tokenizer.id_to_token(token) is not None:
                runs[-1].append(token)
            else:
                runs.append([])
        return UNKNOWN.join(self._tokenizer.decode(run, skip_special_tokens=False) for run in runs)

    def token_str(self, token_id: int) -> str:
        """The token's text, or as the file spells it where that is half a character."""
        token = self._tokenizer.id_to_token(token_id) if token_id >= 0 else None
        if token is None:
            return UNKNOWN
        if token_id in self._special_ids:
            return token
        text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return token if not text or UNKNOWN in text else text

    def save(self, directory: str | Path) -> None:
        """Writes tokenizer.model (their tokenizer.json, byte for byte) and tokenizer.json."""
        write_definition(directory, self._definition(), self.model)


def read_hf_tokenizer(
    directory: Path, hf_config: dict[str, Any], vocab_size: int, say: Callable[[str], None]
) -> HFTokenizer:
    """The tokenizer of a directory, for a model of so many symbols.

    Added tokens beyond the model's vocabulary (of other modalities) are taken out, and said. Raises UserError where
    there is no tokenizer.json, or it has more tokens than the model.
    """
    try:
        model = (directory / TOKENIZER_FILE).read_bytes()
    except OSError as error:
        raise UserError(
            f"{directory} has no {TOKENIZER_FILE}: save its fast tokenizer there, or name its directory (--tokenizer)"
        ) from error
    settings: dict[str, Any] = {}
    if (directory / CONFIG_FILE).exists():
        try:
            settings = json.loads((directory / CONFIG_FILE).read_bytes())
        except OSError as error:
            raise UserError(f"cannot read {directory / CONFIG_FILE}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{directory / CONFIG_FILE} is no JSON: {error}") from error
        if not isinstance(settings, dict):
            raise UserError(f"{directory / CONFIG_FILE} holds no JSON object")
    # A bare tokenizer.json names no roles: config.json has their ids. A role that is null here there is not.
    unsaid = [role for role in ("bos", "eos") if f"{role}_token" not in settings]
    settings |= {f"{role}_token": None for role in unsaid}
    try:
        described = json.loads(model)
        beyond = [token for token in described.get("added_tokens", []) if token["id"] >= vocab_size]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{directory / TOKENIZER_FILE} cannot be read: {error}") from error
    if beyond:
        described["added_tokens"] = [token for token in described["added_tokens"] if token["id"] < vocab_size]
        model = json.dumps(described, ensure_ascii=False).encode()
        names = ", ".join(str(token.get("content")) for token in beyond[:4])
        say(f"tokens beyond the model's vocabulary of {vocab_size} are left out: {names}")
    tokenizer = HFTokenizer(model, settings)
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{directory / TOKENIZER_FILE} has {tokenizer.vocab_size} tokens and config.json vocab_size={vocab_size}: "
            "they belong to two models"
        )
    changed = False
    for role in unsaid:
        ids = hf_config.get(f"{role}_token_id")
        one = ids[0] if isinstance(ids, list) and ids else ids
        if isinstance(one, int) and not isinstance(one, bool):
            name = tokenizer._tokenizer.id_to_token(one) if 0 <= one < tokenizer.vocab_size else None
            if name in tokenizer.special_tokens:
                settings[f"{role}_token"], changed = name, True
    return HFTokenizer(model, settings) if changed else tokenizer
