"""Run by an interpreter that has torch and transformers: ``make FAMILY DIR`` writes a directory with random weights,
``run DIR OUT`` opens one and writes the logits of ragged rows, padded on the left, and greedy continuations,
``task DIR IN OUT`` writes those of a task's head for given rows, and ``tables OUT`` what `transformers_models.json`
holds: config.json, tensor names and shapes of a small model of each family."""

# pyright: reportMissingImports=false
import sys


def make(name: str, directory: str) -> None:
    import torch
    import transformers as t

    llama = {
        "vocab_size": 131,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    rope = {"rope_theta": 5e5, "rope_type": "default"}
    scaled = rope | {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    both = {"full_attention": rope | {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_theta": 1e4}}
    both["sliding_attention"]["rope_type"] = "default"
    config = {
        "gpt2": lambda: t.GPT2Config(vocab_size=131, n_positions=64, n_embd=32, n_layer=3, n_head=4),
        "llama": lambda: t.LlamaConfig(**llama, rope_parameters=rope),
        "llama31": lambda: t.LlamaConfig(**llama, rope_parameters=scaled, tie_word_embeddings=True),
        "qwen3": lambda: t.Qwen3Config(**llama, head_dim=16, rope_parameters=rope),
        "gemma3": lambda: t.Gemma3TextConfig(
            **(llama | {"num_hidden_layers": 7}),
            head_dim=16,
            sliding_window=8,
            query_pre_attn_scalar=12,
            rope_parameters=both,
        ),
        "mixtral": lambda: t.MixtralConfig(**llama, num_local_experts=4),
        "qwen3_moe": lambda: t.Qwen3MoeConfig(
            **llama, head_dim=16, moe_intermediate_size=24, num_experts=8, num_experts_per_tok=3, norm_topk_prob=True
        ),
        "bert": lambda: t.BertConfig(
            **{k: llama[k] for k in ("vocab_size", "hidden_size", "intermediate_size")},
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=64,
        ),
    }[name]()
    kind = t.AutoModelForMaskedLM if name == "bert" else t.AutoModelForCausalLM
    torch.manual_seed(0)
    model = kind.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(directory, max_shard_size="60KB")


def run(directory: str, out: str) -> None:
    import numpy as np
    import torch
    import transformers as t

    config = t.AutoConfig.from_pretrained(directory)
    masked = config.model_type == "bert"
    kind = t.AutoModelForMaskedLM if masked else t.AutoModelForCausalLM
    model, info = kind.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"tensors that do not fit: {info}")
    lengths, t_max = (24, 17, 9, 1), 24
    tokens = np.random.default_rng(0).integers(3, config.vocab_size, (len(lengths), t_max))
    mask = np.array([[int(at >= t_max - length) for at in range(t_max)] for length in lengths])
    positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
    ids, attended = torch.tensor(tokens), torch.tensor(mask)
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, attention_mask=attended, position_ids=torch.tensor(positions)).logits
        greedy = torch.zeros((0,))
        if not masked:
            greedy = model.generate(
                input_ids=ids,
                attention_mask=attended,
                do_sample=False,
                max_new_tokens=20,
                eos_token_id=None,
                pad_token_id=0,
            )[:, t_max:]
    arrays = {"tokens": tokens, "mask": mask, "positions": positions}
    np.savez(out, **arrays, logits=logits.numpy(), greedy=greedy.numpy())


def task(directory: str, rows: str, out: str) -> None:
    import numpy as np
    import torch
    import transformers as t

    config = t.AutoConfig.from_pretrained(directory)
    kind = getattr(t, config.architectures[0])
    model, info = kind.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"tensors that do not fit: {info}")
    names = {"tokens": "input_ids", "segment_ids": "attention_mask", "token_types": "token_type_ids"}
    arrays = {names[name]: torch.tensor(array, dtype=torch.long) for name, array in np.load(rows).items()}
    with torch.no_grad():
        logits = model.eval()(**arrays).logits
    np.savez(out, logits=logits.numpy(), num_labels=config.num_labels, labels=list(config.id2label.values()))


def tables(out: str) -> None:
    import json
    import tempfile
    from pathlib import Path

    import torch
    import transformers as t
    from safetensors import safe_open

    sizes = {
        "vocab_size": 131,
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 32,
    }
    bert = {name: sizes[name] for name in sizes if name not in ("num_key_value_heads", "head_dim")}
    types = ["sliding_attention", "full_attention"]
    models = {
        "gpt2": t.GPT2LMHeadModel(t.GPT2Config(vocab_size=131, n_positions=32, n_embd=16, n_layer=2, n_head=4)),
        "bert": t.BertForMaskedLM(t.BertConfig(**bert)),
        "bert_classify": t.BertForSequenceClassification(t.BertConfig(**bert, num_labels=3)),
        "bert_tag": t.BertForTokenClassification(t.BertConfig(**bert, num_labels=3)),
        "llama": t.LlamaForCausalLM(t.LlamaConfig(**sizes)),
        "qwen3": t.Qwen3ForCausalLM(t.Qwen3Config(**sizes)),
        "gemma3": t.Gemma3ForCausalLM(t.Gemma3TextConfig(**sizes, layer_types=types, sliding_window=8)),
        "mixtral": t.MixtralForCausalLM(t.MixtralConfig(**sizes, num_local_experts=3)),
        "qwen3_moe": t.Qwen3MoeForCausalLM(
            t.Qwen3MoeConfig(**sizes, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=10)
        ),
    }
    lines = [f'"transformers": "{t.__version__}"', f'"torch": "{torch.__version__}"']
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            config = json.loads((Path(directory) / "config.json").read_text())
            with safe_open(Path(directory) / "model.safetensors", "pt") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in sorted(file.keys())}
        rows = ",\n".join(f"  {json.dumps(key)}: {shape}" for key, shape in shapes.items())
        lines.append(f'"{name}": {{"config": {json.dumps(config)}, "tensors": {{\n{rows}\n}}}}')
    Path(out).write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    {"make": make, "run": run, "task": task, "tables": tables}[sys.argv[1]](*sys.argv[2:])
