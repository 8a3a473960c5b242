"""Adapters from PEFT's format: what was written comes back as the same change of the model."""

import json

import jax
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.hf.peft import export_peft
from jaxlm.io.hf.peft_import import import_peft
from jaxlm.io.hf.safetensors import Planned, read_header, write_tensors
from jaxlm.models.lora import LoraConfig, check_fits, init_adapters, merge
from tests.io.hf.test_hf_peft import CASES, case


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_is_the_same_change(name, tmp_path):
    _, _, config, base, adapters, lora = case(name)
    export_peft(tmp_path / "adapter", config, adapters, lora)
    again, read = import_peft(tmp_path / "adapter", config)
    check_fits(base, again)
    assert read.rank == lora.rank  # of modules that hold several of our kernels each has its own rank back
    for ours, theirs in zip(
        jax.tree.leaves(merge(base, adapters, lora)), jax.tree.leaves(merge(base, again, read)), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


def test_what_is_no_adapter_of_this_model_is_refused(tmp_path):
    _, _, config, _, adapters, lora = case("qwen3")
    export_peft(tmp_path / "adapter", config, adapters, lora)
    with pytest.raises(UserError, match="cannot be read"):
        import_peft(tmp_path, config)
    with pytest.raises(UserError, match=r"belongs to another model|has no module|no adapter of this model"):
        import_peft(tmp_path / "adapter", case("gpt2")[2])
    path = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text())
    for change, words in (
        ({"use_dora": True}, "use_dora=True"),
        ({"peft_type": "IA3"}, "no LoRA"),
        ({"r": None}, "lacks r"),
    ):
        path.write_text(json.dumps(settings | change))
        with pytest.raises(UserError, match=words):
            import_peft(tmp_path / "adapter", config)


def changed(path, change):
    """The adapter's file again, its tensors (arrays by name) changed in place by ``change``."""
    arrays = {name: np.array(tensor.read()) for name, tensor in read_header(path).items()}
    change(arrays)
    plan = [Planned(name, array.shape, array.dtype) for name, array in arrays.items()]
    (written,) = write_tensors(path.parent, plan, lambda tensor: iter([arrays[tensor.name]]), max_file_bytes=1 << 62)
    written.rename(path)


QUERY = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("base_model.model.model.norm.weight", (1,), r"model\.norm\.weight of shape \(1,\), not \(16,\)"),
        ("base_model.model.model.norm.weight", (15,), r"model\.norm\.weight of shape \(15,\), not \(16,\)"),
        (f"{QUERY}.lora_A.weight", (3,), r"q_proj\.weight is \(3,\) and \(24, 3\), not \(r, 16\) and \(24, r\)"),
        (f"{QUERY}.lora_B.weight", (24,), r"q_proj\.weight is \(3, 16\) and \(24,\), not"),
        (f"{QUERY}.lora_A.weight", (3, 15), r"q_proj\.weight is \(3, 15\) and"),
        (f"{QUERY}.lora_B.weight", (24, 2), r"q_proj\.weight is \(3, 16\) and \(24, 2\)"),
    ],
)
def test_tensors_of_other_shapes_are_refused(name, shape, match, tmp_path):
    _, _, config, _, adapters, lora = case("llama")
    export_peft(tmp_path / "adapter", config, adapters, lora)

    def change(arrays):
        assert name in arrays
        arrays[name] = np.ones(shape, np.float32)

    changed(tmp_path / "adapter" / "adapter_model.safetensors", change)
    with pytest.raises(UserError, match=match):
        import_peft(tmp_path / "adapter", config)


def test_a_parameter_trained_in_some_layers_is_refused(tmp_path):
    """jaxlm keeps the layers of a parameter together: zeros would stand in place of the base's values."""
    _, _, config, base, _, _ = case("llama")
    lora = LoraConfig(rank=2, targets=("attn/q/kernel$",), trained=("/attn_norm/",))
    adapters = init_adapters(base, lora, jax.random.key(0))
    export_peft(tmp_path / "adapter", config, adapters, lora)
    again, _ = import_peft(tmp_path / "adapter", config)
    np.testing.assert_array_equal(
        again["layers"]["layer_0"]["attn_norm"]["scale"], base["layers"]["layer_0"]["attn_norm"]["scale"]
    )
    missing = "base_model.model.model.layers.1.input_layernorm.weight"
    changed(tmp_path / "adapter" / "adapter_model.safetensors", lambda arrays: arrays.pop(missing))
    with pytest.raises(UserError, match=r"lacks .*layers\.1\.input_layernorm\.weight"):
        import_peft(tmp_path / "adapter", config)
