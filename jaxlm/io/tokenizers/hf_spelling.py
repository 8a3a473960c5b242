"""Whether a tokenizer.json spells every text, read from its own description."""

from typing import Any

_SPACE = "\u2581"


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies (Radford et al. 2019): printable ones for
    themselves, the others from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + others.index(byte)) for byte in range(256)]


def spells_any_text(described: dict[str, Any]) -> bool:
    """Whether every text has ids, and no two texts have the same ones.

    Three differences are let pass, for which ordinary text is its own form: canonically equivalent spellings (NFC), a
    literal U+2581, and one space in front. What is not known to keep the text counts as losing it.
    """
    normalizers = _steps(described.get("normalizer"), "normalizers")
    cuts = _steps(described.get("pre_tokenizer"), "pretokenizers")
    byte_level = any(step.get("type") == "ByteLevel" for step in (*normalizers, *cuts))
    # A symbol that takes the spaces beside it along; special ones are not looked for in text.
    greedy = any(
        (token.get("lstrip") or token.get("rstrip")) and not token.get("special")
        for token in described.get("added_tokens") or []
    )
    if greedy or not all(map(_keeps_text, normalizers)) or not all(map(_drops_nothing, cuts)):
        return False
    return _has_all_bytes(described.get("model") or {}, byte_level)


def _steps(step: dict[str, Any] | None, parts: str) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as the list of those that it consists of."""
    if step is None:
        return []
    if step.get("type") != "Sequence":
        return [step]
    return [one for part in step.get(parts) or [] for one in _steps(part, parts)]


def _keeps_text(step: dict[str, Any]) -> bool:
    if step.get("type") == "Replace":  # of spaces by their sign, as SentencePiece does
        return step.get("pattern") == {"String": " "} and step.get("content") == _SPACE
    return step.get("type") in ("NFC", "Prepend", "ByteLevel")


def _drops_nothing(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer only cuts. The others drop white space, or what they cut at."""
    if step.get("type") in ("Split", "Punctuation"):
        return step.get("behavior") != "Removed"
    return step.get("type") in ("ByteLevel", "Metaspace", "Digits", "UnicodeScripts", "FixedLength")


def _has_all_bytes(model: dict[str, Any], byte_level: bool) -> bool:
    """Whether each of the 256 bytes is in the vocabulary of a model that falls back on them."""
    if model.get("type", "BPE") not in ("BPE", "Unigram"):
        return False
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False  # a byte is then spelled in several ways, not all of which need be there
    vocab = model.get("vocab") or {}
    pieces = set(vocab) if isinstance(vocab, dict) else {piece for piece, _ in vocab}
    if byte_level:
        return pieces.issuperset(byte_alphabet())
    return bool(model.get("byte_fallback")) and pieces.issuperset(f"<0x{byte:02X}>" for byte in range(256))
