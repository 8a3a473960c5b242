"""Adapters in PEFT's format: by hand against the change that they make, and opened by PEFT itself where it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.io.hf.configs import find_family, read_config
from jaxlm.io.hf.peft import export_peft
from jaxlm.io.hf.pieces import write_out
from jaxlm.io.hf.safetensors import read_header
from jaxlm.models.families import make_model
from jaxlm.models.lora import LoraConfig, init_adapters, merge
from tests.io.hf.directories import CONFIGS, write_directory

LINEAR = (r"/(attn|mlp)/\w+/kernel$",)
CASES = {
    "gpt2": LoraConfig(rank=3, alpha=5.0, targets=LINEAR),
    "gpt2 in part": LoraConfig(rank=3, targets=(r"/attn/(q|v)/kernel$", r"/mlp/up/kernel$"), rslora=True),
    "llama": LoraConfig(rank=3, alpha=5.0, targets=(*LINEAR, "^head/kernel$"), trained=("^final_norm/",)),
    "qwen3": LoraConfig(rank=2, targets=(r"/attn/(q|v)/kernel$",), rslora=True),
    "gemma3": LoraConfig(rank=2, targets=LINEAR),
}


def case(name):
    """(hf config, family, our config, base, adapters, LoraConfig)."""
    hf = CONFIGS[name.split()[0]]
    family = find_family(hf)
    config = read_config(family, hf)
    lora = CASES.get(name, LoraConfig(rank=2, targets=("/kernel$",)))
    rng = np.random.default_rng(0)

    def like(x):
        return jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32)

    base = jax.tree.map(like, jax.eval_shape(make_model(config).init, jax.random.key(0)))
    return hf, family, config, base, jax.tree.map(like, init_adapters(base, lora, jax.random.key(0))), lora


def hf_tensors(family, config, params):
    """A model's parameters as their tensors."""
    flat = {path: np.asarray(leaf) for path, leaf in flatten_with_paths(params).items()}
    out = {}
    for piece in write_out(family, config, {path: leaf.shape for path, leaf in flat.items()}):
        parts = [flat[part.path][part.lead] for part in piece.parts]
        out[piece.tensor] = np.concatenate([p.T if piece.turn else p for p in parts], axis=-1)
    return out


@pytest.mark.parametrize("name", CASES)
def test_the_file_holds_the_change(name, tmp_path):
    """alpha / r B A for each module is what merging adds to its tensor, and other tensors stay."""
    _, family, config, base, adapters, lora = case(name)
    done = export_peft(tmp_path / "adapter", config, adapters, lora, base="some/base")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    found = {key: t.read() for key, t in read_header(tmp_path / "adapter" / "adapter_model.safetensors").items()}
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert (settings["peft_type"], settings["base_model_name_or_path"]) == ("LORA", "some/base")
    assert done["tensors"] == len(found)
    before, after = (hf_tensors(family, config, p) for p in (base, merge(base, adapters, lora)))
    used = set()
    for tensor, old in before.items():
        module = tensor.removesuffix(".weight")
        keys = [f"base_model.model.{module}.lora_{x}.weight" for x in "AB"]
        whole = f"base_model.model.{tensor}"
        if keys[0] in found:
            down, up = (found[key].astype(np.float64) for key in keys)
            short = module.rpartition(".")[2]
            rank = settings["rank_pattern"].get(short, settings["r"])
            alpha = settings["alpha_pattern"].get(short, settings["lora_alpha"])
            assert down.shape[0] == up.shape[1] == rank
            change = alpha / rank * up @ down
            change = change.T if settings["fan_in_fan_out"] else change
            np.testing.assert_allclose(after[tensor] - old, change, rtol=1e-4, atol=2e-6)
            assert any(module == m or module.endswith(f".{m}") for m in settings["target_modules"])
            used |= set(keys)
        elif whole in found:
            np.testing.assert_array_equal(found[whole], after[tensor])
            assert any(module == m or module.endswith(f".{m}") for m in settings["modules_to_save"])
            used.add(whole)
        else:
            np.testing.assert_array_equal(after[tensor], old)
    assert used == set(found)


def test_experts_and_taken_places_are_refused(tmp_path):
    _, _, config, _, adapters, lora = case("mixtral")
    with pytest.raises(UserError, match="experts are one parameter there"):
        export_peft(tmp_path / "a", config, adapters, lora)
    assert not (tmp_path / "a").exists()
    _, _, config, _, adapters, lora = case("llama")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    with pytest.raises(UserError, match="is there already"):
        export_peft(tmp_path / "b", config, adapters, lora)
    with pytest.raises(UserError, match="name its base"):
        export_peft(tmp_path / "c", case("gpt2")[2], adapters, lora)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_peft_computes_our_merged_model(name, tmp_path):
    """Opened by PEFT over the base in transformers: our merged logits, the adapter beside the weights and in them."""
    python = os.environ.get("JAXLM_REFERENCE_PYTHON", sys.executable)
    probe = subprocess.run([python, "-c", "import torch, transformers, peft"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip("no peft, transformers and torch here: name an interpreter with them in JAXLM_REFERENCE_PYTHON")
    hf, family, config, base, adapters, lora = case(name)
    write_directory(tmp_path / "base", hf | {"model_type": family.model_type}, hf_tensors(family, config, base))
    export_peft(tmp_path / "adapter", config, adapters, lora, base=str(tmp_path / "base"))
    tokens = np.random.default_rng(1).integers(3, 131, (2, 12))
    np.save(tmp_path / "tokens.npy", tokens)
    script = Path(__file__).with_name("peft_reference.py")
    arguments = [tmp_path / "base", tmp_path / "adapter", tmp_path / "tokens.npy", tmp_path / "out.npy"]
    ran = subprocess.run([python, str(script), *map(str, arguments)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    model = make_model(config)
    ours = np.asarray(jax.jit(model.apply_fn)(merge(base, adapters, lora), jnp.asarray(tokens, jnp.int32)))
    for theirs in np.load(tmp_path / "out.npy"):
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
