"""A small tokenizer.json with the symbols of all built-in templates."""

import json
from typing import Any

from jaxlm.io.tokenizers.hf import HFTokenizer

SYMBOLS = [
    "<pad>", "<bos>", "<eos>", "<mask>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
]  # fmt: skip
SETTINGS: dict[str, Any] = {
    "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip


def tokenizer_json(more: str = "") -> str:
    """Byte-level BPE in GPT-2's form, learnt from a few words, and from ``more``."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer: Any = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, special_tokens=SYMBOLS)
    text = "user assistant system model One? Two. Three? Four lines. Below is an instruction\n\n### Response:\n"
    tokenizer.train_from_iterator([text + more] * 30, trainer)
    return json.dumps(json.loads(tokenizer.to_str()))


def hf_tokenizer(more: str = "") -> HFTokenizer:
    """The same behind jaxlm's protocol."""
    return HFTokenizer(tokenizer_json(more).encode(), SETTINGS)
