"""Small Hugging Face directories with random weights, made from the tables, without torch."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxlm.core.tree import flatten_with_paths
from jaxlm.io.hf.configs import find_family, read_config
from jaxlm.io.hf.pieces import write_out
from jaxlm.io.hf.safetensors import Planned, write_tensors
from jaxlm.io.tokenizers.hf_spelling import byte_alphabet
from jaxlm.models.families import make_model
from jaxlm.plan.params import param_shapes

VOCAB = 131
_LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": VOCAB,
        "n_positions": 32,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "eos_token_id": 1,
    },
    "llama": _LLAMA | {"architectures": ["LlamaForCausalLM"], "rope_theta": 5e5, "rms_norm_eps": 1e-5},
    "llama31": _LLAMA
    | {
        "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": True,
        "rope_theta": 5e5,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "qwen3": _LLAMA | {"architectures": ["Qwen3ForCausalLM"], "rope_parameters": {"rope_theta": 1e6}},
    "gemma3": _LLAMA
    | {
        "architectures": ["Gemma3ForCausalLM"],
        "num_hidden_layers": 7,
        "tie_word_embeddings": True,
        "sliding_window": 8,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "query_pre_attn_scalar": 12,
    },
    "mixtral": _LLAMA | {"architectures": ["MixtralForCausalLM"], "num_local_experts": 3},
    "qwen3_moe": _LLAMA
    | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "norm_topk_prob": True,
    },
    "bert": {
        "architectures": ["BertForMaskedLM"],
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
    },
}
"""One of each family, settings as older and newer files write them."""
MODELS: dict[str, Any] = json.loads(Path(__file__).with_name("transformers_models.json").read_text())
"""What transformers itself writes (the version stands under "transformers"): family -> ``config``, and ``tensors`` as
name -> shape."""


def random_tensors(hf: dict[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Tensors of the names and shapes that a config asks for."""
    family = find_family(hf)
    config = read_config(family, hf)
    shapes = {path: leaf.shape for path, leaf in flatten_with_paths(param_shapes(make_model(config))).items()}
    rng = np.random.default_rng(0)
    pieces = write_out(family, config, shapes)
    return {piece.tensor: (rng.standard_normal(piece.shape) * 0.3).astype(dtype) for piece in pieces}


def write_directory(
    path: Path, hf: dict[str, Any], tensors: dict[str, np.ndarray], *, max_file_bytes: int = 1 << 30
) -> Path:
    """A whole directory: config, tensors, tokenizer."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(hf))
    plan = [Planned(name, array.shape, array.dtype) for name, array in tensors.items()]
    write_tensors(path, plan, lambda tensor: iter([tensors[tensor.name]]), max_file_bytes=max_file_bytes)
    write_ascii_tokenizer(path)
    return path


def write_ascii_tokenizer(path: Path) -> None:
    """A byte-level tokenizer.json of the 128 ASCII bytes behind three special tokens."""
    specials = ["<s>", "</s>", "[M]"]
    vocab = {name: number for number, name in enumerate([*specials, *byte_alphabet()[:128]])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": name} | flags for number, name in enumerate(specials)],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    (path / "tokenizer.json").write_text(json.dumps(described))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "mask_token": "[M]"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
